"""All connections to one exchange: one, or several lines with the same updates, for each set of symbols that fits."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache, partial

from bookbus.feeders.books.arbitration import LineResult
from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.books.events import Topic
from bookbus.feeders.exchanges.adapter import FeedAdapter, OnFrame
from bookbus.feeders.feed import Feed, FeedCounters, OnSnapshot, OnTrade
from bookbus.feeders.reconnect import ReconnectingConnection, ReconnectPolicy
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.snapshot_fetcher import OnAnswer, SnapshotFetcher
from bookbus.feeders.stall_detector import StallDetector
from bookbus.feeders.stall_watch import StallWatch
from bookbus.feeders.venue import FeedOptions, Venue
from bookbus.feeders.wall_clock import WallClock
from bookbus.schemas.heartbeat import FeedState, LineReport
from bookbus.schemas.instruments import InstrumentRegistry
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)

STEADY_ATTEMPTS = 10
"""Binance allows an address 300 attempts in five minutes: with fifteen connections these are half of them."""

SILENT_AFTER = 3.0
"""Seconds without an update that another line delivers, after which a line is reported as silent."""

SKEW = 1.0
"""Seconds by which one line may be later than another without lacking anything."""

_CLOCK_CALM = 60.0
"""Seconds after the machine's clock was set, within which the times of updates do not prove what a line delivered."""

_LOOK_INTERVAL = 0.5
_STALLED = 1.5
"""Seconds between two checks after which received updates may not have been processed yet."""

_REPLACE_INTERVAL = 30.0
"""Seconds between two attempts to replace a silent connection."""


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How connections are kept open. Times in seconds; `lines` are connections that deliver the same symbols."""

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
        on_snapshot: OnSnapshot,
        on_trade: OnTrade = lambda _: None,
        *,
        options: FeedOptions | None = None,
        settings: ConnectionSettings | None = None,
        registry: InstrumentRegistry | None = None,
        ws_url: str | None = None,
        rest_url: str | None = None,
        on_frame: OnFrame | None = None,
        on_answer: OnAnswer | None = None,
        on_stall: Callable[[], None] | None = None,
    ) -> None:
        """`on_frame` and `on_answer` get what the exchange sends, for a recording.

        `on_stall` is called after this process stalled and every book was discarded.
        """
        self.venue = venue
        self.stall = StallDetector(self._discard)
        self.clock = WallClock()
        self.groups: list[LineGroup] = []
        """One for each set of symbols that fits on a connection."""
        self._settings = settings = settings or ConnectionSettings()
        self._options = options or FeedOptions()
        self._ws_url = venue.stream_url(ws_url or venue.ws_url)
        self.rest: RestClient = venue.rest(rest_url or venue.rest_url, settings.timeout)
        self.snapshots = SnapshotFetcher(venue.snapshots, self.rest, on_answer)
        self.watch = StallWatch(self.groups, venue.tops, self.rest)
        """Finds streams that stalled although their connections live."""
        # An empty list is false.
        names = registry if registry is not None else InstrumentRegistry(venue.exchange, offline=True)
        self._instrument_of = cache(names.named)
        self._on_snapshot = on_snapshot
        self._on_trade = on_trade
        self._on_frame = on_frame
        self._on_stall = on_stall
        self._tasks: asyncio.TaskGroup | None = None
        self._group_of: dict[str, LineGroup] = {}
        self.add(natives)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self.snapshots.run())
                tasks.create_task(self.watch.run())
                for group in self.groups:
                    self._start(tasks, group)
        finally:
            await self.rest.close()

    @property
    def natives(self) -> Sequence[str]:
        """The symbols it has or is getting books of."""
        return tuple(self._group_of)

    @property
    def connections(self) -> Sequence[ReconnectingConnection[FeedAdapter]]:
        return [connection for group in self.groups for connection in group.connections]

    def add(self, natives: Sequence[str]) -> None:
        """Get these symbols' books too, by further connections."""
        lines = self._settings.lines
        for shard in self.venue.connections(natives, self._options):
            feed = Feed(
                exchange=self.venue.exchange.id,
                books=BookSet(self.venue.protocol(shard, self._options), self.venue.snapshots, lines),
                options=self._options,
                instrument_of=self._instrument_of,
                on_snapshot=self._on_snapshot,
                on_trade=self._on_trade,
                snapshots=self.snapshots,
            )
            group = LineGroup(feed, lines, self._settings.policy, partial(self._adapter, feed), self.clock)
            self.groups.append(group)
            self._group_of |= dict.fromkeys(shard, group)
            if self._tasks is not None:
                self._start(self._tasks, group)

    def drop(self, native: str) -> list[tuple[Topic, OrderBookSnapshot]]:
        """Stop following a symbol. Returns its last books."""
        return self._group_of.pop(native).feed.drop(native)

    @property
    def connected(self) -> int:
        return sum(group.connected for group in self.groups)

    @property
    def error(self) -> str:
        lost = [group.connections[0].failure for group in self.groups if not group.connected]
        return (lost[0] or "connecting") if lost else self.snapshots.blocked

    def feed_of(self, native: str) -> Feed:
        return self._group_of[native].feed

    def invalidate(self, native: str, reason: str, received_us: int) -> None:
        """A comparison showed that a book is not the exchange's: lose it, and ask for it again."""
        group = self._group_of[native]
        group.feed.invalidate(native, reason, received_us)
        group.ask_again_soon()

    def books(self) -> list[tuple[Topic, str]]:
        """Topic and native symbol of everything that was complete once."""
        return [key for group in self.groups for key in group.feed.latest]

    def current(self, topic: Topic, native: str) -> OrderBookSnapshot:
        """The newest book, at the id that the exchange's book has reached."""
        return self._group_of[native].feed.current(topic, native)

    def is_current(self, topic: Topic, native: str) -> bool:
        """Whether no update is known that the newest book lacks."""
        return self._group_of[native].feed.is_current(topic, native)

    def states(self) -> dict[str, FeedState]:
        """State of every book by native symbol: `syncing` until it was complete once; empty without the book topic."""
        states = {native: state for group in self.groups for native, state in group.feed.states().items()}
        return {native: states[native] for native in self._group_of if native in states}

    def last_sign_of_life(self, native: str, topic: Topic = "book") -> float:
        """Monotonic time of the last frame or pong of its connection, or since which its stream may have stalled."""
        group = self._group_of[native]
        held = self.watch.held_since(group, topic, native)
        return group.last_sign_of_life if held is None else min(held, group.last_sign_of_life)

    def counters(self) -> FeedCounters:
        total = FeedCounters()
        for group in self.groups:
            total.add(group.feed.counters)
        return total

    def _adapter(self, feed: Feed, slot: int, on_lost: "OnLost | None") -> FeedAdapter:
        return FeedAdapter(
            self.venue,
            feed,
            self._ws_url,
            self.stall,
            self._settings.heartbeat_interval,
            self._settings.timeout,
            slot=slot,
            on_frame=self._on_frame,
            on_lost=on_lost,
        )

    def _start(self, tasks: asyncio.TaskGroup, group: "LineGroup") -> None:
        for connection in group.connections:
            tasks.create_task(connection.run())
        if len(group.connections) > 1:
            tasks.create_task(group.watch())

    def _discard(self, gap: float) -> None:
        logger.warning("this process stalled for %.1f s: discarding every book and starting again", gap)
        for group in self.groups:
            group.discard(gap)
        if self._on_stall is not None:
            self._on_stall()


OnLost = Callable[[FeedAdapter], None]


class LineGroup:
    """One line, or several that each deliver every update; the first copy of an update is used."""

    def __init__(
        self,
        feed: Feed,
        lines: int,
        policy: ReconnectPolicy,
        make: Callable[[int, OnLost | None], FeedAdapter],
        clock: WallClock,
    ) -> None:
        """`make(slot, on_lost)` returns a connection of `feed` that is not open yet."""
        self.feed = feed
        self._clock = clock
        # Planned replacements take turns: there is always a line that is not about to go.
        turn = asyncio.Lock()
        on_lost = self._lost if lines > 1 else None
        self.connections: Sequence[ReconnectingConnection[FeedAdapter]] = [
            ReconnectingConnection(make(slot, on_lost), policy, turn=turn) for slot in range(lines)
        ]
        self._silence = [_Silence() for _ in self.connections]
        self._looked_at = 0.0

    @property
    def connected(self) -> int:
        return sum(connection.line.is_connected for connection in self.connections)

    @property
    def last_sign_of_life(self) -> float:
        """Monotonic time at which a line that delivers every update last delivered a frame or a pong."""
        lines = [connection.line for connection in self.connections]
        return max((line.last_sign_of_life for line in lines if line.is_connected and line.ready.is_set()), default=0.0)

    @property
    def silent(self) -> Sequence[bool]:
        """Of each line, whether it delivers nothing while another delivers updates."""
        return [silence.reported for silence in self._silence]

    def discard(self, gap: float) -> None:
        """This process stalled for `gap` seconds: every connection ends, also one that is about to take over."""
        for line in self._lines():
            line.discard(gap)

    def ask_again_soon(self) -> None:
        """Subscribe again to books that are missing and wait for no snapshot."""
        for line in self._lines():
            line.ask_again_soon()

    def abandon(self, reason: str) -> None:
        """End every line: all its books are lost, and the lines are opened again."""
        for line in self._lines():
            line.abandon(reason)

    def subscribe_again(self, natives: Sequence[str]) -> None:
        """Subscribe to these symbols again on every line."""
        for line in self._lines():
            line.subscribe_again(natives)

    def replace(self) -> None:
        """Replace every line without a gap, one after another."""
        for connection in self.connections:
            connection.line.replace_wanted.set()

    async def watch(self) -> None:
        """Look for silent lines, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self.look(loop.time())
            await asyncio.sleep(_LOOK_INTERVAL)

    def look(self, now: float) -> None:
        """Compare what the lines delivered since the last check."""
        arbiter = self.feed.books.arbiter
        if arbiter is None:
            return
        stalled, self._looked_at = now - self._looked_at > _STALLED, now
        both = list(zip(arbiter.results, self._silence, strict=True))
        # Only updates that a line delivers first are missing on the others.
        is_news = any(result.first != silence.first for result, silence in both)
        for slot, (result, silence) in enumerate(both):
            moved = result.updates != silence.updates
            silence.updates, silence.first = result.updates, result.first
            if moved or stalled:
                silence.behind_since = None
            elif silence.behind_since is None and is_news:
                silence.behind_since = now
            self._judge(slot, silence, moved=moved, now=now)

    def _judge(self, slot: int, silence: "_Silence", *, moved: bool, now: float) -> None:
        exchange, connection = self.feed.exchange, self.connections[slot]
        if silence.reported and moved:
            silence.reported = False
            logger.info("%s: line %d delivers updates again", exchange, slot + 1)
        if silence.behind_since is None or now - silence.behind_since < SILENT_AFTER:
            return
        if not silence.reported:
            silence.reported = True
            cause = "" if connection.line.is_connected else f": {connection.failure or 'not connected yet'}"
            logger.warning("%s: line %d delivers nothing while another delivers updates%s", exchange, slot + 1, cause)
        if connection.line.is_connected and now - silence.replaced_at >= _REPLACE_INTERVAL:
            silence.replaced_at = now
            connection.line.replace_wanted.set()

    def _lost(self, failed: FeedAdapter) -> None:
        """A line failed. The books stay live only if another line delivered every update while this one still did."""
        others = [line for line in self._lines() if line is not failed and line.is_connected and line.ready.is_set()]
        reason = "opened after the other line went silent: updates between may be missing"
        proven = any(line.ready_at <= failed.last_sign_of_life for line in others)
        self._clock.check()
        if proven and time.monotonic() - self._clock.set_at < _CLOCK_CALM:
            proven, reason = False, "this machine's clock was just set: which line delivered what is not known"
        since = max(min((line.ready_at for line in others), default=0.0), self._clock.set_at)
        if proven and (lacking := self._seen_only_by(failed, since)):
            proven, reason = False, f"never delivered {', '.join(lacking[:5])} as the other line did"
        for line in others:
            line.ask_again_soon()
            if not proven:
                line.abandon(reason)

    def _seen_only_by(self, failed: FeedAdapter, since: float) -> list[str]:
        """Symbols that only this line has delivered since `since` (monotonic), except in the last `SKEW` seconds."""
        arbiter = self.feed.books.arbiter
        assert arbiter is not None  # noqa: S101 - with a single line no other one is left
        now_us, now = time.time_ns() // 1000, time.monotonic()
        since_us = now_us - round((now - since - SKEW) * 1e6)
        return arbiter.seen_only_by(failed.slot, since_us, now_us - round(SKEW * 1e6))

    def _lines(self) -> list[FeedAdapter]:
        """Every connection, with those about to take over."""
        return [line for connection in self.connections for line in connection.lines]


def line_reports(groups: Sequence[LineGroup]) -> list[LineReport]:
    """What each line delivered in all groups; empty with only one line."""
    lines = len(groups[0].connections) if groups else 0
    return [_report(slot, groups) for slot in range(lines)] if lines > 1 else []


@dataclass(slots=True)
class _Silence:
    """State of one line for detecting silence."""

    updates: int = 0
    first: int = 0
    behind_since: float | None = None
    reported: bool = False
    replaced_at: float = 0.0


def _report(slot: int, groups: Sequence[LineGroup]) -> LineReport:
    connections, total = [group.connections[slot] for group in groups], LineResult()
    for group in groups:
        if group.feed.books.arbiter is not None:
            total.add(group.feed.books.arbiter.results[slot])
    return LineReport(
        line=slot + 1,
        connections=len(connections),
        open=sum(connection.line.is_connected for connection in connections),
        reconnects=sum(connection.reconnects for connection in connections),
        updates=total.updates,
        first=total.first,
        lead_median_ms=total.lead_ms(0.5),
        lead_p99_ms=total.lead_ms(0.99),
        silent=any(group.silent[slot] for group in groups),
    )
