"""Whether two samples come from one distribution, and how far apart they are."""

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

PERMUTATIONS = 1999
MINIMUM_COUNT = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """`ks` is the greatest distance of the two distribution functions, from 0 to 1.

    `delta` (Cliff's) is the share of pairs in which the second is greater less the share in which it is smaller,
    from −1 to 1. Each `p` is how likely so great a difference is if both were one; values that depend on their
    neighbours in time make it too small.
    """

    ks: float
    ks_p: float
    delta: float
    mann_whitney_p: float

    @property
    def size(self) -> str:
        """The usual words for `delta`."""
        limits = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))
        return next((word for limit, word in limits if abs(self.delta) < limit), "large")


def compare_samples(one: Sequence[float], other: Sequence[float], seed: int = 42) -> Difference | None:
    """None if a sample is too small to tell anything."""
    if min(len(one), len(other)) < MINIMUM_COUNT:
        return None
    delta, mann_whitney_p = mann_whitney(one, other)
    ks, ks_p = kolmogorov_smirnov(one, other, seed)
    return Difference(ks, ks_p, delta, mann_whitney_p)


def kolmogorov_smirnov(one: Sequence[float], other: Sequence[float], seed: int = 42) -> tuple[float, float]:
    """The statistic, and its p by permutation, which holds for ties and small samples too."""
    labelled = sorted([(value, True) for value in one] + [(value, False) for value in other])
    values = [value for value, _ in labelled]
    labels = [first for _, first in labelled]
    last_of_tie = [here != after for here, after in zip(values, [*values[1:], math.nan], strict=True)]
    observed = _greatest_distance(labels, last_of_tie, len(one), len(other))
    shuffle = random.Random(seed).shuffle  # noqa: S311
    as_great = 0
    for _ in range(PERMUTATIONS):
        shuffle(labels)
        as_great += _greatest_distance(labels, last_of_tie, len(one), len(other)) >= observed
    return observed / (len(one) * len(other)), (as_great + 1) / (PERMUTATIONS + 1)


def mann_whitney(one: Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    """Cliff's delta, and the two-sided p of the normal approximation, corrected for ties and continuity."""
    ties = Counter([*one, *other])
    rank: dict[float, float] = {}
    below = 0
    for value in sorted(ties):
        rank[value] = below + (ties[value] + 1) / 2
        below += ties[value]
    first, second, both = len(one), len(other), below
    greater = math.fsum(rank[value] for value in other) - second * (second + 1) / 2
    delta = 2 * greater / (first * second) - 1
    tied = sum(count**3 - count for count in ties.values()) / (both * (both - 1))
    variance = first * second / 12 * (both + 1 - tied)
    if variance <= 0:
        return delta, 1.0
    distance = max(abs(greater - first * second / 2) - 0.5, 0.0)
    return delta, math.erfc(distance / math.sqrt(2 * variance))


def _greatest_distance(labels: Sequence[bool], last_of_tie: Sequence[bool], first: int, second: int) -> int:
    """Of the distribution functions, times the product of the counts, which keeps it exact."""
    distance = greatest = 0
    for label, last in zip(labels, last_of_tie, strict=True):
        distance += second if label else -first
        if last and abs(distance) > greatest:
            greatest = abs(distance)
    return greatest
