"""All connections that one exchange's symbols need, kept open."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from bookbus.feeders.books.arbitration import LineArbiter, LineResult
from bookbus.feeders.books.events import Topic
from bookbus.feeders.exchanges.adapter import FeedAdapter, OnSnapshot, Wiring, adapter_of
from bookbus.feeders.feed import Feed, FeedCounters
from bookbus.feeders.reconnect import ReconnectingConnection, ReconnectPolicy
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.snapshot_fetcher import OnAnswer, SnapshotFetcher
from bookbus.feeders.stall_detector import StallDetector
from bookbus.feeders.venue import Venue
from bookbus.schemas.heartbeat import FeedState, LineReport
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)

SILENT_AFTER = 3.0
"""Seconds in which a line brings nothing of what another one brings, after which that is told."""

SKEW = 1.0
"""Seconds by which one line may be later than another without lacking anything."""

_LOOK_INTERVAL = 0.5
_STOOD_STILL = 1.5
"""Seconds between two looks after which what the lines brought meanwhile may not have been taken yet."""

_REPLACE_INTERVAL = 30.0
"""Seconds between two attempts to replace a silent connection."""


@dataclass(slots=True)
class _Watched:
    """What is known of one line's silence."""

    updates: int = 0
    first: int = 0
    behind_since: float | None = None
    silent: bool = False
    replaced_at: float = 0.0


class LineGroup:
    """One line, or several of which each brings every update; the first to bring one is taken."""

    def __init__(
        self, make: Callable[[Wiring], FeedAdapter], wiring: Wiring, lines: int, policy: ReconnectPolicy
    ) -> None:
        """`make` opens nothing yet. The lines share the books of the first."""
        self.race = LineArbiter(lines) if lines > 1 else None
        first = make(replace(wiring, race=self.race, on_lost=self._lost if lines > 1 else None))
        self.feed = first.feed
        if self.race is not None:
            self.feed.protocol.race = self.race
        others = [make(replace(first.wiring, feed=self.feed, slot=slot)) for slot in range(1, lines)]
        # Planned replacements take turns: there is always a line that is not about to go.
        turn = asyncio.Lock()
        self.keepers: Sequence[ReconnectingConnection[FeedAdapter]] = [
            ReconnectingConnection(line, policy, turn=turn) for line in (first, *others)
        ]
        self._watched = [_Watched() for _ in self.keepers]
        self._looked_at = 0.0

    @property
    def connected(self) -> int:
        """Connections that are open."""
        return sum(keeper.line.is_connected for keeper in self.keepers)

    @property
    def last_sign_of_life(self) -> float:
        """Monotonic time at which a line that brings every update last delivered a frame or a pong."""
        lines = [keeper.line for keeper in self.keepers]
        return max((line.last_sign_of_life for line in lines if line.is_connected and line.ready.is_set()), default=0.0)

    @property
    def silent(self) -> Sequence[bool]:
        """Of each line, whether it brings nothing while another brings updates."""
        return [watched.silent for watched in self._watched]

    def discard(self, gap: float) -> None:
        """This process stood still for `gap` seconds: no connection goes on, not the one about to take over either."""
        for line in self._lines():
            line.discard(gap)

    async def watch(self) -> None:
        """Look for silent lines, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self.look(loop.time())
            await asyncio.sleep(_LOOK_INTERVAL)

    def look(self, now: float) -> None:
        """Compare what the lines brought since the last look."""
        if self.race is None:
            return
        stalled, self._looked_at = now - self._looked_at > _STOOD_STILL, now
        both = list(zip(self.race.results, self._watched, strict=True))
        # Only what a line brings first is something that the others lack.
        news = any(result.first != watched.first for result, watched in both)
        for slot, (result, watched) in enumerate(both):
            moved = result.updates != watched.updates
            watched.updates, watched.first = result.updates, result.first
            if moved or stalled:
                watched.behind_since = None
            elif watched.behind_since is None and news:
                watched.behind_since = now
            self._judge(slot, watched, moved=moved, now=now)

    def _judge(self, slot: int, watched: _Watched, *, moved: bool, now: float) -> None:
        exchange, keeper = self.feed.exchange, self.keepers[slot]
        if watched.silent and moved:
            watched.silent = False
            logger.info("%s: line %d brings updates again", exchange, slot + 1)
        if watched.behind_since is None or now - watched.behind_since < SILENT_AFTER:
            return
        if not watched.silent:
            watched.silent = True
            cause = "" if keeper.line.is_connected else f": {keeper.failure or 'not connected yet'}"
            logger.warning("%s: line %d brings nothing while another brings updates%s", exchange, slot + 1, cause)
        if keeper.line.is_connected and now - watched.replaced_at >= _REPLACE_INTERVAL:
            watched.replaced_at = now
            keeper.line.replace_wanted.set()

    def _lost(self, gone: FeedAdapter) -> None:
        """A line failed. The books live on only if another brought every update while it still did."""
        others = [line for line in self._lines() if line is not gone and line.is_connected and line.ready.is_set()]
        reason = "opened after the other line had gone silent: updates between may be missing"
        proven = any(line.ready_at <= gone.last_sign_of_life for line in others)
        if proven and (lacking := self._brought_alone(gone, min(line.ready_at for line in others))):
            proven, reason = False, f"never brought {', '.join(lacking[:5])} as the other line did"
        for line in others:
            line.ask_again_soon()
            if not proven:
                line.abandon(reason)

    def _brought_alone(self, gone: FeedAdapter, since: float) -> list[str]:
        """Symbols that only this line has brought since that (monotonic) time, but for what may be on its way."""
        assert self.race is not None  # noqa: S101 - a single line leaves none behind
        now_us, now = time.time_ns() // 1000, time.monotonic()
        since_us = now_us - round((now - since - SKEW) * 1e6)
        return self.race.seen_only_by(gone.wiring.slot, since_us, now_us - round(SKEW * 1e6))

    def _lines(self) -> list[FeedAdapter]:
        """Every connection, with those about to take over."""
        return [line for keeper in self.keepers for line in keeper.lines]


def line_reports(groups: Sequence[LineGroup]) -> list[LineReport]:
    """What each line brought, over all groups; nothing where there is only one."""
    races = [(group, group.race) for group in groups if group.race is not None]
    slots = range(len(races[0][1].results)) if races else ()
    return [_report(slot, races) for slot in slots]


def _report(slot: int, races: Sequence[tuple[LineGroup, LineArbiter]]) -> LineReport:
    keepers, total = [group.keepers[slot] for group, _ in races], LineResult()
    for _, race in races:
        total.add(race.results[slot])
    return LineReport(
        line=slot + 1,
        connections=len(keepers),
        open=sum(keeper.line.is_connected for keeper in keepers),
        reconnects=sum(keeper.reconnects for keeper in keepers),
        updates=total.updates,
        first=total.first,
        lead_median_ms=total.lead_ms(0.5),
        lead_p99_ms=total.lead_ms(0.99),
        silent=any(group.silent[slot] for group, _ in races),
    )


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
        self.stall = StallDetector(self._discard)
        self.rest: RestClient = venue.rest(wiring.rest_url or venue.rest_url, settings.timeout)
        self.snapshots = SnapshotFetcher(venue, self.rest, on_answer)
        self._callback = callback
        self._settings = settings
        self._wiring = replace(wiring, snapshots=self.snapshots, stall=self.stall)
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
    def keepers(self) -> Sequence[ReconnectingConnection[FeedAdapter]]:
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
