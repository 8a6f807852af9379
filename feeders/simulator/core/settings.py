"""Options and limits of every simulated exchange."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
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


FLUSHES_PER_SECOND = 10
"""The grid of book updates."""


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """Options of one simulated exchange. Raises ValueError for values out of range."""

    MINIMUM_LEVELS: ClassVar[int] = 100

    symbols: tuple[str, ...] | int = ("BTCUSDT", "ETHUSDT")
    """The exchange's own names, or the number of synthetic markets."""
    seed: int = 1
    rate: float = float(FLUSHES_PER_SECOND)
    """Updates a second and symbol, at most one at each point of the grid."""
    changes: int = 20
    """Mutations of the book per update, on average."""
    levels: int = 2000
    """Levels a side of the simulated book; messages may show fewer."""
    host: str = "127.0.0.1"
    port: int = 0
    rest_port: int = 0
    rules: Rules = field(default_factory=Rules)
    rest_delay: float = 0.0
    """Seconds between taking a REST answer from the book and sending it."""
    prepared: float = 0.0
    """Seconds of market computed beforehand and replayed; 0 computes while it runs."""
    truth_flushes: int = 1200
    """Books per symbol that are remembered: two minutes at ten a second, 0.7 kB each."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= FLUSHES_PER_SECOND:
            raise ValueError(f"rate must be between 0 and {FLUSHES_PER_SECOND} updates a second, not {self.rate}")
        for name, least in (("changes", 1), ("levels", self.MINIMUM_LEVELS), ("truth_flushes", 100)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
