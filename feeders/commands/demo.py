"""`demo`: the whole system on one machine, with a verdict."""

from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from bookbus.feeders.commands.options import fail, run_until_signal
from bookbus.feeders.demo import DEMO_SYMBOLS, Demo, DemoError, Reader, Verdict
from bookbus.feeders.redis_server import private_server
from bookbus.feeders.servers.process import LocalRedisError

EXAMPLES = """
Local exchange, feeder, private server and two readers in processes of their own, with a live table.

Every live book the readers get is compared with the exchange's own at the same update id. Exit code 1 if one
was wrong.

\b
  python -m feeders demo
  python -m feeders demo --seconds 120 --seed 7
"""

_PLAIN_INTERVAL = 5.0
_PLAIN_WIDTH = 130
_LAST_LOOK = 0.5


def demo(
    seconds: Annotated[float, typer.Option(envvar="BOOKBUS_DEMO_SECONDS", min=1, help="How long.")] = 30.0,
    seed: Annotated[int, typer.Option(envvar="BOOKBUS_SEED", help="Another seed is another market.")] = 1,
) -> None:
    """The whole system on one machine, with a verdict."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    verdicts: list[tuple[Demo, Verdict]] = []

    async def work(url: str) -> None:
        shown = Demo(url, DEMO_SYMBOLS, seed)
        console.print("starting local exchange, feeder, server and two readers; nothing leaves this machine")
        try:
            if console.is_terminal:
                with Live(console=console, auto_refresh=False) as live:
                    verdict = await shown.run(seconds, lambda left: live.update(_table(shown, left), refresh=True))
            else:
                verdict = await shown.run(seconds, _plain(console, shown))
        except DemoError as error:
            fail(str(error))
        verdicts.append((shown, verdict))

    try:
        with private_server() as server:
            run_until_signal(work(server.url))
    except LocalRedisError as error:
        fail(str(error))
    if not verdicts:
        raise typer.Exit(130)
    _tell(console, *verdicts[0])


demo.__doc__ = EXAMPLES


def _table(shown: Demo, left: float) -> Table:
    first, second = shown.readers
    table = Table(title=f"{left:.0f} s left" if left else None)
    for heading in ("symbol", "bid", "ask", "spread bps", "age ms", "updates/s", "seq", "missed", "second reader"):
        table.add_column(heading, justify="left" if heading in ("symbol", "second reader") else "right")
    for symbol in sorted(first.newest):
        table.add_row(symbol, *_figures(first, symbol), _agreement(first, second, symbol))
    return table


def _figures(reader: Reader, symbol: str) -> list[str]:
    book = reader.newest[symbol]
    bid, ask = (side[0][0] if side else None for side in (book.bids, book.asks))
    spread = "-" if bid is None or ask is None else f"{(ask - bid) / (ask + bid) * 2e4:.2f}"
    age = "-" if book.age is None else f"{book.age * 1e3:.1f}"
    numbers = ["-" if price is None else f"{price:.10g}" for price in (bid, ask)]
    return [*numbers, spread, age, f"{reader.rate(symbol):.1f}", str(book.seq), str(book.missed)]


def _agreement(first: Reader, second: Reader, symbol: str) -> str:
    other = second.newest.get(symbol)
    if other is None:
        return "no book yet"
    behind = first.newest[symbol].seq - other.seq
    return "same book" if behind == 0 else f"{abs(behind)} {'behind' if behind > 0 else 'ahead'}"


def _plain(console: Console, shown: Demo) -> Callable[[float], None]:
    """Progress lines where there is no terminal to draw in."""
    told: list[float] = []

    def tick(left: float) -> None:
        if not told or told[-1] - left >= _PLAIN_INTERVAL:
            told.append(left)
            rate = sum(shown.readers[0].rate(symbol) for symbol in shown.readers[0].newest)
            console.print(f"{left:3.0f} s left: {len(shown.readers[0].newest)} symbols, {rate:.0f} books/s a reader")
        if left < _LAST_LOOK and told[-1] > 0:
            told.append(0.0)
            console.print(_table(shown, left))

    return tick


def _tell(console: Console, shown: Demo, verdict: Verdict) -> None:
    missed = sum(book.missed for reader in shown.readers for book in reader.newest.values())
    console.print(
        f"{verdict.compared} books compared, {len(verdict.wrong)} wrong; {missed} updates missed by two readers, "
        f"{sum(reader.not_live for reader in shown.readers)} books not live"
    )
    if verdict.unknown:
        console.print(f"{verdict.unknown} books carry an id that the exchange does not know")
    for wrong in verdict.wrong[:10]:
        console.print(f"wrong: {wrong}")
    if not verdict.passed or any(reader.older_after_newer for reader in shown.readers):
        fail("the books are not what the exchange's were" if verdict.compared else "no book reached a reader")
