"""Makes `consumers.reading` the same module as `bookbus.consumers.reading` in a checkout.

There the three packages are also top-level folders. Without this, Python would load each file twice, under two names
and with two sets of classes.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


class _TopLevelNames(MetaPathFinder, Loader):
    """Finds `<package>.<module>` as `bookbus.<package>.<module>`, except `__main__`, which `python -m` runs."""

    def __init__(self) -> None:
        self.packages: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = fullname.partition(".")
        if package not in self.packages or not module or module == "__main__":
            return None
        return ModuleSpec(fullname, self) if find_spec(f"bookbus.{fullname}") else None

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(f"bookbus.{module.__name__}")


_FINDER = _TopLevelNames()


def alias(package: str) -> None:
    """Replace the top-level `package`, while it is imported, by the package of that name in `bookbus`."""
    if not _FINDER.packages:
        sys.meta_path.insert(0, _FINDER)
    _FINDER.packages.add(package)
    sys.modules[package] = import_module(f"bookbus.{package}")
