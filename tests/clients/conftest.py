"""Simulated exchanges as processes of their own, and the table of clients at the end."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
DEPTH = 300
"""Levels a side that the simulated Binance has and remembers."""

_STOP_LIMIT = 10.0
_OPTIONS = {
    "binance": ("--symbols", "BTCUSDT,ETHUSDT,BNBUSDT", "--levels", str(DEPTH), "--truth-depth", str(DEPTH)),
    "bybit": ("--symbols", "BTCUSDT,ETHUSDT,BNBUSDT"),
    "upbit": ("--symbols", "KRW-BTC,KRW-ETH,BTC-ETH"),
}


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


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = [Row("client", "version", "exchange", "books compared", "equal", "checks passed"), *config.stash[ROWS]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    terminalreporter.section("clients of the simulated exchanges")
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        terminalreporter.write_line("  ".join(cells).rstrip())


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
