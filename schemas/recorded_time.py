"""Times of a recording, made to rise: a frame far ahead of its neighbours, or a clock set back, moves nothing else."""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")

JUMP = 10.0
"""Seconds between two frames from which a step of the recorder's clock is told from late or early frames."""


class RisingTimes(Generic[Item]):
    """Iterate once over `(recorded time, item)` for `(time, item)`; seconds since 1970.

    A time before the one in front of it becomes that one. After a step back of more than JUMP the rest is moved
    forward, so that time goes on. A time that the next frame does not confirm, since that one is more than JUMP
    before it, does not count; a step forward that the next frame confirms is a hole of the recording, and stays.
    """

    def __init__(self, items: Iterable[tuple[float, Item]]) -> None:
        self.corrected = 0
        """Times that were corrected, not counting those that only follow such a step."""
        self.largest = 0.0
        """The largest correction in seconds."""
        self._items = items

    def __iter__(self) -> Iterator[tuple[float, Item]]:
        last: float | None = None
        offset = 0.0
        items = iter(self._items)
        current = next(items, None)
        while current is not None:
            following = next(items, None)
            recorded, item = current
            time = recorded + offset
            ahead = following is not None and following[0] < recorded - JUMP
            if last is None:
                if ahead and following is not None:
                    self._correct(recorded - following[0])
                    time = following[0]
            elif time < last - JUMP:
                self._correct(last - time)
                offset = max(0.0, last - recorded)
                time = max(recorded + offset, last)  # rounding
            elif time < last:
                self._correct(last - time)
                time = last
            elif time > last + JUMP:
                # Back on the recorder's own clock, if an earlier step had moved it.
                offset = max(0.0, last - recorded)
                time = max(recorded + offset, last)  # rounding
                if ahead and time > last + JUMP:
                    self._correct(time - last)
                    time = last
            last = time
            yield time, item
            current = following

    def _correct(self, seconds: float) -> None:
        self.corrected += 1
        self.largest = max(self.largest, seconds)
