"""The figures of a whole run."""

import math

import msgspec

from bookbus.consumers.paper.broker import PaperBroker
from bookbus.consumers.paper.market import Market
from bookbus.consumers.paper.records import Ages, ages_of, brier, utc
from bookbus.consumers.paper.settings import RunSettings


class GapFigures(msgspec.Struct, frozen=True):
    """Times without a book to trade on, seen from the steps of the run; `missed` are updates that never came."""

    count: int
    longest_seconds: float
    missed: int


class Advice(msgspec.Struct, frozen=True):
    """What the calibration expected of the entries, and what came; `brier` is 0 at best."""

    entries: int
    expected: float | None
    filled: float | None
    brier: float | None


class Kpi(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts are in `quote`, after fees. `total_pnl` values what is still held at the last known mid."""

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
    """In what the orders of the calibration differ from those of the run, so that it does not speak for them."""
    queue_cancellation_share: float | None = None
    """Share of cancellations ahead that moved waiting orders: of the calibration, 0 without one; None if none wait."""
    settings: RunSettings


def make_kpi(
    context: PaperBroker, market: Market, quote: str, began: float, now: float, end_reason: str, error: str
) -> Kpi:
    """As things stand."""
    record, health, settings = context.record, market.health(), context.settings
    return Kpi(
        session_id=context.session_id,
        symbols=list(market.symbols),
        l2_source=settings.source,
        exchanges=list(market.exchanges),
        quote=quote,
        start_time=utc(began),
        end_time=utc(now),
        duration_seconds=settings.duration,
        actual_duration_seconds=round(now - began, 3),
        end_reason=end_reason,
        fatal_errors=int(bool(error)),
        error=error,
        total_iterations=record.steps,
        decisions=record.decisions,
        entry_trades=record.entries,
        closed_trades=record.closed,
        winning_trades=record.wins,
        open_trades=context.open_trades,
        exits=dict(sorted(record.exits.items())),
        blocked_exits=dict(sorted(record.blocked_exits.items())),
        skipped_decisions=dict(sorted(record.skipped.items())),
        unfilled_orders=dict(sorted(record.unfilled.items())),
        orders_by_book_status=dict(sorted(record.traded_on.items())),
        fill_events_count=context.files.fills,
        fill_events_path=str(context.files.fills_path),
        fill_events_sha256=context.files.fills_hash,
        total_pnl=context.pnl,
        fees=context.portfolio.fees,
        balances=context.portfolio.balances(),
        reconnects=health.reconnects,
        trouble=health.trouble,
        conflated=health.conflated,
        snapshot_age_ms=ages_of(record.ages),
        gaps=GapFigures(
            sum(gap.count for gap in record.gaps.values()),
            max((gap.longest for gap in record.gaps.values()), default=0.0),
            health.missed,
        ),
        gaps_by_symbol={symbol: gap.longest for symbol, gap in record.gaps.items()},
        fill_model=context.execution.name,
        calibration_version=context.calibration_version,
        advice=_advice(context),
        calibration_misfits=list(context.mismatches),
        queue_cancellation_share=queue.cancellation_share if (queue := context.execution.queue) is not None else None,
        settings=settings,
    )


def _advice(context: PaperBroker) -> Advice | None:
    if context.settings.fillmodel_mode == "none":
        return None
    advised = context.record.advised
    count = len(advised)
    expected = math.fsum(expected for expected, _ in advised) / count if count else None
    filled = math.fsum(filled for _, filled in advised) / count if count else None
    return Advice(count, expected, filled, brier(advised))
