"""Packages that people use against the real exchanges, run against the simulated ones: their books equal the truth.

Each package runs in a process of its own with the Python of `.venv-clients`; `make test-clients` prepares that.
"""

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .conftest import DEPTH, ENVIRONMENT, PYTHON, ROWS, Client, Exchange, Row

PROGRAMS = Path(__file__).parent / "programs"

BOOKS = 20
"""Books of each symbol that a client must show."""
LIMIT = 90.0
AT_ONCE = 3
"""Programs that run together. Their requests count for one address: unicorn's waits above 2,200 of weight a minute, so
all of them take snapshots of 1,000 levels, which cost 50."""
DEPTHS = {"binance": DEPTH, "bybit": 50, "upbit": 30}
"""Levels a side that are compared: all that the exchange shows, or that the simulator remembers."""


CLIENTS = (
    Client("ccxt", "ccxt_client.py", "binance"),
    Client("ccxt", "ccxt_client.py", "bybit"),
    Client("ccxt", "ccxt_client.py", "upbit"),
    Client("python-binance", "python_binance_client.py", "binance"),
    # Its modules have the names of python-binance's.
    Client("binance-connector", "binance_connector_client.py", "binance", path="binance-connector"),
    Client("binance-sdk-spot", "binance_sdk_client.py", "binance"),
    Client("unicorn-binance-local-depth-cache", "unicorn_client.py", "binance"),
    Client("pybit", "pybit_client.py", "bybit"),
    Client("pyupbit", "pyupbit_client.py", "upbit"),
    Client("cryptofeed", "cryptofeed_client.py", "binance", (3, 13)),
    Client("cryptofeed", "cryptofeed_client.py", "bybit", (3, 13)),
    Client("cryptofeed", "cryptofeed_client.py", "upbit", (3, 13)),
)


class Run(NamedTuple):
    """What a client reported."""

    version: str
    books: list[dict[str, Any]]
    checks: list[dict[str, Any]]
    error: str
    """Why the program ended early; empty if it did not."""
    truths: dict[str, dict[int, dict[str, Any]]]
    """True books by symbol and update id."""


@pytest.fixture(scope="session")
def runs(exchanges: dict[str, Exchange], request: pytest.FixtureRequest) -> Iterator[dict[Client, Future[Run]]]:
    """Every client that is asked for, a few at a time: they wait more than they work."""
    callspecs = (getattr(item, "callspec", None) for item in request.session.items)
    wanted = [callspec.params["client"] for callspec in callspecs if callspec and "client" in callspec.params]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {client: pool.submit(run, client, exchanges[client.exchange]) for client in wanted}


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: f"{client.package}-{client.exchange}")
def test_a_real_client_holds_the_true_books(
    client: Client, runs: dict[Client, Future[Run]], exchanges: dict[str, Exchange], request: pytest.FixtureRequest
) -> None:
    version, books, checks, error, truths = runs[client].result()

    wrong = [problem for book in books if (problem := difference(book, truths[book["symbol"]], client.exchange))]
    failed = [f"{check['check']}: {check['error']}" for check in checks if check["error"]]
    equal, passed = f"{len(books) - len(wrong)}", f"{len(checks) - len(failed)} of {len(checks)}"
    request.config.stash[ROWS].append(Row(client.package, version, client.exchange, f"{len(books)}", equal, passed))
    assert not error, error
    assert not wrong, "\n".join(wrong[:5])
    assert not failed, "\n".join(failed)
    counts = {symbol: sum(book["symbol"] == symbol for book in books) for symbol in exchanges[client.exchange].symbols}
    assert all(count >= BOOKS for count in counts.values()), f"too few books: {counts}"


def run(client: Client, exchange: Exchange) -> Run:
    """Run the client's program to its end, then ask for the truth while it is remembered."""
    program = PROGRAMS / client.program
    command = [str(PYTHON), str(program), exchange.name, exchange.ws_url, exchange.rest_url, str(BOOKS)]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment["PYTHONPATH"] = str(ENVIRONMENT / client.path) if client.path else ""
    process = subprocess.Popen(
        [*command, *exchange.symbols],
        env=environment,
        cwd=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # some packages start processes of their own
    )
    try:
        output, errors = process.communicate(timeout=LIMIT)
        error = errors[-2000:].decode() or f"exit code {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        error = f"not done after {LIMIT:.0f} s: {errors[-2000:].decode()}"
    lines = read(output)
    books = [line for line in lines if "symbol" in line]
    truths = {symbol: truth(exchange, symbol, books) for symbol in exchange.symbols}
    version = next((line["version"] for line in lines if "version" in line), "-")
    return Run(version, books, [line for line in lines if "check" in line], error, truths)


def read(output: bytes) -> list[dict[str, Any]]:
    """The lines of the report; what a package prints itself is left out, a line cut in half too."""
    return [json.loads(line) for line in output.split(b"\n") if line.startswith(b"{") and line.endswith(b"}")]


def truth(exchange: Exchange, symbol: str, books: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """True books of a symbol by update id, over the ids that the client reported."""
    ids = [book["update_id"] for book in books if book["symbol"] == symbol]
    if not ids:
        return {}
    query = f"symbol={symbol}&since={min(ids)}&until={max(ids)}&depth={DEPTHS[exchange.name]}"
    with urllib.request.urlopen(f"{exchange.rest_url}/control/truth?{query}", timeout=10) as answer:  # noqa: S310
        return {book["update_id"]: book for book in json.load(answer)["books"]}


def difference(book: dict[str, Any], truths: dict[int, dict[str, Any]], exchange: str) -> str | None:
    """What is wrong with a client's book; None if it equals the truth at its id."""
    name = f"{book['symbol']} at {book['update_id']}"
    true = truths.get(book["update_id"])
    if true is None:
        return f"{name}: the exchange never had a book with this id"
    for side in ("bids", "asks"):
        expected = [[float(price), float(quantity)] for price, quantity in true[side]]
        found = book[side][: DEPTHS[exchange]]
        if found != expected:
            first = next((pair for pair in zip(found, expected, strict=False) if pair[0] != pair[1]), None)
            return f"{name}: {side} differ: {len(found)} levels, true are {len(expected)}; first (found, true): {first}"
    return None


@pytest.mark.parametrize(
    ("book", "problem"),
    [
        ({}, None),
        ({"bids": [[99.0, 1.0]]}, "bids differ"),
        ({"bids": [[99.0, 1.0], [98.0, 2.5]]}, "bids differ"),
        ({"asks": [[101.0, 1.0], [100.5, 2.0]]}, "asks differ"),
        ({"update_id": 8}, "never had a book"),
    ],
)
def test_a_book_that_differs_is_noticed(book: dict[str, Any], problem: str | None) -> None:
    true = {"bids": [["99.0", "1.0"], ["98.0", "2.0"]], "asks": [["100.5", "2.0"], ["101.0", "1.0"]]}
    own = {
        "symbol": "BTCUSDT",
        "update_id": 7,
        "bids": [[99.0, 1.0], [98.0, 2.0]],
        "asks": [[100.5, 2.0], [101.0, 1.0]],
    }

    found = difference(own | book, {7: true}, "binance")

    assert (found is None) if problem is None else (found is not None and problem in found)
