"""Fill ratios with confidence intervals for dependent samples, scores of forecasts, percentiles."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bookbus.consumers.paper.calibration.table import Score, Zone
from bookbus.schemas.snapshot import Side

_Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

_BLOCKS = 12
"""Blocks of time that estimate the variance: long enough to be independent, enough to measure how much they differ."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether something happened in a time slot of the tape; several may share a slot."""

    slot: int
    happened: bool


@dataclass(slots=True)
class ZoneOutcomes:
    """Outcomes of one zone's entries and exits."""

    buy: list[Outcome] = field(default_factory=list)
    sell: list[Outcome] = field(default_factory=list)


def share(outcomes: Sequence[Outcome]) -> float | None:
    """Share of outcomes that happened; None without outcomes."""
    return sum(outcome.happened for outcome in outcomes) / len(outcomes) if outcomes else None


def interval(outcomes: Sequence[Outcome]) -> tuple[float, float] | None:
    """The Wilson interval of the share with 95 % confidence, for the effective number of independent outcomes."""
    ratio = share(outcomes)
    if ratio is None:
        return None
    count = len(outcomes) / design_effect(outcomes)
    middle = (ratio + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    reach = _Z / (1 + _Z**2 / count) * math.sqrt(ratio * (1 - ratio) / count + _Z**2 / (4 * count**2))
    return max(min(middle - reach, ratio), 0.0), min(max(middle + reach, ratio), 1.0)


def design_effect(outcomes: Sequence[Outcome]) -> float:
    """How many of these outcomes equal one independent one, from 1: by the variance between blocks of time."""
    ratio = share(outcomes)
    if ratio is None:
        return 1.0
    order = {slot: number for number, slot in enumerate(sorted({outcome.slot for outcome in outcomes}))}
    if ratio in (0.0, 1.0):
        # All outcomes are equal, which says nothing about dependence: count one for each time slot.
        return len(outcomes) / len(order)
    count = min(_BLOCKS, len(order))
    if count < 2:
        return float(len(outcomes))
    blocks = [0.0] * count
    for outcome in outcomes:
        blocks[order[outcome.slot] * count // len(order)] += outcome.happened - ratio
    spread = math.fsum(deviation**2 for deviation in blocks) * count / (count - 1)
    return max(spread / (len(outcomes) * ratio * (1 - ratio)), 1.0)


def percentile(values: Sequence[float], percent: int) -> float | None:
    """By the nearest rank; None without values."""
    if not values:
        return None
    rank = max(-(-len(values) * percent // 100), 1)
    return sorted(values)[rank - 1]


def brier(forecasts: Sequence[tuple[float, bool]]) -> float | None:
    """Mean squared error of probabilities against outcomes (Brier score); None without any."""
    if not forecasts:
        return None
    return math.fsum((probability - happened) ** 2 for probability, happened in forecasts) / len(forecasts)


def log_loss(forecasts: Sequence[tuple[float, bool]], floor: float) -> float | None:
    """Mean negative log-likelihood; probabilities are clamped to [`floor`, 1 − `floor`], so that it stays finite."""
    if not forecasts:
        return None
    held = ((min(max(probability, floor), 1 - floor), happened) for probability, happened in forecasts)
    return -math.fsum(math.log(p if happened else 1 - p) for p, happened in held) / len(forecasts)


def score(zones: Iterable[Zone], outcomes: Mapping[str, ZoneOutcomes], side: Side, base_rate: float | None) -> Score:
    """Score of the zones' ratios as probabilities, against one `base_rate`. Zones without a ratio do not count."""
    forecasts: list[tuple[float, bool]] = []
    most = 1
    for zone in zones:
        ratio = zone.buy_fill_ratio if side == "buy" else zone.sell_fill_ratio
        if ratio is None or zone.zone_id not in outcomes:
            continue
        found = outcomes[zone.zone_id]
        forecasts += [(ratio, outcome.happened) for outcome in (found.buy if side == "buy" else found.sell)]
        most = max(most, zone.buy_samples if side == "buy" else zone.sell_samples)
    # A share of n samples is not more certain than half a sample.
    floor = 0.5 / (most + 1)
    base = [] if base_rate is None else [(base_rate, happened) for _, happened in forecasts]
    ours, theirs = brier(forecasts), brier(base)
    return Score(
        samples=len(forecasts),
        brier=ours,
        base_brier=theirs,
        skill=None if ours is None or not theirs else 1 - ours / theirs,
        log_loss=log_loss(forecasts, floor),
        base_log_loss=log_loss(base, floor),
    )
