"""In a checkout a module has two names, `bookbus.consumers.reading` and `consumers.reading`, but exists once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.import_rules import PACKAGES, Product

ROOT = Path(__file__).parents[2]
MODULES = [name for name in Product.read(ROOT).files if not name.endswith("__main__")]

# Paths that bots import in a checkout; they stay when modules move.
PUBLIC = {
    "consumers.direct_provider": "BinanceL2WebSocketProvider",
    "consumers.market_data_provider": "MarketDataProvider",
    "consumers.mock_provider": "MockMarketDataProvider",
    "consumers.multi_provider": "MultiExchangeProvider",
    "consumers.reading": "Reading",
    "consumers.redis_provider": "RedisMarketDataProvider",
    "consumers.sources": "open_source",
}

# Prints every file of the checkout that is loaded as two modules, and the names of both.
LOADED_TWICE = """
import sys
from pathlib import Path

modules = {}
for name, module in sys.modules.items():
    if name != "__main__" and (file := getattr(module, "__file__", None)):
        modules.setdefault(str(Path(file).resolve()), {}).setdefault(id(module), name)
for file, names in sorted(modules.items()):
    if len(names) > 1:
        print(Path(file).name, *sorted(names.values()))
"""


def run(program: str) -> str:
    """What a Python started in the checkout prints."""
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ
    ).stdout


def importing(*names: str) -> str:
    return "\n".join(f"import {name}" for name in names)


def short(name: str) -> str:
    return name.removeprefix("bookbus.")


@pytest.mark.parametrize("first", ["short", "long"])
def test_module_imported_under_both_names_exists_once(first: str) -> None:
    long_names = [name for name in MODULES if short(name).partition(".")[0] in PACKAGES]
    short_names = [short(name) for name in long_names]
    names = [*short_names, *long_names] if first == "short" else [*long_names, *short_names]

    program = f"{importing(*names)}\nprint(len([name for name in {short_names} if name in __import__('sys').modules]))"
    printed = run(program + LOADED_TWICE)

    assert printed.splitlines() == [str(len(short_names))]


@pytest.mark.parametrize("package", ["feeders", "consumers"])
def test_command_line_loads_no_module_twice(package: str) -> None:
    program = f"""
import runpy, sys
sys.argv = ["{package}", "run", "--help"]
try:
    runpy.run_module("{package}", run_name="__main__", alter_sys=True)
except SystemExit as ended:
    print(ended.code)
"""

    assert run(program + LOADED_TWICE).splitlines()[-1] == "0"


def test_module_loaded_twice_is_found() -> None:
    planted = """
import importlib.util, sys
import bookbus.schemas.wire
spec = importlib.util.spec_from_file_location("second", bookbus.schemas.wire.__file__)
sys.modules["second"] = importlib.util.module_from_spec(spec)
"""

    assert run(planted + LOADED_TWICE).splitlines() == ["wire.py bookbus.schemas.wire second"]


@pytest.mark.parametrize(("module", "name"), PUBLIC.items())
def test_public_path_of_a_checkout_gives_the_class_of_bookbus(module: str, name: str) -> None:
    program = f"import {module}, bookbus.{module}\nprint({module}.{name} is bookbus.{module}.{name})"

    assert run(program) == "True\n"


def test_class_is_the_same_from_every_place_that_offers_it() -> None:
    printed = run(
        "import bookbus, consumers\n"
        "from consumers.redis_provider import RedisMarketDataProvider as found\n"
        "print(found is bookbus.RedisMarketDataProvider is consumers.RedisMarketDataProvider)\n"
    )

    assert printed == "True\n"


def test_module_that_does_not_exist_is_not_found_under_its_short_name() -> None:
    printed = run("try:\n    import consumers.nothing\nexcept ModuleNotFoundError as error:\n    print(error)")

    assert "consumers.nothing" in printed
