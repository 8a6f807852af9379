"""The true age of the books that a reader has as live: how long ago the exchange's own book became another one."""

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bookbus.schemas.snapshot import Levels

Timeline = Sequence[tuple[int, int]]
"""Times (microseconds since 1970) at which the exchange's book became another one, and that book's id, oldest first."""

LIVE_LIMIT = 6.0
"""Seconds: a reader's limit of 5 s since the last confirmation, and one for the way from the exchange."""


class Held(NamedTuple):
    """A reader had the book at this id as live; `until_us` is the last time that it was seen so."""

    native: str
    update_id: int
    until_us: int


class TrueAges:
    """Collects the live books of one reader and finds those that were too old. Times are those of this machine."""

    def __init__(self, limit: float = LIVE_LIMIT, clock_us: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.oldest = 0.0
        """The highest age found, in seconds."""
        self.judged = 0
        self.stale: list[str] = []
        """Books that were live beyond the limit."""
        self._limit = limit
        self._clock_us = clock_us
        self._held: dict[str, Held] = {}
        self._unjudged: list[Held] = []

    def see(self, native: str, update_id: int | None) -> None:
        """The reader has this book as live now; None if it has none that is live."""
        held = self._held.pop(native, None)
        if held is not None and held.update_id != update_id:
            self._unjudged.append(held)
        if update_id is not None:
            self._held[native] = Held(native, update_id, self._clock_us())

    def take(self) -> dict[str, list[Held]]:
        """What was seen since the last call and is to be judged, by native symbol."""
        unjudged, self._unjudged = [*self._unjudged, *self._held.values()], []
        found: dict[str, list[Held]] = {}
        for held in unjudged:
            found.setdefault(held.native, []).append(held)
        return found

    def judge(
        self, seen: Sequence[Held], timeline: Timeline, levels: Callable[[int], tuple[Levels, Levels] | None]
    ) -> None:
        """Compare books of one symbol with the exchange's; `levels` are its own at an id, as deep as published."""
        for held in seen:
            self.judged += 1
            replaced_us = self._replaced_us(held, timeline, levels)
            age = 0.0 if replaced_us is None else (held.until_us - replaced_us) / 1e6
            self.oldest = max(self.oldest, age)
            if age > self._limit:
                self.stale.append(f"{held.native} at {held.update_id} is live {age:.1f} s after it was another book")

    def since_us(self, seen: Sequence[Held]) -> int:
        """From when on a timeline is needed to judge these."""
        return min(held.until_us for held in seen) - round(4 * self._limit * 1e6)

    def _replaced_us(
        self, held: Held, timeline: Timeline, levels: Callable[[int], tuple[Levels, Levels] | None]
    ) -> int | None:
        """When the exchange's levels became others than these; None if they are not known to be."""
        backwards = range(len(timeline) - 1, -1, -1)
        at = next((index for index in backwards if timeline[index][1] == held.update_id), None)
        if at is None:
            # Between two of the exchange's own messages, like a snapshot on request; or older than the timeline.
            at = next((index for index in backwards if timeline[index][1] < held.update_id), -1)
        later = timeline[at + 1 :]
        late = [entry for entry in later if (held.until_us - entry[0]) / 1e6 > self._limit]
        if not late:
            return later[0][0] if later and later[0][0] < held.until_us else None
        own = levels(held.update_id)
        # Levels below the published ones change without a new message.
        return next((time_us for time_us, update_id in late if levels(update_id) != own), None)
