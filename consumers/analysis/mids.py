"""The mids that a run's orders tell of, each at the time it was seen."""

from datetime import datetime
from typing import NamedTuple

from bookbus.consumers.analysis.run_files import RunFiles
from bookbus.consumers.analysis.statistics import Market
from bookbus.consumers.paper.fills.model import FillReason
from bookbus.consumers.paper.settings import PASSIVE_MODELS


class SeenMid(NamedTuple):
    """At a time in seconds since 1970."""

    time: float
    market: Market
    mid: float


def seen_mids(run: RunFiles) -> list[SeenMid]:
    """In order of time. The event of an order that waited comes long after its decision, whose mid it names."""
    decided = {one.trade_id: one.timestamp for one in run.decisions or () if one.action == "enter"}
    found = []
    for time, event in zip(run.times, run.events, strict=True):
        market = Market(event.exchange, event.symbol)
        if event.fill_model not in PASSIVE_MODELS:
            if event.arrival_mid is not None:
                found.append(SeenMid(time, market, event.arrival_mid))
            continue
        if event.mid_at_fill is not None and event.fill_reason == FillReason.FILLED:
            found.append(SeenMid(time, market, event.mid_at_fill))
        at = decided.get(event.trade_id) if event.side == "buy" else None
        if at is not None and event.arrival_mid is not None:
            found.append(SeenMid(datetime.fromisoformat(at).timestamp(), market, event.arrival_mid))
    return sorted(found, key=lambda seen: seen.time)
