"""A recording onto the bus: every changed book, none conflated, and the books left as they ended."""

import asyncio
import contextlib
from pathlib import Path

from bookbus.feeders.books.events import Topic
from bookbus.feeders.bus.heartbeat import refuse_mixed_prefix
from bookbus.feeders.bus.outbox import Submission
from bookbus.feeders.cluster_publisher import publisher_of
from bookbus.feeders.replay import Pace, ReplayResult, replay
from bookbus.feeders.servers.control_client import control_client
from bookbus.feeders.settings import unique_feeder_id
from bookbus.feeders.venue import FeedOptions
from bookbus.schemas.capture import CaptureFrame
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade

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
        self._pace = Pace(speed)
        self._control = control_client(redis_url)
        self.publisher = publisher_of(redis_url, names, unique_feeder_id("replay", None))
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
