"""Calibration tables for tests, with defaults for every field."""

from bookbus.consumers.paper.calibration.table import CalibrationTable, Method, Score, TapeInfo, Zone

NO_SCORE = Score(samples=0, brier=None, base_brier=None, skill=None, log_loss=None, base_log_loss=None)

METHOD = Method(
    horizon_seconds=10.0,
    latency_ms=50.0,
    order_notional=100.0,
    depth=20,
    fit_share=0.7,
    minimum_samples=30,
    seed=42,
)


def zone(
    zone_id: str = "Z1",
    entry: tuple[float, float] = (0.0, 5.0),
    tp: tuple[float, float] = (0.0, 10.0),
    *,
    buy: float | None = 0.5,
    sell: float | None = 0.25,
    samples: int = 100,
) -> Zone:
    """A zone, usable if both ratios are given."""
    return Zone(
        zone_id=zone_id,
        entry_min=entry[0],
        entry_max=entry[1],
        tp_min=tp[0],
        tp_max=tp[1],
        buy_fill_ratio=buy,
        sell_fill_ratio=sell,
        samples=samples,
        buy_samples=samples,
        sell_samples=samples,
        buy_interval=None if buy is None else (buy / 2, (1 + buy) / 2),
        sell_interval=None if sell is None else (sell / 2, (1 + sell) / 2),
        usable=buy is not None and sell is not None,
        reason="" if buy is not None and sell is not None else "too few samples",
        hold_out_buy_samples=0,
        hold_out_buy_ratio=None,
        hold_out_sell_samples=0,
        hold_out_sell_ratio=None,
    )


def tape_info(
    name: str = "monday",
    digit: str = "a",
    *,
    symbols: tuple[str, ...] = ("BTC-USDT",),
    first_us: int = 1_000_000,
    last_us: int = 2_000_000,
) -> TapeInfo:
    """A tape whose hash consists of one digit."""
    return TapeInfo(
        name=name, sha256=digit * 64, exchange="binance", symbols=symbols, first_us=first_us, last_us=last_us
    )


def table(*zones: Zone, tapes: tuple[TapeInfo, ...] = (tape_info(),)) -> CalibrationTable:
    """A table of these zones, else of the default one."""
    return CalibrationTable(
        created_at="2024-08-09T00:00:00+00:00",
        source="tape",
        total_events=200,
        unmatched_events=0,
        zones=zones or (zone(),),
        default_buy_fill_ratio=0.5,
        default_sell_fill_ratio=0.25,
        cancellation_share=0.1,
        cancellation_samples=1_000,
        hold_out_buy=NO_SCORE,
        hold_out_sell=NO_SCORE,
        tapes=tapes,
        method=METHOD,
    )
