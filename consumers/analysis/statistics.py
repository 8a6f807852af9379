"""Statistics of a run's fill events."""

import math
import random
import statistics
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from bookbus.consumers.analysis.run_files import RunFiles
from bookbus.consumers.paper.calibration.statistics import Outcome, interval, share
from bookbus.consumers.paper.fills.model import FillReason
from bookbus.consumers.paper.records import DecisionEvent, FillEvent
from bookbus.consumers.paper.settings import PASSIVE_MODELS
from bookbus.schemas.snapshot import Side

SIDES: tuple[Side, ...] = ("buy", "sell")
MEASURES = {
    "available_volume": "available volume",
    "fill_ratio": "fill ratio",
    "slippage_bps": "slippage, bps",
}

NO_ZONE = "no zone"
PERMUTATIONS = 1999
MINIMUM_COUNT = 2


@dataclass(frozen=True, slots=True)
class Summary:
    """`std` is the sample standard deviation (n − 1); figures that need more values are None."""

    count: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    median: float | None = None
    std: float | None = None


class VenueSymbol(NamedTuple):
    """A symbol on one exchange."""

    exchange: str
    symbol: str

    def __str__(self) -> str:
        return f"{self.symbol} on {self.exchange}"


@dataclass(frozen=True, slots=True)
class ZoneFigures:
    """Fill ratio of a zone's entries or exits with its 95 % interval, and the ratio that the model expected.

    As a table counts: `buy` are entries that were filled whole, `sell` positions of those that left by take-profit
    alone.
    """

    zone_id: str
    side: Side
    count: int
    ratio: float | None
    interval: tuple[float, float] | None
    expected: float | None
    mean_fill_ratio: float | None


class ObservedMid(NamedTuple):
    """A mid price and its time in seconds since 1970."""

    time: float
    market: VenueSymbol
    mid: float


class PnlPoint(NamedTuple):
    """PnL at a time in seconds since 1970, in the run's quote currency."""

    time: float
    after_fees: float
    before_fees: float


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
        """The usual size classes of `delta`."""
        limits = ((0.147, "negligible"), (0.33, "small"), (0.474, "medium"))
        return next((word for limit, word in limits if abs(self.delta) < limit), "large")


def summarize(values: Sequence[float]) -> Summary:
    if not values:
        return Summary(0)
    low, high = min(values), max(values)
    # Rounding may put the mean of equal values outside their range.
    mean = min(max(statistics.fmean(values), low), high)
    std = statistics.stdev(values) if len(values) > 1 else None
    return Summary(len(values), low, high, mean, statistics.median(values), std)


def measured(events: Iterable[FillEvent], measure: str, side: Side) -> list[float]:
    """The known values of one field for one side."""
    values = (getattr(event, measure) for event in events if event.side == side)
    return [value for value in values if value is not None]


def volumes_by_market(events: Iterable[FillEvent], side: Side) -> dict[VenueSymbol, list[float]]:
    """The known available volumes of one side."""
    found: dict[VenueSymbol, list[float]] = defaultdict(list)
    for event in events:
        if event.side == side and event.available_volume is not None:
            found[VenueSymbol(event.exchange, event.symbol)].append(event.available_volume)
    return dict(found)


def relative_spread(groups: Iterable[Sequence[float]]) -> float | None:
    """std/mean within groups; differences between groups do not count.

    For one group this is its std/mean. None where no group has two values, or where a mean is zero.
    """
    squares, freedom = 0.0, 0
    for values in groups:
        mean = statistics.fmean(values)
        if mean == 0:
            return None
        squares += math.fsum((value / mean - 1) ** 2 for value in values)
        freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else None


def ages(events: Iterable[FillEvent]) -> list[float]:
    """Known ages in milliseconds of the books that orders were decided on."""
    return [event.book_age_ms for event in events if event.book_age_ms is not None]


def by_zone(run: RunFiles) -> list[ZoneFigures]:
    """Figures of each zone's entries and exits, by zone name."""
    trades: dict[str, list[FillEvent]] = defaultdict(list)
    for event in run.events:
        trades[event.trade_id].append(event)
    decided = {one.trade_id: one for one in run.decisions or () if one.action == "enter"}
    zones: dict[str, list[str]] = defaultdict(list)
    for trade_id, events in trades.items():
        zones[events[0].zone_id or NO_ZONE].append(trade_id)
    return [
        figures
        for zone_id in sorted(zones)
        for figures in _zone(
            zone_id, [trades[trade_id] for trade_id in zones[zone_id]], [decided.get(one) for one in zones[zone_id]]
        )
    ]


def observed_mid_prices(run: RunFiles) -> list[ObservedMid]:
    """Mid prices in order of time. A waiting order's event names the mid of its decision, which was long before."""
    decided = {one.trade_id: one.timestamp for one in run.decisions or () if one.action == "enter"}
    found = []
    for time, event in zip(run.times, run.events, strict=True):
        market = VenueSymbol(event.exchange, event.symbol)
        if event.fill_model not in PASSIVE_MODELS:
            if event.arrival_mid is not None:
                found.append(ObservedMid(time, market, event.arrival_mid))
            continue
        if event.mid_at_fill is not None and event.fill_reason == FillReason.FILLED:
            found.append(ObservedMid(time, market, event.mid_at_fill))
        at = decided.get(event.trade_id) if event.side == "buy" else None
        if at is not None and event.arrival_mid is not None:
            found.append(ObservedMid(datetime.fromisoformat(at).timestamp(), market, event.arrival_mid))
    return sorted(found, key=lambda seen: seen.time)


def pnl_curve(run: RunFiles) -> list[PnlPoint]:
    """PnL after each fill event, in order of time."""
    cash = fees = 0.0
    held: defaultdict[str, float] = defaultdict(float)
    mid_prices: dict[str, float] = {}
    curve = []
    seen = deque(observed_mid_prices(run))
    for time, event in sorted(zip(run.times, run.events, strict=True), key=lambda pair: pair[0]):
        while seen and seen[0].time <= time:
            newest = seen.popleft()
            mid_prices[newest.market.symbol] = newest.mid
        if event.filled_quantity > 0 and event.effective_price is not None:
            sign = 1 if event.side == "buy" else -1
            cash -= sign * event.filled_quantity * event.effective_price
            held[event.symbol] += sign * event.filled_quantity
            fees += event.fee
            mid_prices.setdefault(event.symbol, event.effective_price)
        worth = cash + sum(quantity * mid_prices[symbol] for symbol, quantity in held.items() if quantity)
        curve.append(PnlPoint(time, worth - fees, worth))
    return curve


def compare_samples(one: Sequence[float], other: Sequence[float], seed: int = 42) -> Difference | None:
    """None if a sample has fewer than `MINIMUM_COUNT` values."""
    if min(len(one), len(other)) < MINIMUM_COUNT:
        return None
    delta, mann_whitney_p = mann_whitney(one, other)
    ks, ks_p = kolmogorov_smirnov(one, other, seed)
    return Difference(ks, ks_p, delta, mann_whitney_p)


def kolmogorov_smirnov(one: Sequence[float], other: Sequence[float], seed: int = 42) -> tuple[float, float]:
    """The statistic and its p by permutation, which is valid for ties and small samples too."""
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
    """Cliff's delta and the two-sided p of the normal approximation, corrected for ties and continuity."""
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


def _zone(
    zone_id: str, trades: Sequence[list[FillEvent]], decisions: Sequence[DecisionEvent | None]
) -> list[ZoneFigures]:
    """Trades without an entry do not count: their file is incomplete."""
    whole = [pair for pair in zip(trades, decisions, strict=True) if any(event.side == "buy" for event in pair[0])]
    left = [(trade, decision) for trade, decision in whole if _entered(trade) and _left(trade)]
    entries = [Outcome(_slot(trade), _entered(trade)) for trade, _ in whole]
    exits = [Outcome(_slot(trade), _took_profit(trade)) for trade, _ in left]
    expected_buy = _mean(one.expected_fill if one else None for _, one in whole)
    expected_sell = _mean(one.expected_exit if one else None for _, one in left)
    return [
        ZoneFigures(zone_id, side, len(outcomes), share(outcomes), interval(outcomes), expected, _ratio(trades, side))
        for side, outcomes, expected in zip(SIDES, (entries, exits), (expected_buy, expected_sell), strict=True)
    ]


def _slot(trade: Sequence[FillEvent]) -> int:
    """Trades that began in the same second are not independent."""
    return int(min(datetime.fromisoformat(event.timestamp).timestamp() for event in trade))


def _entered(trade: Sequence[FillEvent]) -> bool:
    return any(event.side == "buy" and event.fill_reason == FillReason.FILLED for event in trade)


def _left(trade: Sequence[FillEvent]) -> bool:
    return any(event.side == "sell" and event.exit_reason not in (None, "end") for event in trade)


def _took_profit(trade: Sequence[FillEvent]) -> bool:
    sold = [event.exit_reason for event in trade if event.side == "sell" and event.filled_quantity > 0]
    return bool(sold) and set(sold) == {"take_profit"}


def _ratio(trades: Iterable[Sequence[FillEvent]], side: Side) -> float | None:
    return _mean(event.fill_ratio for trade in trades for event in trade if event.side == side)


def _mean(values: Iterable[float | None]) -> float | None:
    """None if any value is unknown: the mean of the others would be of other trades."""
    found = list(values)
    known = [value for value in found if value is not None]
    return statistics.fmean(known) if known and len(known) == len(found) else None


def _greatest_distance(labels: Sequence[bool], last_of_tie: Sequence[bool], first: int, second: int) -> int:
    """Greatest distance of the distribution functions, times both counts, so that it is an exact integer."""
    distance = greatest = 0
    for label, last in zip(labels, last_of_tie, strict=True):
        distance += second if label else -first
        if last and abs(distance) > greatest:
            greatest = abs(distance)
    return greatest
