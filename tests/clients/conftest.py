"""Simulated exchanges as processes of their own, and the table of clients at the end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-clients"
PYTHON = ENVIRONMENT / "bin" / "python"
DEPTH = 300
"""Levels a side that the simulated Binance has and remembers."""

_STOP_LIMIT = 10.0
_OPTIONS = {
    "binance": ("--symbols", "BTCUSDT,ETHUSDT,BNBUSDT", "--levels", str(DEPTH), "--truth-depth", str(DEPTH)),
    "bybit": ("--symbols", "BTCUSDT,ETHUSDT,BNBUSDT"),
    "upbit": ("--symbols", "KRW-BTC,KRW-ETH,BTC-ETH"),
}


class Client(NamedTuple):
    """A package at one exchange."""

    package: str
    program: str
    exchange: str
    least_python: tuple[int, int] = (3, 11)
    """Below it the package has no wheel."""
    path: str = ""
    """Where the package is, if it cannot be in one environment with the others."""


class Exchange(NamedTuple):
    """A running simulated exchange."""

    name: str
    ws_url: str
    rest_url: str
    symbols: list[str]


class Row(NamedTuple):
    """What is printed of one client."""

    client: str
    version: str
    exchange: str
    books: str
    equal: str
    checks: str


ROWS = pytest.StashKey[list[Row]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[ROWS] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the packages that have no wheel for the Python of the clients' environment, and say so."""
    missing = {item: reason for item in items if (reason := _reason_without_wheel(item))}
    for item, reason in missing.items():
        client = item.callspec.params["client"]  # type: ignore[attr-defined]
        config.stash[ROWS].append(Row(client.package, "-", client.exchange, "-", "-", reason))
    config.hook.pytest_deselected(items=list(missing))
    items[:] = [item for item in items if item not in missing]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = [Row("client", "version", "exchange", "books compared", "equal", "checks passed"), *config.stash[ROWS]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    terminalreporter.section("clients of the simulated exchanges")
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())


def _reason_without_wheel(item: pytest.Item) -> str:
    client: Client | None = getattr(item, "callspec", None) and item.callspec.params.get("client")  # type: ignore[attr-defined]
    if client is None or client.least_python <= (3, 11):
        return ""
    version = _python_version()
    return f"no wheel for Python {version[0]}.{version[1]}" if version < client.least_python else ""


@cache
def _python_version() -> tuple[int, int]:
    program = "import sys; print(*sys.version_info[:2])"
    major, minor = subprocess.run([PYTHON, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    return int(major), int(minor)


@pytest.fixture(scope="session")
def exchanges() -> Iterator[dict[str, Exchange]]:
    """Every simulated exchange, by its id."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(_simulate(name, *options)) for name, options in _OPTIONS.items()}


@contextmanager
def _simulate(name: str, *options: str) -> Iterator[Exchange]:
    command = [sys.executable, "-m", "feeders", "simulate", "--exchange", name, *options]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BOOKBUS_")}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline() or "{}")
            yield Exchange(name, ready["ws_url"], ready["rest_url"], ready["symbols"])
        finally:
            process.terminate()
            process.wait(_STOP_LIMIT)
