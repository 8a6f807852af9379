"""Imports point one way, and pure modules stay pure."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from bookbus.schemas.instruments import EXCHANGES

ROOT = Path(__file__).parents[2]
OURS = ("schemas", "feeders", "consumers")

IMPURE = {
    *("asyncio", "concurrent", "threading", "multiprocessing", "subprocess", "signal"),
    *("socket", "ssl", "select", "selectors", "http", "urllib.request"),
    *("time", "logging"),
    *("redis", "hiredis", "websockets", "uvloop"),
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(["bookbus", *(parts[:-1] if parts[-1] == "__init__" else parts)])


MODULES = {module_name(path): path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))}


def for_types_alone(tree: ast.AST) -> set[ast.AST]:
    """Everything under `if TYPE_CHECKING:`, which no run imports."""
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {node for guard in guards for statement in guard.body for node in ast.walk(statement)}


def imported(source: str, importer: str, *, at_run_time: bool = False) -> set[str]:
    """Every dotted name that `source` imports, wherever in it, and the names it takes from it."""
    found: set[str] = set()
    tree = ast.parse(source)
    left_out = for_types_alone(tree) if at_run_time else set()
    for node in ast.walk(tree):
        if node in left_out:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = importer.split(".")[: -node.level] if node.level else []
            origin = ".".join([*package, *filter(None, [node.module])])
            found.add(origin)
            found.update(f"{origin}.{alias.name}" for alias in node.names)
    return found


def touches(names: set[str], forbidden: set[str]) -> list[str]:
    """Those of `names` that are one of `forbidden` or inside it."""
    return sorted(name for name in names if any(name == one or name.startswith(f"{one}.") for one in forbidden))


IMPORTS = {name: imported(path.read_text(), name) for name, path in MODULES.items()}

IMPORTS_AT_RUN_TIME = {name: imported(path.read_text(), name, at_run_time=True) for name, path in MODULES.items()}


def is_pure(name: str) -> bool:
    last = name.rpartition(".")[2]
    return name.startswith(("bookbus.schemas", "bookbus.feeders.books")) or last.endswith("_protocol")


def reached_from(name: str) -> Iterator[str]:
    """The module and every module of ours that it imports when it runs, directly or not."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        module = waiting.pop()
        if module in MODULES and module not in seen:
            seen.add(module)
            waiting.extend(IMPORTS_AT_RUN_TIME[module])
            yield module


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Every string in `source` that is not a docstring or a bare remark."""
    tree = ast.parse(source)
    remarks = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in remarks:
            yield node.lineno, node.value


def may_name_an_exchange(name: str) -> bool:
    package, _, last = name.rpartition(".")
    of_one_venue = package == "bookbus.feeders.exchanges" and last.partition("_")[0] in EXCHANGES
    # A command line has defaults and examples, the demo shows one exchange, and the smoke run all that are simulated.
    return of_one_venue or name.startswith(
        (
            "bookbus.feeders.simulator",
            "bookbus.feeders.commands",
            "bookbus.feeders.commands.demo",
            "bookbus.feeders.commands.smoke",
            "bookbus.feeders.__main__",
        )
    )


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("bookbus.schemas")])
def test_schemas_import_nothing_of_ours(name: str) -> None:
    assert touches(IMPORTS[name], {"bookbus.feeders", "bookbus.consumers", "tests"}) == []


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("bookbus.feeders")])
def test_feeders_import_no_consumer(name: str) -> None:
    assert touches(IMPORTS[name], {"bookbus.consumers", "tests"}) == []


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("bookbus.consumers")])
def test_consumers_import_feeders_only_in_the_direct_provider(name: str) -> None:
    allowed = name in {"bookbus.consumers.direct_provider", "bookbus.consumers.captures"}

    assert touches(IMPORTS[name], {"tests"} if allowed else {"tests", "bookbus.feeders"}) == []
    assert (
        touches(
            IMPORTS[name],
            {"bookbus.feeders.redis_server"},
        )
        == []
    )


@pytest.mark.parametrize("name", [name for name in MODULES if is_pure(name)])
def test_pure_module_reaches_no_clock_thread_log_or_network(name: str) -> None:
    impure = {module: touches(IMPORTS_AT_RUN_TIME[module], IMPURE) for module in reached_from(name)}

    assert {module: found for module, found in impure.items() if found} == {}


def test_websockets_is_imported_by_the_client_and_the_simulator_alone() -> None:
    importers = {name for name, names in IMPORTS.items() if touches(names, {"websockets"})}

    assert {name for name in importers if not name.startswith("bookbus.feeders.simulator")} <= {
        "bookbus.feeders.websocket_client"
    }


@pytest.mark.parametrize(
    "name", [name for name in MODULES if name.startswith("bookbus.feeders") and not may_name_an_exchange(name)]
)
def test_shared_code_names_no_exchange(name: str) -> None:
    ids = re.compile(rf"\b({'|'.join(EXCHANGES)})\b", re.IGNORECASE)

    assert [(line, text) for line, text in texts(MODULES[name].read_text()) if ids.search(text)] == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import bookbus.feeders.sync", {"bookbus.feeders.sync"}),
        (
            "def later():\n    from bookbus.feeders import sync",
            {"bookbus.feeders", "bookbus.feeders.sync"},
        ),
        ("from . import sync", {"bookbus.feeders", "bookbus.feeders.sync"}),
        ("from ..schemas import wire", {"bookbus.schemas", "bookbus.schemas.wire"}),
        ("if False:\n    import asyncio as quiet", {"asyncio"}),
    ],
)
def test_imports_are_found_wherever_they_stand(source: str, names: set[str]) -> None:
    assert imported(source, "bookbus.feeders.events") == names


def test_imports_for_types_alone_are_told_apart() -> None:
    source = "if TYPE_CHECKING:\n    import asyncio\nimport time"

    assert imported(source, "bookbus.feeders.events") == {"asyncio", "time"}
    assert imported(source, "bookbus.feeders.events", at_run_time=True) == {"time"}


def test_a_name_is_forbidden_with_all_that_is_inside_it() -> None:
    assert touches({"time", "timeit", "asyncio.queues", "urllib.parse"}, IMPURE) == ["asyncio.queues", "time"]
