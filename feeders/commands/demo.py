"""`demo`: the whole system on one machine, its books compared with the true ones."""

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

from bookbus.command_line import fail
from bookbus.feeders.commands.options import run_until_signal
from bookbus.feeders.redis_server import LocalRedisError, LocalServer
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.snapshot import Levels

DEMO_SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "ADAUSDT")

_RATE_WINDOW = 5.0
_COMPARE_INTERVAL = 5.0
_STOP_LIMIT = 10.0
_END_LIMIT = 40.0
"""Of the whole: its processes end one after the other."""
_PLAIN_INTERVAL = 5.0
_PLAIN_WIDTH = 130
_LAST_LOOK = 0.5


def demo(
    seconds: Annotated[float, typer.Option(envvar="BOOKBUS_DEMO_SECONDS", min=1, help="Duration.")] = 30.0,
    seed: Annotated[int, typer.Option(envvar="BOOKBUS_SEED", help="Another seed gives another market.")] = 1,
) -> None:
    """Simulated exchange, feeder, private server and two readers, each in its own process, with a live table.

    Every live book that a reader gets is compared with the exchange's own at the same update id. Exit code 1 if one
    differs.

    \b
      python -m feeders demo
      python -m feeders demo --seconds 120 --seed 7
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PLAIN_WIDTH)
    finished: list[Demo] = []

    async def work(url: str) -> None:
        running = Demo(url, DEMO_SYMBOLS, seed)
        console.print("starting simulated exchange, feeder, server and two readers; nothing leaves this machine")
        try:
            if console.is_terminal:
                with Live(console=console, auto_refresh=False) as live:
                    await running.run(seconds, lambda left: live.update(_table(running, left), refresh=True))
            else:
                await running.run(seconds, _progress_lines(console, running))
        except DemoError as error:
            fail(str(error))
        finished.append(running)

    try:
        with LocalServer() as server:
            run_until_signal(work(server.url), _END_LIMIT)
    except LocalRedisError as error:
        fail(str(error))
    if not finished:
        raise typer.Exit(130)
    _report(console, finished[0])


class DemoError(Exception):
    """A process of the demonstration did not start, or ended."""


class ReadBook(msgspec.Struct):
    """The fields of a line of `consumers tail --json` that are compared or shown."""

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
class ReaderProcess:
    """One reading process and the books it printed."""

    name: str
    newest: dict[str, ReadBook] = field(default_factory=dict)
    arrivals: dict[str, deque[float]] = field(default_factory=dict)
    uncompared: list[ReadBook] = field(default_factory=list)
    not_live: int = 0
    older_after_newer: int = 0

    def add(self, book: ReadBook, now: float) -> None:
        """Remember one book; live ones wait to be compared."""
        before = self.newest.get(book.symbol)
        if before is not None and (book.seq, book.update_id) < (before.seq, before.update_id):
            self.older_after_newer += 1
        self.newest[book.symbol] = book
        arrivals = self.arrivals.setdefault(book.symbol, deque())
        arrivals.append(now)
        while arrivals[0] < now - _RATE_WINDOW:
            arrivals.popleft()
        if book.state == "live":
            self.uncompared.append(book)
        else:
            self.not_live += 1

    def rate(self, symbol: str) -> float:
        """Books a second, over the last few seconds."""
        arrivals = self.arrivals.get(symbol, deque())
        return len(arrivals) / max(1.0, arrivals[-1] - arrivals[0]) if len(arrivals) > 1 else 0.0


@dataclass
class Verdict:
    """Result of comparing the readers' books with the exchange's own."""

    compared: int = 0
    wrong: list[str] = field(default_factory=list)
    unknown: int = 0

    @property
    def passed(self) -> bool:
        """Whether books were compared and none was wrong or unknown."""
        return self.compared > 0 and not self.wrong and not self.unknown


class Demo:
    """The processes of one demonstration."""

    def __init__(self, redis_url: str, symbols: Sequence[str] = DEMO_SYMBOLS, seed: int = 1) -> None:
        self._redis_url = redis_url
        self._exchange = SimulatorProcess(symbols=list(symbols), seed=seed)
        self.symbols = tuple(symbols)
        self.readers = (ReaderProcess("first"), ReaderProcess("second"))
        self.verdict = Verdict()

    async def run(self, seconds: float, on_tick: Callable[[float], None]) -> None:
        """Run for `seconds`; `on_tick` gets the seconds left, four times a second. Raises DemoError."""
        await asyncio.to_thread(self._exchange.start)
        try:
            async with self._process(self._feeder_command(), "feeder"), self._reading():
                await self._until_first_books()
                await self._watch(seconds, on_tick)
            await self._compare_all()
        finally:
            await asyncio.to_thread(self._exchange.stop)

    def _feeder_command(self) -> list[str]:
        source = ["--exchange", "binance", "--ws-url", self._exchange.ws_url, "--rest-url", self._exchange.rest_url]
        bus = ["--redis", self._redis_url, "--log-level", "warning"]
        return ["-m", "feeders", "run", *source, *bus, "--symbols", ",".join(self.symbols)]

    @contextlib.asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        command = ["-m", "consumers", "tail", *self.symbols, "--json", "--redis", self._redis_url]
        async with contextlib.AsyncExitStack() as stack:
            for reader in self.readers:
                process = await stack.enter_async_context(self._process(command, f"{reader.name} reader"))
                task = asyncio.create_task(_read(process, reader))
                stack.push_async_callback(_cancel, task)
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
        end, next_comparison = time.monotonic() + seconds, time.monotonic() + _COMPARE_INTERVAL
        while (left := end - time.monotonic()) > 0:
            on_tick(left)
            await asyncio.sleep(min(0.25, left))
            if time.monotonic() > next_comparison:
                next_comparison += _COMPARE_INTERVAL
                await self._compare_all()

    async def _compare_all(self) -> None:
        """Compare the books that came since the last call, while the exchange still remembers its own."""
        for native in self.symbols:
            books = [book for reader in self.readers for book in _pop_uncompared(reader, native)]
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


def _pop_uncompared(reader: ReaderProcess, native: str) -> list[ReadBook]:
    books = [book for book in reader.uncompared if book.native == native]
    reader.uncompared = [book for book in reader.uncompared if book.native != native]
    return books


async def _read(process: asyncio.subprocess.Process, reader: ReaderProcess) -> None:
    lines = process.stdout
    if lines is None:
        return
    async for line in lines:
        reader.add(_decode(line), time.monotonic())


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _table(running: Demo, left: float) -> Table:
    first, second = running.readers
    table = Table(title=f"{left:.0f} s left" if left else None)
    for heading in ("symbol", "bid", "ask", "spread bps", "age ms", "updates/s", "seq", "missed", "second reader"):
        table.add_column(heading, justify="left" if heading in ("symbol", "second reader") else "right")
    for symbol in sorted(first.newest):
        table.add_row(symbol, *_figures(first, symbol), _agreement(first, second, symbol))
    return table


def _figures(reader: ReaderProcess, symbol: str) -> list[str]:
    book = reader.newest[symbol]
    bid, ask = (side[0][0] if side else None for side in (book.bids, book.asks))
    spread = "-" if bid is None or ask is None else f"{(ask - bid) / (ask + bid) * 2e4:.2f}"
    age = "-" if book.age is None else f"{book.age * 1e3:.1f}"
    numbers = ["-" if price is None else f"{price:.10g}" for price in (bid, ask)]
    return [*numbers, spread, age, f"{reader.rate(symbol):.1f}", str(book.seq), str(book.missed)]


def _agreement(first: ReaderProcess, second: ReaderProcess, symbol: str) -> str:
    other = second.newest.get(symbol)
    if other is None:
        return "no book yet"
    behind = first.newest[symbol].seq - other.seq
    return "same book" if behind == 0 else f"{abs(behind)} {'behind' if behind > 0 else 'ahead'}"


def _progress_lines(console: Console, running: Demo) -> Callable[[float], None]:
    printed_at: list[float] = []

    def tick(left: float) -> None:
        if not printed_at or printed_at[-1] - left >= _PLAIN_INTERVAL:
            printed_at.append(left)
            rate = sum(running.readers[0].rate(symbol) for symbol in running.readers[0].newest)
            console.print(f"{left:3.0f} s left: {len(running.readers[0].newest)} symbols, {rate:.0f} books/s a reader")
        if left < _LAST_LOOK and printed_at[-1] > 0:
            printed_at.append(0.0)
            console.print(_table(running, left))

    return tick


def _report(console: Console, finished: Demo) -> None:
    verdict = finished.verdict
    missed = sum(book.missed for reader in finished.readers for book in reader.newest.values())
    console.print(
        f"{verdict.compared} books compared, {len(verdict.wrong)} wrong; {missed} updates missed by two readers, "
        f"{sum(reader.not_live for reader in finished.readers)} books not live"
    )
    if verdict.unknown:
        console.print(f"{verdict.unknown} books have an id that the exchange does not know")
    for wrong in verdict.wrong[:10]:
        console.print(f"wrong: {wrong}")
    if not verdict.passed or any(reader.older_after_newer for reader in finished.readers):
        fail("the books differ from the exchange's own" if verdict.compared else "no book reached a reader")
