"""Notices that this process stalled: it was suspended, stopped by SIGSTOP, or its loop was blocked."""

import time
from collections.abc import Callable

LIMIT = 5.0
"""Seconds between two beats; after a longer gap, books and queued messages are too old to be sent."""


def boot_clock() -> float:
    """Seconds on a clock that keeps running while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class StallDetector:
    """Call `beat()` before every action: after a gap it first calls `on_stall`, which discards old data."""

    def __init__(self, on_stall: Callable[[float], None], clock: Callable[[], float] = boot_clock) -> None:
        self._on_stall = on_stall
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """Called at least once a second by a timer, and before any message is taken or sent."""
        now = self._clock()
        gap, self._last = now - self._last, now
        if gap > LIMIT:
            self._on_stall(gap)
