"""A recording through the same pure core, at its own pace or another, deterministically."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bookbus.feeders.books.events import SnapshotNeeded, Topic
from bookbus.feeders.capture_file import CaptureFile
from bookbus.feeders.feed import Feed, FeedCounters
from bookbus.feeders.venue import FeedOptions, venue_of
from bookbus.schemas.capture import CaptureFrame
from bookbus.schemas.heartbeat import FeedState
from bookbus.schemas.instruments import Instrument, InstrumentRegistry
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


class Unanswered:
    """What the recording does not answer stays unanswered."""

    def ask(self, need: SnapshotNeeded, feed: Feed) -> None:
        """No request leaves a replay; when the recording's own left is not known, so it may have been now."""
        feed.expect_answer(need.native)

    def is_pending(self, native: str) -> bool:
        """An answer may still stand in the recording."""
        return True

    def answers_soon(self, native: str) -> bool:
        """Nobody knows."""
        return False


class Pace:
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
    feed = Feed(exchange, venue.protocol(natives, options), options, resolve, on_book, on_trade, Unanswered())
    feed.open_line(_LINE)
    return feed
