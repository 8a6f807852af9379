"""Limits of a simulated exchange: their settings, requests within a window, bans."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import ClassVar, Self


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Limits that every exchange has; times in seconds."""

    FIXED: ClassVar[tuple[str, ...]] = ()
    """Durations that a faster clock does not change."""

    connects: int = 300
    """Handshakes within `connect_window`, refused ones included."""
    connect_window: float = 300.0

    def scaled(self, speed: float) -> Self:
        """The same rules on a clock that runs `speed` times as fast."""
        durations = [field.name for field in fields(self) if field.type is float and field.name not in self.FIXED]
        return replace(self, **{name: getattr(self, name) / speed for name in durations})


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


class Bans:
    """Bans one address after `allowed` refusals. Each further ban, and each request while banned, makes it longer."""

    def __init__(self, allowed: int, seconds: float) -> None:
        self.refusals = 0
        """Refusals that count; the exchange sets it back when its window ends."""
        self._allowed = allowed
        self._seconds = seconds
        self._bans = 0
        self._until = 0.0

    def check(self, now: float) -> float:
        """Seconds that a request at `now` is still banned for; 0 if it is not."""
        return self._extend(now) if now < self._until else 0.0

    def refuse(self, now: float) -> float:
        """Count a refusal. Returns the seconds of the ban that follows, 0 if none does."""
        self.refusals += 1
        if self.refusals <= self._allowed:
            return 0.0
        self._bans += 1
        return self._extend(now)

    def _extend(self, now: float) -> float:
        self._until = max(self._until, now + self._seconds * self._bans)
        return self._until - now
