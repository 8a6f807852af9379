"""The connections that carry the same symbols into the same books, each kept open on its own."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bookbus.feeders.books.arbitration import LineRace, LineResult
from bookbus.feeders.exchanges.adapter import FeedAdapter, Wiring
from bookbus.feeders.reconnect import Keeper, ReconnectPolicy
from bookbus.schemas.heartbeat import LineReport

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
        self.race = LineRace(lines) if lines > 1 else None
        first = make(replace(wiring, race=self.race, on_lost=self._lost if lines > 1 else None))
        self.feed = first.feed
        if self.race is not None:
            self.feed.protocol.race = self.race
        others = [make(replace(first.wiring, feed=self.feed, slot=slot)) for slot in range(1, lines)]
        # Planned replacements take turns: there is always a line that is not about to go.
        turn = asyncio.Lock()
        self.keepers: Sequence[Keeper[FeedAdapter]] = [Keeper(line, policy, turn=turn) for line in (first, *others)]
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
        stood_still, self._looked_at = now - self._looked_at > _STOOD_STILL, now
        both = list(zip(self.race.results, self._watched, strict=True))
        # Only what a line brings first is something that the others lack.
        news = any(result.first != watched.first for result, watched in both)
        for slot, (result, watched) in enumerate(both):
            moved = result.updates != watched.updates
            watched.updates, watched.first = result.updates, result.first
            if moved or stood_still:
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
        return self.race.brought_alone(gone.wiring.slot, since_us, now_us - round(SKEW * 1e6))

    def _lines(self) -> list[FeedAdapter]:
        """Every connection, with those about to take over."""
        return [line for keeper in self.keepers for line in keeper.lines]


def line_reports(groups: Sequence[LineGroup]) -> list[LineReport]:
    """What each line brought, over all groups; nothing where there is only one."""
    races = [(group, group.race) for group in groups if group.race is not None]
    slots = range(len(races[0][1].results)) if races else ()
    return [_report(slot, races) for slot in slots]


def _report(slot: int, races: Sequence[tuple[LineGroup, LineRace]]) -> LineReport:
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
