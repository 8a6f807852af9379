"""Profit over a run, from its fill events alone: cash gained plus what is held at the last known mid."""

from collections import defaultdict, deque
from typing import NamedTuple

from bookbus.consumers.analysis.mids import seen_mids
from bookbus.consumers.analysis.run_files import RunFiles


class Profit(NamedTuple):
    """At a time in seconds since 1970; amounts are in the run's quote currency."""

    time: float
    after_fees: float
    before_fees: float


def profit_curve(run: RunFiles) -> list[Profit]:
    """After each fill event, in order of time."""
    cash = fees = 0.0
    held: defaultdict[str, float] = defaultdict(float)
    mids: dict[str, float] = {}
    curve = []
    seen = deque(seen_mids(run))
    for time, event in sorted(zip(run.times, run.events, strict=True), key=lambda pair: pair[0]):
        while seen and seen[0].time <= time:
            newest = seen.popleft()
            mids[newest.market.symbol] = newest.mid
        if event.filled_quantity > 0 and event.effective_price is not None:
            sign = 1 if event.side == "buy" else -1
            cash -= sign * event.filled_quantity * event.effective_price
            held[event.symbol] += sign * event.filled_quantity
            fees += event.fee
            mids.setdefault(event.symbol, event.effective_price)
        worth = cash + sum(quantity * mids[symbol] for symbol, quantity in held.items() if quantity)
        curve.append(Profit(time, worth - fees, worth))
    return curve
