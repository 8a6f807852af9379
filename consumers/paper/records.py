"""What a run leaves behind while it runs: fills, what the market did after them, and decisions."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal

import msgspec

from bookbus.consumers.paper.fills.model import Liquidity
from bookbus.schemas.snapshot import Side

ExitReason = Literal["take_profit", "stop_loss", "time", "end"]
Action = Literal["enter", "exit", "skip"]

HORIZONS = (1, 5, 30)
"""Seconds after a fill at which the market is looked at again."""


class FillEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One order that is done, whatever of it was filled. What is not known is None.

    `entry_bps` to `exit_reason` are the trade's; prices and `fee` are in the run's quote currency. `slippage_bps` is
    positive where the fill cost more than the best price at the decision. `available_volume` is what the best level
    held of the side that the order takes from, `depth_volume` the same of all published levels.
    """

    timestamp: str
    session_id: str
    symbol: str
    side: Side
    entry_bps: float
    tp_bps: float
    order_quantity: float
    filled_quantity: float
    fill_ratio: float
    slippage_bps: float | None
    available_volume: float | None
    spread_bps: float | None
    exit_reason: ExitReason | None
    latency_ms: float | None
    trade_id: str
    exchange: str
    target_price: float
    effective_price: float | None
    fee: float
    order_id: str
    liquidity: Liquidity | None
    arrival_mid: float | None
    mid_at_fill: float | None
    markout_1s_bps: float | None = None
    markout_5s_bps: float | None = None
    markout_30s_bps: float | None = None
    book_seq: int | None
    book_update_id: int
    book_age_ms: float | None
    depth_volume: float | None
    zone_id: str | None
    fill_model: str
    fill_reason: str
    calibration_version: str | None
    l2_source: str


class DecisionEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One decision to trade or not; `reason` is empty where an order followed, `detail` is for people.

    `expected_fill` and `expected_exit` are what the calibration says of the target's zone.
    """

    timestamp: str
    session_id: str
    symbol: str
    decision: int
    action: Action
    reason: str
    detail: str
    trade_id: str | None
    entry_bps: float | None
    tp_bps: float | None
    zone_id: str | None
    expected_fill: float | None
    expected_exit: float | None
    book_status: str
    book_seq: int | None
    book_update_id: int | None
    book_age_ms: float | None


def utc(now: float) -> str:
    """A time in seconds since 1970 as text with its offset."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")


class EventFiles:
    """The one writer of a run's files; each line is flushed as it is written."""

    def __init__(self, directory: Path, session_id: str) -> None:
        """Begins anew what is there under this session. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.fills_path = directory / f"fill_events_{session_id}.jsonl"
        self.kpi_path = directory / f"kpi_{session_id}.json"
        self.fills = 0
        self._fills = self.fills_path.open("wb")
        self._markouts = (directory / f"markouts_{session_id}.jsonl").open("wb")
        self._decisions = (directory / f"decisions_{session_id}.jsonl").open("wb")
        self._hash = hashlib.sha256()

    @property
    def fills_hash(self) -> str:
        """SHA-256 of the fill events so far, as `sha256sum` prints it."""
        return self._hash.hexdigest()

    def write_fill(self, event: FillEvent) -> None:
        """One more fill."""
        self._hash.update(_write(self._fills, event))
        self.fills += 1

    def write_markout(self, trade_id: str, order_id: str, horizon: int, bps: float | None) -> None:
        """How far the mid had moved in our favour from a fill's price; None if there was no live book then.

        The lines of an order together have the fields that its fill event left open.
        """
        _write(self._markouts, {"trade_id": trade_id, "order_id": order_id, f"markout_{horizon}s_bps": bps})

    def write_decision(self, event: DecisionEvent) -> None:
        """One more decision."""
        _write(self._decisions, event)

    def write_kpi(self, kpi: object) -> None:
        """The figures of the whole run, in place of earlier ones, all at once."""
        new = self.kpi_path.with_suffix(".new")
        new.write_bytes(msgspec.json.format(msgspec.json.encode(kpi), indent=2) + b"\n")
        new.replace(self.kpi_path)

    def close(self) -> None:
        """No more lines."""
        for file in (self._fills, self._markouts, self._decisions):
            file.close()


def _write(file: IO[bytes], line: object) -> bytes:
    encoded = msgspec.json.encode(line) + b"\n"
    file.write(encoded)
    file.flush()
    return encoded
