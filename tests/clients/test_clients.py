"""Packages that people use against the real exchanges, run against the simulated ones: their books equal the truth.

Each package runs in a process of its own with the Python of `.venv-clients`; `make test-clients` prepares that.
"""

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from .conftest import DEPTH, ENVIRONMENT, PYTHON, ROWS, Client, Exchange, Row

PROGRAMS = Path(__file__).parent / "programs"

BOOKS = 20
"""Books of each symbol that a client must show."""
LIMIT = 90.0
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


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: f"{client.package}-{client.exchange}")
def test_a_real_client_holds_the_true_books(
    client: Client, exchanges: dict[str, Exchange], request: pytest.FixtureRequest
) -> None:
    exchange, rows = exchanges[client.exchange], request.config.stash[ROWS]

    lines, errors = run(client, exchange)

    books = [line for line in lines if "symbol" in line]
    checks = [line for line in lines if "check" in line]
    truths = {symbol: truth(exchange, symbol, books) for symbol in exchange.symbols}
    wrong = [problem for book in books if (problem := difference(book, truths[book["symbol"]], exchange.name))]
    failed = [f"{check['check']}: {check['error']}" for check in checks if check["error"]]
    version = next((line["version"] for line in lines if "version" in line), "-")
    equal, passed = f"{len(books) - len(wrong)}", f"{len(checks) - len(failed)} of {len(checks)}"
    rows.append(Row(client.package, version, client.exchange, f"{len(books)}", equal, passed))
    assert not errors, errors
    assert not wrong, "\n".join(wrong[:5])
    assert not failed, "\n".join(failed)
    counts = {symbol: sum(book["symbol"] == symbol for book in books) for symbol in exchange.symbols}
    assert all(count >= BOOKS for count in counts.values()), f"too few books: {counts}"


def run(client: Client, exchange: Exchange) -> tuple[list[dict[str, Any]], str]:
    """The lines that the program reported, and what it died of, if it did."""
    program = PROGRAMS / client.program
    command = [str(PYTHON), str(program), exchange.name, exchange.ws_url, exchange.rest_url, str(BOOKS)]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment["PYTHONPATH"] = str(ENVIRONMENT / client.path) if client.path else ""
    try:
        done = subprocess.run(
            [*command, *exchange.symbols],
            env=environment,
            cwd=ENVIRONMENT,
            capture_output=True,
            timeout=LIMIT,
        )
    except subprocess.TimeoutExpired as late:
        return read(late.stdout or b""), f"not done after {LIMIT:.0f} s: {(late.stderr or b'')[-2000:].decode()}"
    return read(done.stdout), done.stderr[-2000:].decode() if done.returncode else ""


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
