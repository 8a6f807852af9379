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


def _module(name: str, *stages: tuple[str, ...], only: str = "") -> Subject:
    """`only` is the beginning of the mutants' names, to leave out the rest of a source."""
    return Subject(
        _ROOT / "feeders" / f"{name.replace('.', '/')}.py",
        lambda text: [mutant for mutant in python_mutants.mutants(text) if mutant.name.startswith(only)],
        partial(install_module, f"bookbus.feeders.{name}"),
        tuple(tuple(f"{_UNIT}/{test}.py" for test in stage) for stage in stages),
    )


SUBJECTS = {
    "synchronizer": _module(
        "books.synchronizer",
        ("feeders/books/test_synchronizer", "feeders/books/test_synchronizer_replace", "feeders/books/test_history"),
        ("feeders/books/test_synchronizer_counter", "feeders/exchanges/test_bybit_protocol"),
        ("feeders/books/test_synchronizer_model",),
    ),
    "arbitration": _module(
        "books.arbitration",
        (
            "feeders/books/test_arbitration",
            "feeders/books/test_synchronizer",
            "feeders/books/test_synchronizer_replace",
        ),
        ("feeders/books/test_synchronizer_model",),
        only="LineIds.",
    ),
    "order_book": _module(
        "books.order_book",
        ("feeders/books/test_order_book", "feeders/books/test_synchronizer"),
        ("feeders/books/test_history",),
        ("feeders/books/test_synchronizer_model",),
    ),
    "history": _module(
        "books.history", ("feeders/books/test_history", "feeders/test_audit"), ("feeders/test_audit_auditor",)
    ),
    "audit": _module(
        "audit", ("feeders/test_audit",), ("feeders/test_audit_auditor", "feeders/exchanges/test_binance_ws_adapter")
    ),
    "publish_script": Subject(
        _ROOT / "feeders" / "bus" / "publish.lua",
        lua_mutants.mutants,
        install_script,
        (
            (f"{_UNIT}/feeders/bus/test_publish_script.py",),
            (f"{_UNIT}/feeders/bus/test_publish_script_property.py",),
            ("tests/integration/test_publish_script_redis.py",),
        ),
    ),
}
