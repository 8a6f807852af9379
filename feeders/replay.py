"""A recording through the same pure core, at its own pace or another, deterministically."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bookbus.feeders.books.events import SnapshotNeeded, Topic
from bookbus.feeders.bus.heartbeat import refuse_mixed_prefix
from bookbus.feeders.bus.publish_script import Submission
from bookbus.feeders.bus.publisher import Publisher
from bookbus.feeders.bus.servers import control_client
from bookbus.feeders.feed import Feed, FeedCounters
from bookbus.feeders.recording import CaptureFile
from bookbus.feeders.settings import unique_feeder_id
from bookbus.feeders.venue import FeedOptions, venue_of
from bookbus.schemas.capture import CaptureFrame
from bookbus.schemas.heartbeat import FeedState
from bookbus.schemas.instruments import Instrument, InstrumentRegistry
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade

OnBook = Callable[[OrderBookSnapshot, Topic], None]
OnPace = Callable[[CaptureFrame], Awaitable[None]]

_LINE = 0


class ReplayError(Exception):
    """This recording cannot be replayed."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """How a replay ended. `states` has every symbol of the recording by its standard name."""

    exchange: str
    frames: int
    bad_lines: int
    cut_off: bool
    recorded_seconds: float
    states: dict[str, FeedState]
    books: list[tuple[Topic, OrderBookSnapshot]]
    counters: FeedCounters

    @property
    def complete(self) -> bool:
        """Whether every symbol ended with a whole book."""
        return bool(self.states) and all(state == "live" for state in self.states.values())


class NoSnapshots:
    """What the recording does not answer stays unanswered."""

    def ask(self, need: SnapshotNeeded, feed: Feed) -> None:
        """No request leaves a replay; when the recording's own left is not known, so it may have been now."""
        feed.snapshot_requested(need.native)

    def is_pending(self, native: str) -> bool:
        """An answer may still stand in the recording."""
        return True

    def answers_soon(self, native: str) -> bool:
        """Nobody knows."""
        return False


class ReplayClock:
    """Holds each frame back until its time has come at `speed` times the recorded pace; None never waits."""

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

    async def wait_for(self, frame: CaptureFrame) -> None:
        """Return when the frame is due."""
        if self._speed is None:
            return
        due = frame.t / self._speed
        if self._offset is None:
            self._offset = self._clock() - due
        if (wait := due + self._offset - self._clock()) > 0:
            await self._sleep(wait)


async def replay(
    path: Path,
    on_book: OnBook,
    on_trade: Callable[[Trade], None],
    before_frame: OnPace,
    options: FeedOptions,
    symbols: tuple[str, ...] = (),
) -> ReplayResult:
    """Feed every frame of the recording; `before_frame` is awaited before each. Raises ReplayError."""
    capture = CaptureFile(path)
    feed: Feed | None = None
    first = last = 0.0
    for frame in capture:
        if feed is None:
            feed, first = _feed_for(frame.venue, on_book, on_trade, options, symbols), frame.t
        if frame.venue != feed.exchange:
            raise ReplayError(f"{path} holds both {feed.exchange} and {frame.venue}: record them into two files")
        await before_frame(frame)
        last = frame.t
        received_us = round(frame.t * 1e6)
        if frame.kind == "ws":
            feed.receive(frame.raw.encode(), _LINE, received_us)
        else:
            feed.receive_recorded(frame.url, frame.raw.encode(), received_us)
    if feed is None:
        raise ReplayError(f"{path} holds no frame{f': {capture.first_bad}' if capture.first_bad else ''}")
    states = {feed.instrument_of(native).symbol: state for native, state in feed.states().items()}
    return ReplayResult(
        exchange=feed.exchange,
        frames=capture.frames,
        bad_lines=capture.bad_lines,
        cut_off=capture.cut_off,
        recorded_seconds=last - first,
        states=states,
        books=[(topic, feed.current(topic, native)) for topic, native in feed.latest],
        counters=feed.counters,
    )


def _feed_for(
    exchange: str, on_book: OnBook, on_trade: Callable[[Trade], None], options: FeedOptions, symbols: tuple[str, ...]
) -> Feed:
    venue = venue_of(exchange)
    registry = InstrumentRegistry(venue.exchange, offline=True)
    resolve: Callable[[str], Instrument] = cache(registry.resolve)
    natives = [resolve(symbol).native for symbol in symbols] or None
    feed = Feed(exchange, venue.protocol(natives, options), options, resolve, on_book, on_trade, NoSnapshots())
    feed.line_up(_LINE)
    return feed


_DRAIN_TIMEOUT = 10.0


class ReplayFeeder:
    """Publishes one recording. What is already there under the names it writes is removed first."""

    def __init__(
        self,
        path: Path,
        redis_url: str,
        names: RedisNames,
        options: FeedOptions,
        speed: float | None,
        symbols: tuple[str, ...] = (),
    ) -> None:
        """`speed` is a multiple of the recorded pace, None as fast as Redis takes it."""
        self._path = path
        self._redis_url = redis_url
        self._names = names
        self._options = options
        self._symbols = symbols
        self._pace = ReplayClock(speed)
        self._control = control_client(redis_url)
        self.publisher = Publisher(redis_url, names, unique_feeder_id("replay", None))
        self._unsent: list[tuple[OrderBookSnapshot, Topic]] = []
        self._unsent_trades: list[Trade] = []
        self._written: set[str] = set()
        self._checked = False

    async def run(self) -> ReplayResult:
        """Replay to the end. Raises ReplayError, PrefixTakenError, or OSError if the file cannot be read."""
        publishing = asyncio.create_task(self.publisher.run())
        try:
            result = await replay(
                self._path, self._keep, self._unsent_trades.append, self._before, self._options, self._symbols
            )
            await self._send()
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

    def _keep(self, book: OrderBookSnapshot, topic: Topic) -> None:
        self._unsent.append((book, topic))

    async def _before(self, frame: CaptureFrame) -> None:
        if not self._checked:
            await refuse_mixed_prefix(self._redis_url, self._names, frame.venue, f"capture:{self._path.name}")
            self._checked = True
        await self._send()
        await self._pace.wait_for(frame)

    async def _send(self) -> None:
        """What the last frame changed, waiting for room instead of conflating."""
        for book, topic in self._unsent:
            await self._clear(self._names.of(topic, book.exchange, book.symbol))
            await self.publisher.submit_lossless(Submission("new" if book.state == "live" else "state", topic, book))
        self._unsent.clear()
        for trade in self._unsent_trades:
            await self._clear(self._names.trades(trade.exchange, trade.symbol))
            await self.publisher.submit_trade_lossless(trade)
        self._unsent_trades.clear()

    async def _clear(self, name: str) -> None:
        """Remove what an earlier feeder or replay left under a name, once."""
        if name in self._written:
            return
        self._written.add(name)
        await self._control.delete(name)
        if self._names.parse_book(name) is not None:
            await self._control.sadd(self._names.books, name)
