"""Notices that this process stood still, by suspend, SIGSTOP or a blocked loop."""

import time
from collections.abc import Callable

LIMIT = 5.0
"""Seconds after which nothing that was held may be believed or sent."""


def boot_clock() -> float:
    """Seconds on a clock that goes on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class StallDetector:
    """Every part that acts calls `beat()` first; after a gap the holder discards before anything else happens."""

    def __init__(self, on_standstill: Callable[[float], None], clock: Callable[[], float] = boot_clock) -> None:
        self._on_standstill = on_standstill
        self._clock = clock
        self._last = clock()

    def beat(self) -> None:
        """Called at least once a second by a timer, and before any message is taken or sent."""
        now = self._clock()
        gap, self._last = now - self._last, now
        if gap > LIMIT:
            self._on_standstill(gap)
