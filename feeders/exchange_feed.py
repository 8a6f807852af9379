"""All connections that one exchange's symbols need, kept open."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from bookbus.feeders.books.events import Topic
from bookbus.feeders.exchanges.adapter import FeedAdapter, OnSnapshot, Wiring, adapter_of
from bookbus.feeders.feed import Feed, FeedCounters
from bookbus.feeders.line_group import LineGroup
from bookbus.feeders.reconnect import Keeper, ReconnectPolicy
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.snapshot_fetcher import OnAnswer, SnapshotFetcher
from bookbus.feeders.stall_detector import StandstillWatch
from bookbus.feeders.venue import Venue
from bookbus.schemas.heartbeat import FeedState
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)


STEADY_ATTEMPTS = 10
"""Binance allows an address 300 attempts in five minutes: with fifteen connections these are half of them."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How connections are kept. Times in seconds; `lines` are connections that bring the same symbols."""

    heartbeat_interval: float = 30.0
    timeout: float = 10.0
    policy: ReconnectPolicy = field(default_factory=lambda: ReconnectPolicy(steady=STEADY_ATTEMPTS))
    lines: int = 1


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
        self._adapter = adapter_of(venue)
        self._on_standstill = on_standstill
        self.standstill = StandstillWatch(self._discard)
        self.rest: RestClient = venue.rest(wiring.rest_url or venue.rest_url, settings.timeout)
        self.snapshots = SnapshotFetcher(venue, self.rest, on_answer)
        self._callback = callback
        self._settings = settings
        self._wiring = replace(wiring, snapshots=self.snapshots, standstill=self.standstill)
        self._tasks: asyncio.TaskGroup | None = None
        self._group_of: dict[str, LineGroup] = {}
        self.groups: list[LineGroup] = []
        """One for each set of symbols that fits on a connection."""
        self.add(natives)

    async def run(self) -> None:
        """Until cancelled. Raises GaveUpError if the reconnect policy has a limit and it is reached."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self.snapshots.run())
                for group in self.groups:
                    self._start(tasks, group)
        finally:
            await self.rest.close()

    @property
    def natives(self) -> Sequence[str]:
        """The symbols it has or is getting books of."""
        return tuple(self._group_of)

    @property
    def keepers(self) -> Sequence[Keeper[FeedAdapter]]:
        """One for each connection."""
        return [keeper for group in self.groups for keeper in group.keepers]

    def add(self, natives: Sequence[str]) -> None:
        """Get these symbols' books too, by further connections."""
        settings = self._settings
        for shard in self.venue.connections(natives, self._wiring.options):
            make = partial(self._adapter, shard, self._callback, settings.heartbeat_interval, settings.timeout)
            group = LineGroup(make, self._wiring, settings.lines, settings.policy)
            self.groups.append(group)
            self._group_of |= dict.fromkeys(shard, group)
            if self._tasks is not None:
                self._start(self._tasks, group)

    def drop(self, native: str) -> list[tuple[Topic, OrderBookSnapshot]]:
        """Take no more of a symbol. Returns its books as they were."""
        return self._group_of.pop(native).feed.drop(native)

    @property
    def connected(self) -> int:
        """Connections that are open."""
        return sum(group.connected for group in self.groups)

    @property
    def trouble(self) -> str:
        """What stands between the exchange and its books; empty while each of them has an open connection."""
        lost = [group.keepers[0].failure for group in self.groups if not group.connected]
        return (lost[0] or "connecting") if lost else self.snapshots.blocked

    def feed_of(self, native: str) -> Feed:
        """What holds this symbol's books."""
        return self._group_of[native].feed

    def books(self) -> list[tuple[Topic, str]]:
        """Topic and native symbol of everything that was complete once."""
        return [key for group in self.groups for key in group.feed.latest]

    def current(self, topic: Topic, native: str) -> OrderBookSnapshot:
        """The newest book, at the id that the exchange's book has reached."""
        return self._group_of[native].feed.current(topic, native)

    def is_current(self, topic: Topic, native: str) -> bool:
        """Whether the newest book still is the exchange's, as far as its connection has said."""
        return self._group_of[native].feed.is_current(topic, native)

    def states(self) -> dict[str, FeedState]:
        """State of every book by native symbol: `syncing` until it was complete once."""
        states = {native: state for group in self.groups for native, state in group.feed.states().items()}
        return {native: states[native] for native in self._group_of}

    def last_sign_of_life(self, native: str) -> float:
        """Monotonic time at which a connection of the symbol last delivered a frame or a pong."""
        return self._group_of[native].last_sign_of_life

    def counters(self) -> FeedCounters:
        """Sums over all connections."""
        total = FeedCounters()
        for group in self.groups:
            total.add(group.feed.counters)
        return total

    def _start(self, tasks: asyncio.TaskGroup, group: LineGroup) -> None:
        for keeper in group.keepers:
            tasks.create_task(keeper.run())
        if len(group.keepers) > 1:
            tasks.create_task(group.watch())

    def _discard(self, gap: float) -> None:
        logger.warning("stood still for %.1f s: discarding every book and starting again", gap)
        for group in self.groups:
            group.discard(gap)
        if self._on_standstill is not None:
            self._on_standstill()
