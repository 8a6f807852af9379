"""Observes readers during faults: when books stop and start being live, and whether live ones are right.

One reader receives every message of the bus; another is a provider, polled 25 times a second. Every book that either
calls live is compared with the exchange's own book at the same update id. For each book that the provider calls live,
the true age is computed: the time since the exchange's own book differs from it. Twice a second a third reader checks
that a new reader would find every book.
"""

import asyncio
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas import wire
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import BookStatus, Levels, OrderBookSnapshot
from tests.support.book_checker import BookChecker
from tests.support.true_age import LIVE_LIMIT, Held, TrueAges

LOOK_INTERVAL = 0.04
_LATE_INTERVAL = 0.5
_JUDGE_INTERVAL = 3.0
_RECONNECT_INTERVAL = 0.05
_SILENCE = 1.0
"""Seconds without a message after which the bus reader sends a PING."""

DISCONNECTED = "disconnected"


@dataclass
class Seen:
    """Observations since the beginning of a fault; times are monotonic."""

    since: float
    not_live: dict[str, tuple[float, float]] = field(default_factory=dict)
    """First and last time at which a symbol was not live, or its market not `trading`."""
    states: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def take(self, symbol: str, state: str) -> None:
        """Record that a reader has the symbol in this state now."""
        now = time.monotonic()
        first, _ = self.not_live.get(symbol, (now, now))
        self.not_live[symbol] = first, now
        self.states[symbol].add(state)


class BusObserver(BookChecker):
    """Receives every message; live books are compared later, in batches."""

    def __init__(self) -> None:
        super().__init__(truth=lambda _symbol, _update_id: None)
        self.unjudged: dict[str, list[OrderBookSnapshot]] = defaultdict(list)
        """Live books that are not compared yet, by native symbol."""
        self.undecodable = 0

    def _compare(self, book: OrderBookSnapshot) -> None:
        self.unjudged[book.native].append(book)


class Watch:
    """`async with Watch(...)` reads until the block ends: the provider from `url`, the other readers from `bus_url`."""

    def __init__(
        self,
        exchange: SimulatorProcess,
        venue: str,
        symbols: dict[str, str],
        url: str,
        bus_url: str,
        live_limit: float = LIVE_LIMIT,
    ) -> None:
        """`live_limit`: the highest true age in seconds at which the provider may call a book live."""
        self.bus = BusObserver()
        self.provider = RedisMarketDataProvider(url, venue, list(symbols.values()))
        self.seen = Seen(time.monotonic())
        self.symbols = list(symbols.values())
        self.ages = TrueAges(live_limit)
        self._native_of = {symbol: native for native, symbol in symbols.items()}
        self._exchange = exchange
        self._channels = [RedisNames().book(venue, symbol) for symbol in self.symbols]
        self._bus_url = bus_url
        self._looked_at: dict[str, OrderBookSnapshot] = {}
        self._fresh_since_us = 0
        self._fresh: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._judging = asyncio.Lock()

    async def __aenter__(self) -> "Watch":
        await self.provider.astart()
        work = (self._follow(), self._look(), self._look_late(), self._judge_often())
        self._tasks = [asyncio.create_task(part) for part in work]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.provider.astop()
        for result in results:
            if isinstance(result, Exception):
                raise result

    def begin(self) -> Seen:
        """Start new observations."""
        self.seen = Seen(time.monotonic())
        self.ages.oldest = 0.0
        self.await_fresh()
        return self.seen

    def await_fresh(self) -> None:
        """From now on, only books that the feeder received after this call count as fresh."""
        self._fresh_since_us = time.time_ns() // 1000
        self._fresh = {}

    def fresh_at(self, symbol: str) -> float | None:
        """Time at which the provider first had a fresh live book of the symbol."""
        return self._fresh.get(symbol)

    def raise_failures(self) -> None:
        """Raises the exception that ended a reader."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    @property
    def missed(self) -> int:
        """Updates that the provider did not receive."""
        return sum(self.provider.status(symbol).missed for symbol in self.symbols)

    @property
    def skipped(self) -> int:
        """Messages that the provider could not decode."""
        return sum(self.provider.status(symbol).skipped for symbol in self.symbols)

    async def judge(self) -> None:
        """Compare the live books that are not compared yet."""
        async with self._judging:
            unjudged, self.bus.unjudged = self.bus.unjudged, defaultdict(list)
            # Concurrently: on a busy machine each request waits long but costs little.
            await asyncio.gather(*(self._judge_market(native, books) for native, books in unjudged.items()))
            await asyncio.gather(*(self._judge_ages(native, seen) for native, seen in self.ages.take().items()))

    async def _judge_market(self, native: str, books: list[OrderBookSnapshot]) -> None:
        truths = await asyncio.to_thread(self._exchange.truths, native, min(book.update_id for book in books))
        for book in books:
            self._compare(book, truths.get(book.update_id))

    async def _judge_ages(self, native: str, seen: list[Held]) -> None:
        timeline = await asyncio.to_thread(self._exchange.timeline, native, self.ages.since_us(seen))
        # `judge` requests the exchange's levels only for a book that seems to be too old.
        await asyncio.to_thread(self.ages.judge, seen, timeline, partial(self._exchange.truth, native))

    def _compare(self, book: OrderBookSnapshot, true: tuple[Levels, Levels] | None) -> None:
        if true is None:
            self.bus.unknown_ids += 1
            return
        self.bus.compared += 1
        if (book.bids, book.asks) != (true[0][: book.depth], true[1][: book.depth]):
            self.bus.wrong.append(f"{book.symbol} at {book.update_id} by {book.feeder}")

    async def _judge_often(self) -> None:
        while True:
            await asyncio.sleep(_JUDGE_INTERVAL)
            await self.judge()

    async def _look(self) -> None:
        """Poll the provider."""
        while True:
            await asyncio.sleep(LOOK_INTERVAL)
            connection = self.provider.get_connection_status()
            for symbol, status in connection.symbols.items():
                is_live = status.state is BookStatus.LIVE
                self.ages.see(self._native_of[symbol], status.update_id if is_live else None)
                if not connection.connected:
                    self.seen.take(symbol, DISCONNECTED)
                if not is_live:
                    self.seen.take(symbol, status.state)
                    continue
                if status.trading not in ("unknown", "trading"):
                    self.seen.take(symbol, status.trading)
                book = self._looked_at.get(symbol)
                if book is None or book.seq != status.seq:
                    book = self._read(symbol)
                if connection.connected and book is not None and book.received_us >= self._fresh_since_us:
                    self._fresh.setdefault(symbol, time.monotonic())

    def _read(self, symbol: str) -> OrderBookSnapshot | None:
        """The book as a strategy gets it, compared later; None unless it is live."""
        reading = self.provider.read(symbol)
        book = reading.snapshot if reading.status is BookStatus.LIVE else None
        if book is not None:
            self._looked_at[symbol] = book
            self.bus.unjudged[book.native].append(book)
        return book

    async def _look_late(self) -> None:
        """Poll for every book like a new reader; without a reply nothing is recorded."""
        while True:
            with suppress(RedisError, OSError, TimeoutError):
                async with Redis.from_url(self._bus_url, socket_timeout=1.0) as client:
                    while True:
                        await self._look_for_all(client)
                        await asyncio.sleep(_LATE_INTERVAL)
            await asyncio.sleep(_RECONNECT_INTERVAL)

    async def _look_for_all(self, client: "Redis") -> None:
        async with client.pipeline(transaction=False) as pipeline:
            for name in self._channels:
                pipeline.exists(name)
            found = await pipeline.execute()
        for symbol, exists in zip(self.symbols, found, strict=True):
            if not exists:
                self.seen.take(symbol, BookStatus.MISSING)

    async def _follow(self) -> None:
        """Receive every message of the bus, reconnecting until cancelled."""
        while True:
            with suppress(RedisError, OSError, TimeoutError):
                async with Redis.from_url(self._bus_url, protocol=2, socket_timeout=5.0) as client:
                    await self._follow_once(client)
            await asyncio.sleep(_RECONNECT_INTERVAL)

    async def _follow_once(self, client: "Redis") -> None:
        async with client.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.subscribe(*self._channels)
            while True:
                message = await pubsub.get_message(timeout=_SILENCE)
                if message is None:
                    await client.ping()
                elif message["type"] == "message":
                    self._take(message["data"])

    def _take(self, data: bytes) -> None:
        try:
            book = wire.decode(data)
        except wire.WireError:
            self.bus.undecodable += 1
            return
        self.bus.take(book)
        if book.state != "live":
            self.seen.take(book.symbol, book.state)
