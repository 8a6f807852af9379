"""`arbitrage`: opportunities between each pair of exchanges, in one quote currency."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from bookbus.command_line import (
    PREFIX_DEFAULT,
    REDIS_DEFAULT,
    LogLevel,
    Prefix,
    RedisUrl,
    ended_by_signal,
    exchange_id,
    fail,
    split_names,
    start_logging,
)
from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi.arbitrage import ASSUMPTION, Opportunity
from bookbus.consumers.multi.venue_book import TAKER_FEES_BPS
from bookbus.consumers.multi_provider import DEFAULT_FX, DEFAULT_QUOTE, MAX_SKEW, MultiExchangeProvider, assemble
from bookbus.consumers.reading import MAX_AGE
from bookbus.consumers.redis_provider import RedisMarketDataProvider

_USUAL_FEES = ",".join(f"{exchange}={fee:g}" for exchange, fee in TAKER_FEES_BPS.items())
_ShowAll = Callable[[list[Opportunity]], None]


def arbitrage(
    symbols: Annotated[
        str, typer.Option(envvar="BOOKBUS_SYMBOLS", help="Base assets, comma-separated, like BTC,ETH.")
    ] = "BTC,ETH",
    exchanges: Annotated[
        str, typer.Option(envvar="BOOKBUS_EXCHANGES", help="Exchange ids.", callback=exchange_id)
    ] = "binance,upbit",
    quote: Annotated[str, typer.Option(envvar="BOOKBUS_QUOTE", help="Common quote currency.")] = DEFAULT_QUOTE,
    fx: Annotated[
        str, typer.Option(envvar="BOOKBUS_FX", help="Book of the exchange rate, as exchange:symbol.")
    ] = DEFAULT_FX,
    fees: Annotated[
        str, typer.Option(envvar="BOOKBUS_FEES", help=f"Taker fees in bps; by default {_USUAL_FEES}.")
    ] = "",
    max_skew: Annotated[
        float,
        typer.Option(
            envvar="BOOKBUS_MAX_SKEW", help="Most seconds between the confirmations of two books that are compared."
        ),
    ] = MAX_SKEW,
    max_age: Annotated[
        float, typer.Option(envvar="BOOKBUS_MAX_AGE", help="Seconds without confirmation until a book is stale.")
    ] = MAX_AGE,
    fx_max_age: Annotated[
        float, typer.Option(envvar="BOOKBUS_FX_MAX_AGE", help="The same for the exchange rate.")
    ] = MAX_AGE,
    interval: Annotated[
        float, typer.Option(envvar="BOOKBUS_INTERVAL", min=0.05, help="Seconds between two readings.")
    ] = 0.5,
    once: Annotated[bool, typer.Option("--once", envvar="BOOKBUS_ONCE", help="Read once and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", envvar="BOOKBUS_JSON", help="One JSON object per line.")] = False,
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    log_level: LogLevel = "error",
) -> None:
    """Opportunities to buy on one exchange and sell on another, until Ctrl-C.

    Prices are in one quote currency. Net figures assume inventory on both exchanges: taker fees
    are charged, no transfer, no currency exchange and no funding; a foreign quote is valued at the best price of the
    exchange-rate book, whatever its size.

    \b
      python -m consumers arbitrage
      python -m consumers arbitrage --symbols BTC,ETH,XRP --fees binance=7.5,upbit=5
      python -m consumers arbitrage --max-skew 0.5 --fx-max-age 2
      python -m consumers arbitrage --once --json
    """
    start_logging(log_level)

    def make(exchange: str, names: list[str]) -> MarketDataProvider:
        return RedisMarketDataProvider(redis, exchange, names, prefix=prefix)

    try:
        provider = assemble(
            make,
            split_names(exchanges) or fail("--exchanges names nothing"),
            split_names(symbols) or fail("--symbols names nothing"),
            fx=fx,
            fx_max_age=fx_max_age,
            fees=parse_fees(fees),
            quote=quote,
            max_skew=max_skew,
            max_age=max_age,
        )
        with ended_by_signal(), provider, _shown(as_json, once, quote) as show:
            while True:
                show(_opportunities(provider))
                if once:
                    break
                time.sleep(interval)
    except (ValueError, BusConnectionError) as error:
        fail(str(error))


def parse_fees(text: str) -> dict[str, float]:
    """`binance=7.5,upbit=5` as a mapping. Raises ValueError."""
    fees = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        exchange, _, fee = part.partition("=")
        try:
            fees[exchange.strip()] = float(fee)
        except ValueError:
            raise ValueError(f"--fees {part}: write exchange=bps, like binance=7.5") from None
    return fees


def table_of(found: Sequence[Opportunity], quote: str) -> RenderableType:
    """One row per pair of exchanges; below the table each remark once, with the pairs that it applies to."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, title=f"arbitrage in {quote}")
    for heading in ("pair", "buy → sell"):
        table.add_column(heading, no_wrap=True)
    for heading in ("gross bps", "net bps", "size", "profit", "ages, s"):
        table.add_column(heading, justify="right")
    table.add_column("act")
    for one in found:
        table.add_row(
            one.symbol,
            f"{one.buy} → {one.sell}",
            _figure(one.gross_bps, "+.1f"),
            _figure(one.net_bps, "+.1f"),
            _figure(one.size or None, ".6g"),
            _figure(one.profit or None, ",.2f"),
            " ".join(_figure(age, ".1f") for age in (one.buy_age, one.sell_age, one.fx_age)),
            Text("yes", style="bold green") if one.actionable else Text("no", style="dim"),
        )
    remarks = [Text(remark, style="yellow") for remark in _remarks(found, quote)]
    ages = "ages: book to buy from, book to sell to, exchange rate"
    return Group(table, *remarks, Text(f"{ages}\n{ASSUMPTION}", style="dim"))


def json_line(one: Opportunity, now: float) -> str:
    fields = {"time": round(now, 3), **msgspec.structs.asdict(one), "actionable": one.actionable, "assumes": ASSUMPTION}
    return msgspec.json.encode(fields).decode()


def _opportunities(provider: MultiExchangeProvider) -> list[Opportunity]:
    return [one for symbol in provider.symbols for one in provider.opportunities(symbol)]


@contextmanager
def _shown(as_json: bool, once: bool, quote: str) -> Iterator[_ShowAll]:
    if as_json:
        yield _print_lines
        return
    console = Console()
    if once or not console.is_terminal:
        yield lambda found: console.print(table_of(found, quote))
        return
    with Live(console=console, auto_refresh=False) as live:
        yield lambda found: live.update(table_of(found, quote), refresh=True)


def _print_lines(found: list[Opportunity]) -> None:
    now = time.time()
    for one in found:
        sys.stdout.write(json_line(one, now) + "\n")
    sys.stdout.flush()


def _figure(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _remarks(found: Sequence[Opportunity], quote: str) -> list[str]:
    """Each remark once, with the pairs that it applies to."""
    concerned: dict[str, list[str]] = {}
    for one in found:
        if remark := _remark(one, quote):
            concerned.setdefault(remark, []).append(f"{one.symbol} {one.buy} → {one.sell}")
    return [f"{', '.join(pairs)}: {remark}" for remark, pairs in concerned.items()]


def _remark(one: Opportunity, quote: str) -> str:
    if one.net_bps is None:
        return one.reason
    if one.actionable and one.fx_size is not None and one.cost > one.fx_size:
        return f"the best level of the exchange rate covers only {one.fx_size:,.0f} {quote}"
    return ""
