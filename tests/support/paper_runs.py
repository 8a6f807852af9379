"""What paper runs leave behind, for tests: what does not matter has a default."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bookbus.consumers.paper.kpi import Ages, GapFigures, Kpi
from bookbus.consumers.paper.records import DecisionEvent, FillEvent
from bookbus.consumers.paper.settings import RunSettings

BEGAN = 1_723_161_600.0
SESSION = "20240809_000000"


def at(seconds: float) -> str:
    """So long after the beginning."""
    return datetime.fromtimestamp(BEGAN + seconds, UTC).isoformat()


def fill_event(number: int = 1, **changes: Any) -> FillEvent:
    """An order for one, filled whole at 100."""
    fields: dict[str, Any] = {
        "timestamp": at(number),
        "session_id": SESSION,
        "symbol": "BTC-USDT",
        "side": "buy",
        "entry_bps": 1.0,
        "tp_bps": 5.0,
        "order_quantity": 1.0,
        "filled_quantity": 1.0,
        "fill_ratio": 1.0,
        "slippage_bps": 0.0,
        "available_volume": 2.0,
        "spread_bps": 1.0,
        "exit_reason": None,
        "latency_ms": None,
        "trade_id": f"T{number}",
        "exchange": "binance",
        "target_price": 100.0,
        "effective_price": 100.0,
        "fee": 0.1,
        "order_id": f"O{number}",
        "liquidity": "taker",
        "arrival_mid": 99.5,
        "mid_at_fill": 99.5,
        "book_seq": number,
        "book_update_id": number,
        "book_age_ms": 10.0,
        "depth_volume": 20.0,
        "zone_id": None,
        "fill_model": "book_walk",
        "fill_reason": "filled",
        "calibration_version": None,
        "l2_source": "redis",
    }
    return FillEvent(**(fields | changes))


def unfilled(number: int = 1, **changes: Any) -> FillEvent:
    """An order that got nothing."""
    nothing: dict[str, Any] = {"filled_quantity": 0.0, "fill_ratio": 0.0, "fee": 0.0, "fill_reason": "not_reached"}
    nothing |= {"effective_price": None, "slippage_bps": None}
    return fill_event(number, **(nothing | changes))


def sale(number: int, trade: int, reason: str = "time", **changes: Any) -> FillEvent:
    """The exit of a trade."""
    return fill_event(number, **({"side": "sell", "trade_id": f"T{trade}", "exit_reason": reason} | changes))


def decision(trade: int, expected_fill: float | None, expected_exit: float | None) -> DecisionEvent:
    """The decision to enter a trade."""
    return DecisionEvent(
        timestamp=at(trade),
        session_id=SESSION,
        symbol="BTC-USDT",
        decision=trade,
        action="enter",
        reason="",
        detail="",
        trade_id=f"T{trade}",
        entry_bps=1.0,
        tp_bps=5.0,
        zone_id="Z1",
        expected_fill=expected_fill,
        expected_exit=expected_exit,
        book_status="live",
        book_seq=1,
        book_update_id=1,
        book_age_ms=10.0,
    )


def good_events(count: int = 40) -> list[FillEvent]:
    """Trades of a run that passes: buy and sell in turn, volumes that move."""
    return [
        fill_event(number, available_volume=1.0 + number % 5)
        if number % 2
        else sale(number, number - 1, available_volume=1.0 + number % 3)
        for number in range(1, count + 1)
    ]


def kpi(events: Sequence[FillEvent], **changes: Any) -> Kpi:
    """Of a run of these events that passes, if they do."""
    fields: dict[str, Any] = {
        "session_id": SESSION,
        "symbols": ["BTC-USDT"],
        "l2_source": "redis",
        "exchanges": ["binance"],
        "quote": "USDT",
        "start_time": at(0),
        "end_time": at(300),
        "duration_seconds": 300.0,
        "actual_duration_seconds": 300.0,
        "end_reason": "duration",
        "fatal_errors": 0,
        "error": "",
        "total_iterations": 3000,
        "decisions": 20,
        "entry_trades": 20,
        "closed_trades": 20,
        "winning_trades": 0,
        "open_trades": 0,
        "exits": {"time": 20},
        "blocked_exits": {},
        "skipped_decisions": {},
        "unfilled_orders": {},
        "orders_by_book_status": {"live": len(events)},
        "fill_events_count": len(events),
        "fill_events_path": "",
        "fill_events_sha256": hashlib.sha256(encoded(events)).hexdigest(),
        "total_pnl": -4.0,
        "fees": 4.0,
        "balances": {},
        "reconnects": 1,
        "trouble": "",
        "conflated": 0,
        "snapshot_age_ms": Ages(len(events), 10.0, 10.0, 10.0),
        "gaps": GapFigures(0, 0.0, 0),
        "gaps_by_symbol": {"BTC-USDT": 0.0},
        "fill_model": "book_walk",
        "calibration_version": None,
        "advice": None,
        "settings": RunSettings(source="redis"),
    }
    return Kpi(**(fields | changes))


def encoded(lines: Sequence[msgspec.Struct]) -> bytes:
    """As the run writes them."""
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def write_run(
    directory: Path,
    events: Sequence[FillEvent],
    *,
    figures: Kpi | None = None,
    decisions: Sequence[DecisionEvent] = (),
    session: str = SESSION,
) -> Path:
    """The path of the fill events."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"fill_events_{session}.jsonl"
    path.write_bytes(encoded(events))
    if figures is not None:
        (directory / f"kpi_{session}.json").write_bytes(msgspec.json.encode(figures))
    if decisions:
        (directory / f"decisions_{session}.jsonl").write_bytes(encoded(decisions))
    return path
