"""All connections that one exchange's symbols need, kept open."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from feeders.events import Topic
from feeders.exchanges.adapter import FeedAdapter, OnSnapshot, Wiring
from feeders.exchanges.venue import Venue
from feeders.feed import FeedCounters
from feeders.reconnect import Keeper, ReconnectPolicy
from feeders.rest_client import RestClient
from feeders.snapshot_fetcher import OnAnswer, SnapshotFetcher
from feeders.standstill import StandstillWatch
from schemas.heartbeat import FeedState
from schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How patient to be. Seconds."""

    heartbeat_interval: float = 30.0
    timeout: float = 10.0
    policy: ReconnectPolicy = field(default_factory=ReconnectPolicy)


class ExchangeFeed:
    """Every book of these symbols, by as many connections as the exchange's limits ask for."""

    def __init__(
        self,
        venue: Venue,
        natives: Sequence[str],
        callback: OnSnapshot,
        wiring: Wiring,
        settings: ConnectionSettings | None = None,
        on_answer: OnAnswer | None = None,
        on_standstill: Callable[[], None] | None = None,
    ) -> None:
        """`on_standstill` is told when this process stood still and everything held was discarded."""
        settings = settings or ConnectionSettings()
        self.venue = venue
        self.natives = tuple(natives)
        self._on_standstill = on_standstill
        self.standstill = StandstillWatch(self._discard)
        self.rest: RestClient = venue.rest(wiring.rest_url or venue.rest_url, settings.timeout)
        self.snapshots = SnapshotFetcher(venue, self.rest, on_answer)
        wiring = replace(wiring, snapshots=self.snapshots, standstill=self.standstill)
        self._keepers: dict[str, Keeper[FeedAdapter]] = {}
        for shard in venue.connections(self.natives, wiring.options):
            line = venue.adapter(shard, callback, settings.heartbeat_interval, settings.timeout, wiring)
            self._keepers |= dict.fromkeys(shard, Keeper(line, settings.policy))
        self.keepers: Sequence[Keeper[FeedAdapter]] = tuple(dict.fromkeys(self._keepers.values()))
        """One for each connection."""

    async def run(self) -> None:
        """Until cancelled. Raises GaveUpError if the reconnect policy has a limit and it is reached."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.snapshots.run())
                for keeper in self.keepers:
                    tasks.create_task(keeper.run())
        finally:
            await self.rest.close()

    @property
    def connected(self) -> int:
        """Connections that are open."""
        return sum(keeper.line.is_connected for keeper in self.keepers)

    @property
    def trouble(self) -> str:
        """What stands between the exchange and its books; empty while every connection is open."""
        lost = [keeper.failure for keeper in self.keepers if not keeper.line.is_connected]
        return (lost[0] or "connecting") if lost else self.snapshots.blocked

    def books(self) -> list[tuple[Topic, str]]:
        """Topic and native symbol of everything that was complete once."""
        return [key for keeper in self.keepers for key in keeper.line.feed.latest]

    def current(self, topic: Topic, native: str) -> OrderBookSnapshot:
        """The newest book, at the id that the exchange's book has reached."""
        return self._keepers[native].line.feed.current(topic, native)

    def states(self) -> dict[str, FeedState]:
        """State of every book by native symbol: `syncing` until it was complete once."""
        return {native: state for keeper in self.keepers for native, state in keeper.line.feed.states().items()}

    def last_sign_of_life(self, native: str) -> float:
        """Monotonic time at which the symbol's connection last delivered a frame or a pong."""
        line = self._keepers[native].line
        return line.last_sign_of_life if line.is_connected else 0.0

    def counters(self) -> FeedCounters:
        """Sums over all connections."""
        total = FeedCounters()
        for keeper in self.keepers:
            total.add(keeper.line.feed.counters)
        return total

    def _discard(self, gap: float) -> None:
        logger.warning("stood still for %.1f s: discarding every book and starting again", gap)
        for keeper in self.keepers:
            keeper.line.discard(gap)
        if self._on_standstill is not None:
            self._on_standstill()
