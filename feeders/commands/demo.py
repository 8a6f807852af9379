"""`demo`: the whole system on one machine, with a verdict."""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from bookbus.feeders.commands.options import fail, run_until_signal
from bookbus.feeders.redis_server import LocalRedisError, private_server
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.snapshot import Levels

DEMO_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "ADAUSDT")

_RATE_WINDOW = 5.0
_JUDGE_INTERVAL = 5.0
_STOP_LIMIT = 10.0


class DemoError(Exception):
    """A part of the demonstration did not start or died."""


class ReadBook(msgspec.Struct):
    """What a reader prints for each book it gets: the fields of `consumers tail --json` that are judged or shown."""

    symbol: str
    native: str
    seq: int
    update_id: int
    state: str
    status: str
    age: float | None
    missed: int
    bids: Levels
    asks: Levels


_decode = msgspec.json.Decoder(ReadBook).decode


@dataclass
class Reader:
    """One reading process and what it has seen."""

    name: str
    newest: dict[str, ReadBook] = field(default_factory=dict)
    arrivals: dict[str, deque[float]] = field(default_factory=dict)
    unjudged: list[ReadBook] = field(default_factory=list)
    not_live: int = 0
    older_after_newer: int = 0

    def take(self, book: ReadBook, now: float) -> None:
        """Remember one book; live ones wait to be compared with the truth."""
        before = self.newest.get(book.symbol)
        if before is not None and (book.seq, book.update_id) < (before.seq, before.update_id):
            self.older_after_newer += 1
        self.newest[book.symbol] = book
        arrivals = self.arrivals.setdefault(book.symbol, deque())
        arrivals.append(now)
        while arrivals[0] < now - _RATE_WINDOW:
            arrivals.popleft()
        if book.state == "live":
            self.unjudged.append(book)
        else:
            self.not_live += 1

    def rate(self, symbol: str) -> float:
        """Books a second of late."""
        arrivals = self.arrivals.get(symbol, deque())
        return len(arrivals) / max(1.0, arrivals[-1] - arrivals[0]) if len(arrivals) > 1 else 0.0


@dataclass
class Verdict:
    """How the books seen compare with the exchange's own."""

    compared: int = 0
    wrong: list[str] = field(default_factory=list)
    unknown: int = 0

    @property
    def passed(self) -> bool:
        """Whether there was something to compare and all of it was right."""
        return self.compared > 0 and not self.wrong and not self.unknown


class Demo:
    """Start it all with `async with`; then `run`."""

    def __init__(self, redis_url: str, symbols: Sequence[str] = DEMO_SYMBOLS, seed: int = 1) -> None:
        self._redis_url = redis_url
        self._exchange = SimulatorProcess(symbols=list(symbols), seed=seed)
        self.symbols = tuple(symbols)
        self.readers = (Reader("first"), Reader("second"))
        self.verdict = Verdict()
        self._judged: dict[str, int] = {}

    async def run(self, seconds: float, on_tick: Callable[[float], None]) -> Verdict:
        """Let it work for so long; `on_tick` gets the seconds left, four times a second. Raises DemoError."""
        await asyncio.to_thread(self._exchange.start)
        try:
            async with self._process(self._feeder_command(), "feeder"), self._reading():
                await self._until_first_books()
                await self._watch(seconds, on_tick)
            await self._judge()
        finally:
            await asyncio.to_thread(self._exchange.stop)
        return self.verdict

    def _feeder_command(self) -> list[str]:
        exchange = self._exchange
        return [
            *("-m", "feeders", "run", "--exchange", "binance", "--redis", self._redis_url, "--log-level", "warning"),
            *("--ws-url", exchange.ws_url, "--rest-url", exchange.rest_url, "--symbols", ",".join(self.symbols)),
        ]

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        command = ["-m", "consumers", "tail", *self.symbols, "--json", "--redis", self._redis_url]
        async with contextlib.AsyncExitStack() as stack:
            for reader in self.readers:
                process = await stack.enter_async_context(self._process(command, f"{reader.name} reader"))
                task = asyncio.create_task(_read(process, reader))
                stack.push_async_callback(_cancelled, task)
            yield

    @contextlib.asynccontextmanager
    async def _process(self, command: Sequence[str], name: str) -> AsyncIterator[asyncio.subprocess.Process]:
        with tempfile.TemporaryFile() as errors, tempfile.TemporaryDirectory() as cache:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *command,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=2**20,
                env=os.environ | {"XDG_CACHE_HOME": cache},
            )
            watching = asyncio.create_task(process.wait())
            try:
                yield process
                if watching.done():
                    errors.seek(0)
                    raise DemoError(f"the {name} ended by itself: {errors.read().decode(errors='replace').strip()}")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.terminate()
                await asyncio.wait((watching,), timeout=_STOP_LIMIT)
                if not watching.done():
                    process.kill()
                    await watching

    async def _until_first_books(self) -> None:
        deadline = time.monotonic() + 30.0
        while not all(len(reader.newest) == len(self.symbols) for reader in self.readers):
            if time.monotonic() > deadline:
                return  # the processes' own errors say more; an empty verdict fails
            await asyncio.sleep(0.05)

    async def _watch(self, seconds: float, on_tick: Callable[[float], None]) -> None:
        end, next_judgement = time.monotonic() + seconds, time.monotonic() + _JUDGE_INTERVAL
        while (left := end - time.monotonic()) > 0:
            on_tick(left)
            await asyncio.sleep(min(0.25, left))
            if time.monotonic() > next_judgement:
                next_judgement += _JUDGE_INTERVAL
                await self._judge()

    async def _judge(self) -> None:
        """Compare what came since the last time, while the exchange still remembers it."""
        for native in self.symbols:
            books = [book for reader in self.readers for book in _taken(reader, native)]
            if not books:
                continue
            since = min(book.update_id for book in books)
            truths = await asyncio.to_thread(self._exchange.truths, native, since)
            for book in books:
                self._compare(book, truths.get(book.update_id))

    def _compare(self, book: ReadBook, true: tuple[Levels, Levels] | None) -> None:
        if true is None:
            self.verdict.unknown += 1
            return
        self.verdict.compared += 1
        if (book.bids, book.asks) != true:
            self.verdict.wrong.append(f"{book.symbol} at update {book.update_id}")


def _taken(reader: Reader, native: str) -> list[ReadBook]:
    books = [book for book in reader.unjudged if book.native == native]
    reader.unjudged = [book for book in reader.unjudged if book.native != native]
    return books


async def _read(process: asyncio.subprocess.Process, reader: Reader) -> None:
    lines = process.stdout
    if lines is None:
        return
    async for line in lines:
        reader.take(_decode(line), time.monotonic())


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


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
