"""Replays a recording through the same books as a live feed, at any speed, deterministically."""

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import SnapshotNeeded, Topic
from bookbus.feeders.bus.network import RECORDING, ExchangeNetwork, NetworkClaim
from bookbus.feeders.bus.publish_script import BookClaim, Submission
from bookbus.feeders.bus.publisher import Publisher
from bookbus.feeders.bus.servers import control_client
from bookbus.feeders.errors import ReplayError
from bookbus.feeders.feed import Feed, FeedCounters
from bookbus.feeders.feeder import unique_feeder_id
from bookbus.feeders.recording import CaptureFile
from bookbus.feeders.venue import FeedOptions, venue_of
from bookbus.schemas.capture import CaptureError, CaptureFrame, decode_instruments
from bookbus.schemas.heartbeat import FeedState
from bookbus.schemas.instruments import InstrumentRegistry, SymbolError
from bookbus.schemas.recorded_time import RisingTimes
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade

logger = logging.getLogger(__name__)

_LINE = 0
_DRAIN_TIMEOUT = 10.0


class ReplayedFrame(NamedTuple):
    """One recorded frame: when it was received (seconds since 1970; never before the frame in front of it), and the
    books and trades it delivered.
    """

    time: float
    events: tuple[tuple[Topic, OrderBookSnapshot | Trade], ...]


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """How a replay ended. `states` has the book and the quote of every symbol, as far as they were wanted; symbols are
    standard names."""

    exchange: str
    frames: int
    bad_lines: int
    cut_off: bool
    recorded_seconds: float
    states: dict[tuple[str, Topic], FeedState]
    trades: dict[str, int]
    """Trades of each symbol that has some."""
    published: dict[Topic, int]
    """Books, quotes and trades."""
    books: list[tuple[Topic, OrderBookSnapshot]]
    counters: FeedCounters
    unnamed: dict[str, str]
    """The exchange's names of the symbols that were left out because their standard names are not known, and why."""
    shallow: list[str]
    """Books that were not live at a time because their snapshots had too few levels for the depth."""
    corrected_times: int = 0
    """Frames whose recorded time is far from their neighbours', or before the frame in front of them."""
    largest_correction: float = 0.0
    """Seconds."""

    @property
    def complete(self) -> bool:
        """Whether every wanted book and quote ended live, and no book lacked levels at a time.

        Of trades alone, whether there are some.
        """
        found = bool(self.states or self.trades) and not self.unnamed and not self.shallow
        return found and all(state == "live" for state in self.states.values())


class Replay:
    """Iterate once for the frames; `exchange` is known with the first one, `result()` after the last."""

    def __init__(self, path: Path, options: FeedOptions, symbols: tuple[str, ...] = ()) -> None:
        """Every symbol of the recording unless some are named. Raises OSError if the file cannot be read."""
        self.exchange = ""
        self._path = path
        self._capture = CaptureFile(path)
        self._times: RisingTimes[CaptureFrame] = RisingTimes((frame.t, frame) for frame in self._capture)
        self._options = options
        self._symbols = symbols
        self._events: list[tuple[Topic, OrderBookSnapshot | Trade]] = []
        self._feed: Feed | None = None
        self._registry: InstrumentRegistry
        self._first = self._last = 0.0
        self._published: Counter[Topic] = Counter()
        self._trades: Counter[str] = Counter()

    def __iter__(self) -> Iterator[ReplayedFrame]:
        """Raises ReplayError, ValueError for options that the exchange does not have, SymbolError for a name."""
        for received, frame in self._times:
            if not self.exchange:
                self.exchange = frame.venue
                self._registry = InstrumentRegistry(venue_of(frame.venue).exchange, offline=True)
            if frame.venue != self.exchange:
                raise ReplayError(
                    f"{self._path} holds both {self.exchange} and {frame.venue}: record them into two files"
                )
            if frame.kind == "instruments":
                self._learn(frame.raw)
                continue
            if self._feed is None:
                self._feed, self._first = self._feed_for(frame.venue), received
            self._last = received
            received_us = round(received * 1e6)
            if frame.kind == "ws":
                self._feed.receive(frame.raw.encode(), _LINE, received_us)
            else:
                self._feed.receive_recorded(frame.url, frame.raw.encode(), received_us)
            events, self._events = self._events, []
            for topic, event in events:
                self._published[topic] += 1
                if topic == "trades":
                    self._trades[event.symbol] += 1
            yield ReplayedFrame(received, tuple(events))
        if self._times.corrected:
            logger.warning(
                "%s: %d recorded times are out of order, by up to %.0f s, and were corrected",
                *(self._path.name, self._times.corrected, self._times.largest),
            )
        if self._feed is None:
            reason = f": {self._capture.first_bad}" if self._capture.first_bad else ""
            raise ReplayError(f"{self._path} holds no frame{reason}")

    def result(self) -> ReplayResult:
        feed, capture = self._feed, self._capture
        if feed is None:
            raise ReplayError(f"{self._path} was not replayed")
        wanted: tuple[Topic, ...] = ("book", "quote")
        return ReplayResult(
            exchange=feed.exchange,
            frames=capture.frames,
            bad_lines=capture.bad_lines,
            cut_off=capture.cut_off,
            recorded_seconds=self._last - self._first,
            states={
                (symbol, topic): state
                for topic in wanted
                if topic in self._options.topics
                for native, state in feed.states(topic).items()
                if (symbol := feed.symbol_of(native)) is not None
            },
            trades=dict(self._trades),
            published=dict(self._published),
            books=[(topic, feed.current(topic, native)) for topic, native in feed.latest],
            counters=feed.counters,
            corrected_times=self._times.corrected,
            largest_correction=self._times.largest,
            unnamed=feed.unnamed,
            shallow=sorted(symbol for native in feed.shallow if (symbol := feed.symbol_of(native)) is not None),
        )

    def _learn(self, listed: str) -> None:
        """Take the recorded names. A name that a book has already stays."""
        try:
            instruments = decode_instruments(listed)
        except CaptureError as error:
            raise ReplayError(f"{self._path}: {error}") from error
        self._registry.learn(each for each in instruments if each.exchange == self.exchange)

    def _feed_for(self, exchange: str) -> Feed:
        venue, registry = venue_of(exchange), self._registry
        wanted = [registry.resolve(symbol) for symbol in self._symbols]
        for reason in registry.learn(wanted).values():
            raise SymbolError(reason)
        natives = [instrument.native for instrument in wanted] or None
        feed = Feed(
            exchange=exchange,
            books=BookSet(venue.protocol(natives, self._options, recorded=True), venue.snapshots),
            options=self._options,
            instrument_of=cache(registry.named),
            on_snapshot=lambda book, topic: self._events.append((topic, book)),
            on_trade=lambda trade: self._events.append(("trades", trade)),
            snapshots=NoSnapshots(),
        )
        feed.line_up(_LINE)
        return feed


class NoSnapshots:
    """Requests no snapshots: only recorded answers are used."""

    def ask(self, need: SnapshotNeeded, feed: Feed) -> None:
        """Requests nothing. The recorded request may have been sent now, so updates are buffered from here on."""
        feed.snapshot_requested(need.native)

    def is_pending(self, native: str) -> bool:
        """The recording may still contain an answer."""
        return True

    def answers_soon(self, native: str) -> bool:
        return False


class ReplayClock:
    """Delays each frame until it is due at `speed` times the recorded pace; None never waits."""

    def __init__(
        self,
        speed: float | None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._offset: float | None = None

    async def wait_until(self, recorded: float) -> None:
        """Return when the frame received at this recorded time is due."""
        if self._speed is None:
            return
        due = recorded / self._speed
        if self._offset is None:
            self._offset = self._clock() - due
        if (wait := due + self._offset - self._clock()) > 0:
            await self._sleep(wait)


class ReplayFeeder:
    """Publishes one recording. Existing data under the names that it writes is removed first."""

    def __init__(
        self,
        path: Path,
        redis_url: str,
        names: RedisNames,
        options: FeedOptions,
        speed: float | None,
        symbols: tuple[str, ...] = (),
    ) -> None:
        """`speed` is a multiple of the recorded pace, None is as fast as Redis accepts."""
        self._path = path
        self._redis_url = redis_url
        self._names = names
        self._options = options
        self._symbols = symbols
        self._clock = ReplayClock(speed)
        self._control = control_client(redis_url)
        self._id = unique_feeder_id("replay", None)
        claim = BookClaim(RECORDING, options.mode, options.depth)
        self.publisher = Publisher(redis_url, names, self._id, claim=claim, may_write=self._may_write)
        self._claim: NetworkClaim | None = None
        self._written: set[str] = set()

    async def run(self) -> ReplayResult:
        """Replay to the end. Raises ReplayError, NetworkTakenError, or OSError if the file cannot be read."""
        async with contextlib.AsyncExitStack() as stack:
            return await self._publish(stack)

    async def _publish(self, stack: contextlib.AsyncExitStack) -> ReplayResult:
        publishing = asyncio.create_task(self.publisher.run())
        try:
            result = await self._replay(stack)
            for topic, book in result.books:
                # A book may have moved on with the same published levels: its last id belongs on the bus too.
                self.publisher.submit(Submission("again" if book.state == "live" else "state", topic, book))
            if not await self.publisher.drain(_DRAIN_TIMEOUT):
                raise TimeoutError(f"Redis did not take the last books within {_DRAIN_TIMEOUT:.0f} s")
            return result
        finally:
            publishing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await publishing
            await self._control.aclose()

    def _may_write(self) -> bool:
        return self._claim is not None and self._claim.may_publish()

    async def _replay(self, stack: contextlib.AsyncExitStack) -> ReplayResult:
        replay = Replay(self._path, self._options, self._symbols)
        for frame in replay:
            if self._claim is None:
                self._claim = claim = self._make_claim(replay.exchange)
                claim.on_regained = self.publisher.schedule_flush
                await stack.enter_async_context(claim.kept())
            await self._clock.wait_until(frame.time)
            for topic, event in frame.events:
                await self._send(topic, event)
        return replay.result()

    def _make_claim(self, exchange: str) -> NetworkClaim:
        return NetworkClaim(
            self._redis_url,
            self._names,
            exchange,
            ExchangeNetwork(RECORDING),
            self._id,
            networks=venue_of(exchange).networks,
            endpoint=f"capture:{self._path.name}",
        )

    async def _send(self, topic: Topic, event: OrderBookSnapshot | Trade) -> None:
        """Publish, waiting for room instead of conflating."""
        if isinstance(event, Trade):
            await self._clear(self._names.trades(event.exchange, event.symbol))
            await self._clear(self._names.recent_trades(event.exchange, event.symbol))
            await self.publisher.submit_trade_lossless(event)
        else:
            await self._clear(self._names.of(topic, event.exchange, event.symbol))
            await self.publisher.submit_lossless(Submission("new" if event.state == "live" else "state", topic, event))

    async def _clear(self, name: str) -> None:
        """Remove what an earlier feeder or replay left under a name, once."""
        if name in self._written:
            return
        self._written.add(name)
        await self._control.delete(name)
        if self._names.parse_book(name) is not None:
            await self._control.sadd(self._names.books, name)
