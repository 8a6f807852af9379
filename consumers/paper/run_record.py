"""What a run counts while it goes, and the figures at its end."""

import math
from collections import Counter
from dataclasses import dataclass, field

import msgspec

from bookbus.consumers.paper.market import VenueQuote


@dataclass(slots=True)
class Gap:
    """Times in which a symbol's book could not be traded on."""

    count: int = 0
    longest: float = 0.0
    since: float | None = None

    def observe(self, now: float, tradable: bool) -> None:
        """How it is now."""
        if tradable:
            self.since = None
            return
        if self.since is None:
            self.count, self.since = self.count + 1, now
        self.longest = max(self.longest, now - self.since)


@dataclass(slots=True)
class RunRecord:
    """Counts of one run."""

    decisions: int = 0
    entries: int = 0
    closed: int = 0
    wins: int = 0
    steps: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    unfilled: Counter[str] = field(default_factory=Counter)
    """Orders that got nothing, by the fill model's reason."""
    blocked_exits: Counter[str] = field(default_factory=Counter)
    """Positions that could not be sold when they should have been."""
    traded_on: Counter[str] = field(default_factory=Counter)
    """Orders by the status of the book they were decided on."""
    ages: list[float] = field(default_factory=list)
    """Seconds since the last confirmation of each book that was decided on."""
    gaps: dict[str, Gap] = field(default_factory=dict)
    advised: list[tuple[float, bool]] = field(default_factory=list)
    """What the calibration expected of each entry, and whether it was filled."""

    def used(self, quote: VenueQuote) -> None:
        """An order goes by this book."""
        self.traded_on[quote.status] += 1
        if quote.age is not None:
            self.ages.append(quote.age)


class Ages(msgspec.Struct, frozen=True):
    """Milliseconds; None if there was none."""

    count: int
    p50: float | None
    p99: float | None
    max: float | None


def ages_of(seconds: list[float]) -> Ages:
    """Percentiles by the nearest rank."""
    if not seconds:
        return Ages(0, None, None, None)
    ordered = sorted(seconds)

    def rank(share: int) -> float:
        return round(ordered[max(math.ceil(len(ordered) * share / 100), 1) - 1] * 1e3, 3)

    return Ages(len(ordered), rank(50), rank(99), rank(100))


def brier(advised: list[tuple[float, bool]]) -> float | None:
    """Mean squared error of the expectations: 0 is a prophet, 0.25 a coin."""
    if not advised:
        return None
    return math.fsum((expected - filled) ** 2 for expected, filled in advised) / len(advised)
