"""`show`: one stored book, also in a format that cannot be decoded."""

from json import dumps
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from bookbus.command_line import PREFIX_DEFAULT, REDIS_DEFAULT, Exchange, Prefix, RedisUrl, fail, start_logging
from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.bus.servers import CONTROL_ERRORS, control_client
from bookbus.consumers.reading import SymbolStatus
from bookbus.consumers.redis_provider import Mode, RedisMarketDataProvider
from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import parse_redis_url
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from bookbus.schemas.wire import WireError, inspect


def show(
    symbol: Annotated[str, typer.Argument(help="A base (BTC), a pair (BTC-USDT) or the exchange's own name.")],
    exchange: Exchange = "binance",
    levels: Annotated[int, typer.Option(envvar="BOOKBUS_LEVELS", min=1, help="Levels per side to print.")] = 10,
    json: Annotated[bool, typer.Option("--json", envvar="BOOKBUS_JSON", help="One JSON object, all levels.")] = False,
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
) -> None:
    """One book as it is stored in Redis: levels, age, state, feeder. Exit code 1 unless it is live.

    \b
      python -m consumers show BTC
      python -m consumers show --exchange upbit KRW-BTC --levels 5
      python -m consumers show ETH-USDT --json
    """
    start_logging("error")
    try:
        # One request is enough for a single server; in a cluster the node of the slot has to be found first.
        mode: Mode = "push" if parse_redis_url(redis).kind == "cluster" else "pull"
        with RedisMarketDataProvider(redis, exchange, [symbol], mode, prefix) as provider:
            reading, status = provider.read(symbol), provider.status(symbol)
            near = provider.near_symbols(status.symbol)
    except (BusConnectionError, SymbolError, ValueError) as error:
        fail(str(error))
    if reading.snapshot is None:
        _print_stored(redis, RedisNames(prefix).book(exchange, status.symbol))
        hint = f"; did you mean {', '.join(near)}?" if near and status.symbol not in near else ""
        fail(f"{reading.reason}{hint} (exchange {exchange}, prefix {prefix})")
    if json:
        typer.echo(msgspec.json.encode(as_fields(reading.snapshot, reading.status, status)))
    else:
        _print(reading.snapshot, status, levels)
    if reading.status is not BookStatus.LIVE:
        raise typer.Exit(1)


def as_fields(book: OrderBookSnapshot, state: BookStatus, status: SymbolStatus) -> dict[str, Any]:
    """Every field of the book, with its status, ages and missed updates."""
    known = {
        "status": state,
        "age": status.age,
        "update_age": status.update_age,
        "missed": status.missed,
        "trading": status.trading,
    }
    return msgspec.structs.asdict(book) | known


def milliseconds(seconds: float | None) -> str:
    """A duration as text; `-` if it is unknown."""
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms" if seconds < 10 else f"{seconds:.0f} s"


def _print_stored(url: str, key: str) -> None:
    """Print the fields of a hash that cannot be decoded as a book: another version or program wrote it."""
    try:
        with control_client(parse_redis_url(url), 1.0) as client:
            stored = client.hgetall(key)
    except CONTROL_ERRORS:
        return  # The caller reports the missing book.
    shown: dict[str, Any] = {}
    for name, value in stored.items():
        raw = value if isinstance(value, bytes) else value.encode()
        try:
            shown[_text(name)] = inspect(raw)
        except WireError:
            shown[_text(name)] = _text(raw)
    if shown:
        typer.echo(dumps(shown, indent=2, default=repr, skipkeys=True))


def _text(value: bytes | str) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else value


def _print(book: OrderBookSnapshot, status: SymbolStatus, levels: int) -> None:
    mark = f": {status.reason}" if status.reason else ""
    if status.trading not in ("unknown", "trading"):
        mark += f"; the exchange says of the market: {status.trading}"
    typer.echo(f"{book.exchange} {book.symbol} ({book.native}) is {status.state}{mark}")
    table = Table("quantity", "bid", "ask", "quantity")
    for column in table.columns:
        column.justify = "right"
    for number in range(min(levels, max(len(book.bids), len(book.asks)))):
        bid, ask = (side[number] if number < len(side) else None for side in (book.bids, book.asks))
        bid_cells = ("", "") if bid is None else (f"{bid[1]:.10g}", f"{bid[0]:.10g}")
        ask_cells = ("", "") if ask is None else (f"{ask[0]:.10g}", f"{ask[1]:.10g}")
        table.add_row(*bid_cells, *ask_cells)
    Console().print(table)
    spread = book.spread_bps()
    typer.echo(
        f"spread {'-' if spread is None else f'{spread:.2f} bps'}, seq {book.seq}, update {book.update_id}, "
        f"confirmed {milliseconds(status.age)} ago, changed {milliseconds(status.update_age)} ago, feeder {book.feeder}"
    )
