"""`tail`: one line for each change of a book."""

import asyncio
import sys
from typing import Annotated

import msgspec
import typer

from bookbus.command_line import (
    PREFIX_DEFAULT,
    REDIS_DEFAULT,
    Exchange,
    LogLevel,
    Prefix,
    RedisUrl,
    ended_by_signal,
    fail,
    start_logging,
)
from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.commands.show import as_fields, milliseconds
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.reading import Update
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.schemas.instruments import SymbolError


def tail(
    symbols: Annotated[list[str], typer.Argument(help="BTC, BTC-USDT or the exchange's own names; * is every book.")],
    exchange: Exchange = "binance",
    json: Annotated[
        bool, typer.Option("--json", envvar="BOOKBUS_JSON", help="One JSON object per line, all levels.")
    ] = False,
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    log_level: LogLevel = "warning",
) -> None:
    """One line for each change of a book or of its status, until Ctrl-C.

    Where the output is slower than the books, earlier updates of a symbol are merged into its newest one.

    \b
      python -m consumers tail BTC ETH
      python -m consumers tail --exchange upbit BTC XRP
      python -m consumers tail BTC --json | jq .bids[0]
    """
    start_logging(log_level)
    wanted = "*" if symbols == ["*"] else symbols
    try:
        with ended_by_signal(), RedisMarketDataProvider(redis, exchange, wanted, prefix=prefix) as provider:
            asyncio.run(_tail(provider, json))
    except (BusConnectionError, SymbolError, ValueError) as error:
        fail(str(error))
    except BrokenPipeError:
        # The program that reads the output has ended.
        sys.stderr.close()


async def _tail(provider: MarketDataProvider, json: bool) -> None:
    async for update in provider.updates():
        sys.stdout.write((_json(provider, update) if json else _text(provider, update)) + "\n")
        sys.stdout.flush()


def _json(provider: MarketDataProvider, update: Update) -> str:
    book, conflated = update
    status = msgspec.structs.replace(provider.status(book.symbol), state=update.status, trading=update.trading)
    fields = as_fields(book, status.state, status) | {"reason": update.reason, "conflated": conflated}
    return msgspec.json.encode(fields).decode()


def _text(provider: MarketDataProvider, update: Update) -> str:
    book, conflated = update
    status, spread = provider.status(book.symbol), book.spread_bps()
    sides = (f"{side[0][0]:.10g} x {side[0][1]:.6g}" if side else "-" for side in (book.bids, book.asks))
    return (
        f"{book.symbol:<12} {update.status:<8} {' | '.join(sides)}  "
        f"{'-' if spread is None else f'{spread:.2f}'} bps  seq {book.seq}  age {milliseconds(status.age)}"
        + (f"  {conflated} merged" if conflated else "")
        + (f"  {status.missed} missed" if status.missed else "")
        + (f"  {update.trading}" if update.trading not in ("unknown", "trading") else "")
        + (f"  {update.reason}" if update.reason else "")
    )
