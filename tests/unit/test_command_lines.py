"""What both command lines have in common: the version, and when they read the environment."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import bookbus
from bookbus.consumers.__main__ import make_app as make_consumers_app
from bookbus.feeders.__main__ import make_app as make_feeders_app

consumers_app = make_consumers_app()
feeders_app = make_feeders_app()

ROOT = Path(__file__).parents[2]
MODULES = [path for package in ("schemas", "feeders", "consumers") for path in sorted((ROOT / package).rglob("*.py"))]

IMPORT_THEN_RUN = """
import os, sys
os.environ.update(BOOKBUS_PREFIX="at:import", BOOKBUS_LISTINGS_INTERVAL="at import")
from bookbus.{package}.__main__ import make_app
os.environ.update(BOOKBUS_PREFIX="at:run", BOOKBUS_LISTINGS_INTERVAL="at run")
make_app()(sys.argv[1:])
"""


def environment_reads(source: str) -> Iterator[tuple[int, bool]]:
    """Line of each access to the environment, and whether it is in a function."""
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    in_functions = {id(node) for function in functions for line in function.body for node in ast.walk(line)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv"):
            yield node.lineno, id(node) in in_functions


@pytest.mark.parametrize("app", [feeders_app, consumers_app], ids=["feeders", "consumers"])
def test_version_is_the_packages(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--version"])

    assert (result.exit_code, result.output) == (0, f"{bookbus.__version__}\n")


@pytest.mark.parametrize(
    ("package", "arguments", "complaint"),
    [
        ("feeders", ["health"], "prefix 'at:run'"),
        ("feeders", ["run"], "BOOKBUS_LISTINGS_INTERVAL at run: use a number of seconds above zero"),
        ("consumers", ["show", "BTC"], "prefix 'at:run'"),
    ],
)
def test_environment_is_read_when_a_command_runs(package: str, arguments: list[str], complaint: str) -> None:
    program = IMPORT_THEN_RUN.format(package=package)

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT, check=False
    )

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {complaint}")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_reads_the_environment_when_it_is_imported(path: Path) -> None:
    assert [line for line, in_function in environment_reads(path.read_text()) if not in_function] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import os\nLIMIT = os.environ.get('LIMIT')", [(2, False)]),
        ("def f(limit=os.getenv('LIMIT')):\n    pass", [(1, False)]),
        ("async def f():\n    return os.environ", [(2, True)]),
    ],
)
def test_reads_of_the_environment_are_found(source: str, found: list[tuple[int, bool]]) -> None:
    assert list(environment_reads(source)) == found
