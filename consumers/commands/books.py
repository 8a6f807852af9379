"""`books`: every book of the bus, and every feeder."""

from collections.abc import Sequence
from contextlib import ExitStack
from decimal import Decimal
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bookbus.command_line import (
    PREFIX_DEFAULT,
    REDIS_DEFAULT,
    Prefix,
    RedisUrl,
    ended_by_signal,
    exchange_id,
    fail,
    split_names,
    start_logging,
)
from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.bus.feeders import RunningFeeder, read_feeders
from bookbus.consumers.commands.show import milliseconds
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.schemas.instruments import EXCHANGES, SymbolError
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import BookStatus, Level, OrderBookSnapshot

NOT_LIVE = 2
"""Exit code if a book is not live."""

_STYLES = {BookStatus.LIVE: "green", BookStatus.CLOSED: "yellow"}
_NOT_LIVE_STYLE = "bold red"
_WIDTH = 400
"""Wider than any row, so that rich never shortens a cell."""

_LEVELS_LOOKED_AT = 5
_MOST_DECIMALS = 12


class ListedBook(msgspec.Struct, frozen=True, kw_only=True):
    """One book. `age` is in seconds since its last confirmation, `decimals` how many digits after the point its prices
    have, and `reason` is empty if it is live."""

    exchange: str
    symbol: str
    state: BookStatus
    reason: str
    age: float | None
    bid: float | None
    ask: float | None
    spread_bps: float | None
    decimals: int
    feeder: str


def books(
    exchange: Annotated[
        str,
        typer.Option(
            envvar="BOOKBUS_EXCHANGES", help="Exchange ids, comma-separated; by default all.", callback=exchange_id
        ),
    ] = "",
    json: Annotated[bool, typer.Option("--json", envvar="BOOKBUS_JSON", help="One JSON object per book.")] = False,
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
) -> None:
    """Every book of the bus, of all feeders on all hosts: state, age, best prices, feeder; then the feeders.

    Exit code 0 if every book is live, 2 if one is not, 1 without books or without the server.

    \b
      python -m consumers books
      python -m consumers books --exchange binance,upbit
      python -m consumers books --json | jq 'select(.state != "live") | .symbol'
    """
    start_logging("error")
    named = split_names(exchange)
    if unknown := [name for name in named if name not in EXCHANGES]:
        fail(f"unknown exchange {', '.join(unknown)}: use {', '.join(EXCHANGES)}")
    try:
        with ended_by_signal():
            rows = read_rows(redis, prefix, named or tuple(EXCHANGES))
            feeders, unknown_feeders = _feeders(redis, RedisNames(prefix))
    except (BusConnectionError, SymbolError, ValueError) as error:
        fail(str(error))
    if json:
        for row in rows:
            typer.echo(msgspec.json.encode(row))
    else:
        _print(rows, feeders, unknown_feeders)
    if not rows:
        fail(f"no books under the prefix {prefix}: start a feeder, bookbus feed --symbols BTC,ETH")
    if any(row.state is not BookStatus.LIVE for row in rows):
        raise typer.Exit(NOT_LIVE)


def read_rows(url: str, prefix: str, exchanges: Sequence[str]) -> list[ListedBook]:
    """Every book of these exchanges, by exchange and symbol. Raises BusConnectionError."""
    rows = []
    with ExitStack() as stack:
        for exchange in exchanges:
            provider = stack.enter_context(RedisMarketDataProvider(url, exchange, prefix=prefix))
            symbols = list(provider.symbols)
            for symbol in symbols:
                reading, status = provider.read(symbol), provider.status(symbol)
                rows.append(row_of(exchange, symbol, reading.snapshot, reading.status, reading.reason, status.age))
    return rows


def row_of(
    exchange: str, symbol: str, book: OrderBookSnapshot | None, state: BookStatus, reason: str, age: float | None
) -> ListedBook:
    return ListedBook(
        exchange=exchange,
        symbol=symbol,
        state=state,
        reason=reason,
        age=age,
        bid=None if book is None else book.best_bid(),
        ask=None if book is None else book.best_ask(),
        spread_bps=None if book is None else book.spread_bps(),
        decimals=0 if book is None else decimals(book.bids[:_LEVELS_LOOKED_AT] + book.asks[:_LEVELS_LOOKED_AT]),
        feeder="" if book is None else book.feeder,
    )


def decimals(levels: Sequence[Level]) -> int:
    """How many digits after the point the prices of these levels have."""
    exponents = (Decimal(repr(price)).normalize().as_tuple().exponent for price, _ in levels)
    return min(max((-one for one in exponents if isinstance(one, int) and one < 0), default=0), _MOST_DECIMALS)


def table_of(rows: Sequence[ListedBook]) -> Table:
    """One row per book; prices of one book have the same number of digits, and points are below each other."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    for heading in ("exchange", "symbol", "state"):
        table.add_column(heading, no_wrap=True)
    for heading in ("age", "bid", "ask", "spread"):
        table.add_column(heading, justify="left" if heading in ("bid", "ask") else "right", no_wrap=True)
    table.add_column("feeder", no_wrap=True)
    bids = _aligned([_price(row.bid, row.decimals) for row in rows])
    asks = _aligned([_price(row.ask, row.decimals) for row in rows])
    for row, bid, ask in zip(rows, bids, asks, strict=True):
        table.add_row(
            Text(row.exchange),
            Text(row.symbol),
            Text(str(row.state), style=_STYLES.get(row.state, _NOT_LIVE_STYLE)),
            milliseconds(row.age),
            bid,
            ask,
            "-" if row.spread_bps is None else f"{row.spread_bps:.2f} bps",
            Text(row.feeder or "-"),
        )
    return table


def _price(price: float | None, digits: int) -> str:
    return "-" if price is None else f"{price:,.{digits}f}"


def _aligned(prices: Sequence[str]) -> list[str]:
    """These prices with spaces before them, so that their points are below each other."""
    before = [len(price.partition(".")[0]) for price in prices]
    return [" " * (max(before) - length) + price for price, length in zip(prices, before, strict=True)]


def _feeders(url: str, names: RedisNames) -> tuple[list[RunningFeeder], str]:
    """The feeders, or none and why they are unknown."""
    try:
        return read_feeders(url, names), ""
    except BusConnectionError as error:
        return [], f"the feeders are unknown: {error}"


def _print(rows: Sequence[ListedBook], feeders: Sequence[RunningFeeder], unknown: str) -> None:
    console = Console(width=_WIDTH)
    if rows:
        # On a narrow terminal, a wrapped row is better than one with its figures cut off.
        console.print(table_of(rows), crop=False)
    for feeder in feeders:
        typer.echo(f"feeder {feeder.feeder} on {feeder.host}: {feeder.live} of {feeder.books} books live")
    if unknown:
        typer.echo(unknown)
    if rows:
        live = sum(row.state is BookStatus.LIVE for row in rows)
        typer.echo(f"{live} of {len(rows)} books live")
