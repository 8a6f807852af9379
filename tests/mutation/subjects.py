"""What is mutated, and the tests that must notice, the quick ones first."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.mutation import lua_mutants, python_mutants
from tests.mutation.mutant import Mutant
from tests.mutation.trial import Install, install_module, install_script

_ROOT = Path(__file__).parents[2]
_UNIT = "tests/unit"


class Subject(NamedTuple):
    """One source file."""

    source: Path
    mutants: Callable[[str], list[Mutant]]
    install: Install
    stages: tuple[tuple[str, ...], ...]


def _module(name: str, *stages: tuple[str, ...]) -> Subject:
    return Subject(
        _ROOT / "feeders" / f"{name.replace('.', '/')}.py",
        python_mutants.mutants,
        partial(install_module, f"bookbus.feeders.{name}"),
        tuple(tuple(f"{_UNIT}/test_{test}.py" for test in stage) for stage in stages),
    )


SUBJECTS = {
    "synchronizer": _module(
        "books.synchronizer",
        ("range_sync", "replace_sync", "book_record"),
        ("sync_model",),
    ),
    "order_book": _module("books.order_book", ("order_book", "range_sync"), ("book_record",), ("sync_model",)),
    "history": _module("books.history", ("book_record", "audit"), ("auditor",)),
    "audit": _module("audit", ("audit",), ("auditor", "binance_audit")),
    "publish_script": Subject(
        _ROOT / "feeders" / "bus" / "publish.lua",
        lua_mutants.mutants,
        install_script,
        (
            (f"{_UNIT}/test_publish_script.py",),
            (f"{_UNIT}/test_publish_script_property.py",),
            ("tests/integration/test_publish_script_redis.py",),
        ),
    ),
}
