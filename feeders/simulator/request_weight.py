"""Binance's REST weight: what an address has used, and when it is told to stop."""

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

from bookbus.feeders.simulator.binance.settings import BinanceRules


class Verdict(NamedTuple):
    """What a request is answered with for its weight: 200, 429 or 418; `retry_after` in whole seconds."""

    status: int
    retry_after: int


class RequestWeight:
    """One address's budget. `clock` is monotonic."""

    def __init__(self, rules: BinanceRules, clock: Callable[[], float]) -> None:
        self._rules = rules
        self._clock = clock
        self._window_end = clock() + rules.weight_window
        self._refused = 0
        self._banned_until = 0.0
        self._bans = 0
        self._used = 0
        self.highest = 0
        """Most weight used in one window."""
        self.total = 0
        """Weight used since the start."""

    @property
    def used(self) -> int:
        """Weight used in the running window."""
        self._roll()
        return self._used

    def charge(self, weight: int) -> Verdict:
        """Count a request."""
        self._roll()
        now = self._clock()
        if now < self._banned_until:
            return self._ban(now)
        self._used += weight
        self.total += weight
        self.highest = max(self.highest, self._used)
        if self._used <= self._rules.weight:
            return Verdict(200, 0)
        self._refused += 1
        if self._refused > self._rules.requests_until_ban:
            self._bans += 1
            return self._ban(now)
        return Verdict(429, ceil(self._window_end - now))

    def _ban(self, now: float) -> Verdict:
        """Asking while banned makes it longer."""
        self._banned_until = max(self._banned_until, now + self._rules.ban * self._bans)
        return Verdict(418, ceil(self._banned_until - now))

    def _roll(self) -> None:
        now = self._clock()
        if now >= self._window_end:
            self._window_end = now + self._rules.weight_window
            self._used = self._refused = 0
