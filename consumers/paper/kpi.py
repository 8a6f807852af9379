"""The figures of a whole run."""

import math
from collections.abc import Sequence

import msgspec

from bookbus.consumers.paper.broker import PaperBroker
from bookbus.consumers.paper.calibration.statistics import brier, percentile
from bookbus.consumers.paper.market import Market
from bookbus.consumers.paper.records import milliseconds, utc
from bookbus.consumers.paper.settings import RunSettings


class Ages(msgspec.Struct, frozen=True):
    """Milliseconds; None if there was none."""

    count: int
    p50: float | None
    p99: float | None
    max: float | None


class GapFigures(msgspec.Struct, frozen=True):
    """Times without a book to trade on, as the steps of the run saw them; `missed` are updates that never arrived."""

    count: int
    longest_seconds: float
    missed: int


class Advice(msgspec.Struct, frozen=True):
    """Share of entries that the calibration expected to fill, and that did; the best `brier` is 0."""

    entries: int
    expected: float | None
    filled: float | None
    brier: float | None


class Kpi(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts are in `quote`, after fees. `total_pnl` values open positions at the last known mid."""

    session_id: str
    symbols: list[str]
    l2_source: str
    exchanges: list[str]
    quote: str
    start_time: str
    end_time: str
    duration_seconds: float | None
    actual_duration_seconds: float
    end_reason: str
    fatal_errors: int
    error: str
    total_iterations: int
    decisions: int
    entry_trades: int
    closed_trades: int
    winning_trades: int
    open_trades: int
    exits: dict[str, int]
    blocked_exits: dict[str, int]
    skipped_decisions: dict[str, int]
    unfilled_orders: dict[str, int]
    orders_by_book_status: dict[str, int]
    fill_events_count: int
    fill_events_path: str
    fill_events_sha256: str
    total_pnl: float
    fees: float
    balances: dict[str, dict[str, float]]
    reconnects: int
    trouble: str
    conflated: int
    snapshot_age_ms: Ages
    gaps: GapFigures
    gaps_by_symbol: dict[str, float]
    fill_model: str
    calibration_version: str | None
    advice: Advice | None
    calibration_misfits: list[str] = []
    """How the orders of the calibration differ from those of the run, so that its ratios do not hold for them."""
    queue_cancellation_share: float | None = None
    """Share of cancellations ahead that moved waiting orders: of the calibration, 0 without one; None if none wait."""
    settings: RunSettings


def make_kpi(
    broker: PaperBroker,
    market: Market,
    mismatches: Sequence[str],
    began: float,
    now: float,
    end_reason: str,
    error: str,
) -> Kpi:
    """The figures as they are `now`; times are seconds since 1970."""
    records, counters, settings = broker.records, broker.records.counters, broker.settings
    health, gaps, queue = market.health(), counters.gaps, broker.execution.queue
    return Kpi(
        session_id=records.session_id,
        symbols=list(market.symbols),
        l2_source=settings.source,
        exchanges=list(market.exchanges),
        quote=broker.currency,
        start_time=utc(began),
        end_time=utc(now),
        duration_seconds=settings.duration,
        actual_duration_seconds=round(now - began, 3),
        end_reason=end_reason,
        fatal_errors=int(bool(error)),
        error=error,
        total_iterations=counters.steps,
        decisions=counters.decisions,
        entry_trades=counters.entries,
        closed_trades=counters.closed,
        winning_trades=counters.wins,
        open_trades=broker.open_trades,
        exits=dict(sorted(counters.exits.items())),
        blocked_exits=dict(sorted(counters.blocked_exits.items())),
        skipped_decisions=dict(sorted(counters.skipped.items())),
        unfilled_orders=dict(sorted(counters.unfilled.items())),
        orders_by_book_status=dict(sorted(counters.traded_on.items())),
        fill_events_count=records.fills,
        fill_events_path=str(records.fills_path),
        fill_events_sha256=records.fills_hash,
        total_pnl=broker.pnl,
        fees=broker.portfolio.fees,
        balances=broker.portfolio.balances(),
        reconnects=health.reconnects,
        trouble=health.error,
        conflated=health.conflated,
        snapshot_age_ms=ages_of(counters.ages),
        gaps=GapFigures(
            sum(gap.count for gap in gaps.values()),
            max((gap.longest for gap in gaps.values()), default=0.0),
            health.missed,
        ),
        gaps_by_symbol={symbol: gap.longest for symbol, gap in gaps.items()},
        fill_model=broker.execution.name,
        calibration_version=broker.calibration_version,
        advice=None if settings.fillmodel_mode == "none" else _advice(counters.advised),
        calibration_misfits=list(mismatches),
        queue_cancellation_share=queue.cancellation_share if queue is not None else None,
        settings=settings,
    )


def ages_of(seconds: Sequence[float]) -> Ages:
    """Percentiles by the nearest rank."""
    p50, p99, oldest = (milliseconds(percentile(seconds, percent)) for percent in (50, 99, 100))
    return Ages(len(seconds), p50, p99, oldest)


def _advice(advised: Sequence[tuple[float, bool]]) -> Advice:
    count = len(advised)
    expected = math.fsum(expected for expected, _ in advised) / count if count else None
    filled = math.fsum(filled for _, filled in advised) / count if count else None
    return Advice(count, expected, filled, brier(advised))
