"""The true age of the books that a reader calls live: the time since the exchange's own book differs from them."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bookbus.schemas.snapshot import Levels

Timeline = Sequence[tuple[int, int]]
"""Times (microseconds since 1970) at which the exchange's update id changed, and the new ids, oldest first."""

LIVE_LIMIT = 6.0
"""Highest true age in seconds of a live book: 5 s since its confirmation, which may come 1 s after the last frame."""


class Held(NamedTuple):
    """A reader called the book at this update id live, for the last time at `until_us` (microseconds since 1970)."""

    native: str
    update_id: int
    until_us: int


class TrueAges:
    """Collects the live books of one reader and finds those that were too old.

    The reader and the exchange must run on one machine: the wall clock of both is compared.
    """

    def __init__(self, limit: float = LIVE_LIMIT, clock_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.oldest = 0.0
        """The highest age in seconds."""
        self.judged = 0
        """How many ages were computed."""
        self.stale: list[str] = []
        """One text for each book that was called live although it was older than the limit."""
        self._limit = limit
        self._clock_us = clock_us
        self._held: dict[str, Held] = {}
        self._unjudged: list[Held] = []

    def see(self, native: str, update_id: int | None) -> None:
        """The reader calls the book at this update id live now; None if it calls no book of the symbol live."""
        held = self._held.pop(native, None)
        if held is not None and held.update_id != update_id:
            self._unjudged.append(held)
        if update_id is not None:
            self._held[native] = Held(native, update_id, self._clock_us())

    def take(self) -> dict[str, list[Held]]:
        """The live books since the last call, by native symbol; `judge` must follow."""
        unjudged, self._unjudged = [*self._unjudged, *self._held.values()], []
        found: dict[str, list[Held]] = {}
        for held in unjudged:
            found.setdefault(held.native, []).append(held)
        return found

    def judge(
        self, seen: Sequence[Held], timeline: Timeline, levels: Callable[[int], tuple[Levels, Levels] | None]
    ) -> None:
        """Compute the ages of these books of one symbol. `levels` returns the exchange's levels at an update id."""
        for held in seen:
            self.judged += 1
            replaced_us = self._replaced_us(held, timeline, levels)
            age = 0.0 if replaced_us is None else (held.until_us - replaced_us) / 1e6
            self.oldest = max(self.oldest, age)
            if age > self._limit:
                self.stale.append(
                    f"{held.native} at {held.update_id} was live {age:.1f} s after the exchange's changed"
                )

    def since_us(self, seen: Sequence[Held]) -> int:
        """The time from which on `judge` needs the timeline for these books."""
        return min(held.until_us for held in seen) - round(4 * self._limit * 1e6)

    def _replaced_us(
        self, held: Held, timeline: Timeline, levels: Callable[[int], tuple[Levels, Levels] | None]
    ) -> int | None:
        """The time at which the exchange's levels began to differ from this book; None if they do not."""
        backwards = range(len(timeline) - 1, -1, -1)
        at = next((index for index in backwards if timeline[index][1] == held.update_id), None)
        if at is None:
            # The id lies between two of the timeline, like that of a REST snapshot, or before its beginning, or before
            # the first one after the exchange restarted its ids.
            fell = {index for index in backwards[1:] if timeline[index + 1][1] < timeline[index][1]}
            at = next((index for index in backwards if timeline[index][1] < held.update_id or index in fell), -1)
        later = timeline[at + 1 :]
        late = [entry for entry in later if (held.until_us - entry[0]) / 1e6 > self._limit]
        if not late:
            return later[0][0] if later and later[0][0] < held.until_us else None
        own = levels(held.update_id)
        # The update id also changes when only levels below the published depth do.
        return next((time_us for time_us, update_id in late if levels(update_id) != own), None)
