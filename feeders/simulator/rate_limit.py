"""How many of something are allowed within a sliding window."""

import time
from collections import deque
from collections.abc import Callable


class RateLimit:
    """At most `limit` within `window` seconds. `clock` is monotonic."""

    def __init__(self, limit: int, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._window = window
        self._clock = clock
        self._times: deque[float] = deque()
        self.highest = 0
        """The most that came within one window."""

    @property
    def left(self) -> int:
        """How many are allowed now."""
        self._roll(self._clock())
        return max(0, self._limit - len(self._times))

    def exceeded(self) -> bool:
        """Count one; whether it is one too many."""
        now = self._clock()
        self._roll(now)
        self._times.append(now)
        self.highest = max(self.highest, len(self._times))
        return len(self._times) > self._limit

    def _roll(self, now: float) -> None:
        while self._times and self._times[0] <= now - self._window:
            self._times.popleft()
