"""How well a table foretells what it was not fitted on."""

from collections.abc import Iterable, Mapping

from bookbus.consumers.paper.calibration.statistics import ZoneOutcomes, brier, log_loss
from bookbus.consumers.paper.calibration.table import Score, Zone
from bookbus.schemas.snapshot import Side


def score(zones: Iterable[Zone], outcomes: Mapping[str, ZoneOutcomes], side: Side, base_rate: float | None) -> Score:
    """The zones' ratios as probabilities of what happened, against `base_rate` for all. Unusable zones say nothing."""
    forecasts: list[tuple[float, bool]] = []
    most = 1
    for zone in zones:
        ratio = zone.buy_fill_ratio if side == "buy" else zone.sell_fill_ratio
        if ratio is None or zone.zone_id not in outcomes:
            continue
        found = outcomes[zone.zone_id]
        forecasts += [(ratio, outcome.happened) for outcome in (found.buy if side == "buy" else found.sell)]
        most = max(most, zone.buy_samples if side == "buy" else zone.sell_samples)
    # No share of n samples is certain to more than half of one of them.
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
