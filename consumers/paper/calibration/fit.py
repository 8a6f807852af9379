"""Fits a calibration table to tapes: hypothetical passive orders, filled or not by what really printed."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bookbus.consumers.paper.calibration.statistics import Outcome, ZoneOutcomes, interval, share
from bookbus.consumers.paper.calibration.table import CalibrationTable, Method, Score, Zone
from bookbus.consumers.paper.calibration.tape import Tape, TapeSurvey, survey
from bookbus.consumers.paper.calibration_cancellations import share_ahead
from bookbus.consumers.paper.calibration_run import Part, TrialRun
from bookbus.consumers.paper.calibration_score import score
from bookbus.consumers.paper.calibration_trial import TrialSettings
from bookbus.consumers.paper.calibration_zones import NamedZone, ZoneSpec, parse_zones
from bookbus.consumers.paper.fills.queue import QueueFill
from bookbus.schemas.snapshot import Side

DEFAULT_ZONES = "0-1/1-3,1-3/2-5,3-5/4-8,5-7/7-12,7-12/10-20"

_SLOTS_PER_TAPE = 3_000_000
"""More than any tape has, so that no two tapes share one."""

_MINIMUM_CANCELLATIONS = 100


@dataclass(frozen=True, slots=True)
class CalibrationSettings:
    """How hypothetical orders are placed; times in seconds. `fit_share` of each tape is fitted on, the rest scores."""

    zones: tuple[ZoneSpec, ...] = field(default_factory=lambda: parse_zones(DEFAULT_ZONES))
    horizon: float = 10.0
    latency: float = 0.05
    order_notional: float = 100.0
    depth: int = 200
    fit_share: float = 0.7
    minimum_samples: int = 30
    seed: int = 42


def calibrate(tapes: Sequence[Tape], settings: CalibrationSettings, created_at: str) -> CalibrationTable:
    """The table of these tapes. Raises CalibrationError for a tape that cannot calibrate anything."""
    surveys = [survey(tape) for tape in tapes]
    splits = [_split_us(seen, settings.fit_share) for seen in surveys]
    cancelled = [
        one for seen, end_us in zip(surveys, splits, strict=True) for one in seen.cancellations if one.at_us < end_us
    ]
    enough = len(cancelled) >= _MINIMUM_CANCELLATIONS
    ahead = share_ahead(cancelled, round(settings.horizon * 1e6)) if enough else None
    method = _method(settings)
    fitted, held_out = _play(tapes, surveys, splits, settings.zones, method, ahead)
    zones = tuple(
        _zone(spec, fitted.zones[spec.zone_id], held_out.zones[spec.zone_id], settings.minimum_samples)
        for spec in settings.zones
    )
    buy_rate, sell_rate = _base_rate(fitted, "buy"), _base_rate(fitted, "sell")
    return CalibrationTable(
        created_at=created_at,
        source="tape",
        total_events=fitted.started + held_out.started,
        unmatched_events=fitted.void + held_out.void,
        zones=zones,
        default_buy_fill_ratio=buy_rate,
        default_sell_fill_ratio=sell_rate,
        cancellation_share=ahead,
        cancellation_samples=len(cancelled),
        hold_out_buy=score(zones, held_out.zones, "buy", buy_rate),
        hold_out_sell=score(zones, held_out.zones, "sell", sell_rate),
        tapes=tuple(seen.info for seen in surveys),
        method=method,
    )


def validate(table: CalibrationTable, tapes: Sequence[Tape]) -> tuple[Score, Score]:
    """Score a table on other tapes, entries and exits; orders are placed as they were when it was fitted.

    Raises CalibrationError for a tape that the table comes from.
    """
    surveys = [survey(tape) for tape in tapes]
    table.require_other_tape(seen.info for seen in surveys)
    # Nothing is fitted: all of it is held out.
    starts = [seen.info.first_us for seen in surveys]
    _, held_out = _play(tapes, surveys, starts, table.zones, table.method, table.cancellation_share)
    return (
        score(table.zones, held_out.zones, "buy", table.default_buy_fill_ratio),
        score(table.zones, held_out.zones, "sell", table.default_sell_fill_ratio),
    )


def _play(
    tapes: Sequence[Tape],
    surveys: Sequence[TapeSurvey],
    splits: Sequence[int],
    zones: Sequence[NamedZone],
    method: Method,
    ahead: float | None,
) -> tuple[Part, Part]:
    """What became of trials before and after the split of each tape."""
    settings = TrialSettings(
        round(method.horizon_seconds * 1e6),
        method.order_notional,
        QueueFill(ahead or 0.0, round(method.latency_ms * 1e3)),
    )
    fitted, held_out = Part(), Part()
    for number, (tape, seen, split_us) in enumerate(zip(tapes, surveys, splits, strict=True)):
        first_slot = number * _SLOTS_PER_TAPE
        TrialRun(zones, settings, method.seed, seen, split_us, fitted, held_out, first_slot).play(tape)
    return fitted, held_out


def _split_us(seen: TapeSurvey, fit_share: float) -> int:
    return seen.info.first_us + round((seen.info.last_us - seen.info.first_us) * fit_share)


def _zone(spec: ZoneSpec, fitted: ZoneOutcomes, held_out: ZoneOutcomes, minimum: int) -> Zone:
    buy = fitted.buy if len(fitted.buy) >= minimum else []
    sell = fitted.sell if buy and len(fitted.sell) >= minimum else []
    few = [
        f"{len(found)} {what}, {minimum} are needed"
        for found, what in ((fitted.buy, "entries"), (fitted.sell, "exits"))
        if len(found) < minimum
    ]
    return Zone(
        zone_id=spec.zone_id,
        entry_min=spec.entry_min,
        entry_max=spec.entry_max,
        tp_min=spec.tp_min,
        tp_max=spec.tp_max,
        buy_fill_ratio=share(buy),
        sell_fill_ratio=share(sell),
        samples=len(fitted.buy),
        buy_samples=len(fitted.buy),
        sell_samples=len(fitted.sell),
        buy_interval=interval(buy),
        sell_interval=interval(sell),
        usable=not few,
        reason="; ".join(few),
        hold_out_buy_samples=len(held_out.buy),
        hold_out_buy_ratio=share(held_out.buy),
        hold_out_sell_samples=len(held_out.sell),
        hold_out_sell_ratio=share(held_out.sell),
    )


def _base_rate(part: Part, side: Side) -> float | None:
    """Share of all zones together."""
    together: list[Outcome] = []
    for found in part.zones.values():
        together += found.buy if side == "buy" else found.sell
    return share(together)


def _method(settings: CalibrationSettings) -> Method:
    return Method(
        horizon_seconds=settings.horizon,
        latency_ms=settings.latency * 1e3,
        order_notional=settings.order_notional,
        depth=settings.depth,
        fit_share=settings.fit_share,
        minimum_samples=settings.minimum_samples,
        seed=settings.seed,
    )
