"""The records of a running session: fill events, mark-outs, decisions, counters."""

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Literal, NamedTuple

import msgspec

from bookbus.consumers.paper.calibration.table import Expectation
from bookbus.consumers.paper.fills.model import Liquidity
from bookbus.consumers.paper.market import VenueQuote
from bookbus.consumers.paper.order_rules import Rejection
from bookbus.consumers.paper.schedule import later
from bookbus.consumers.paper.settings import Target
from bookbus.schemas.snapshot import Side

ExitReason = Literal["take_profit", "stop_loss", "time", "end"]
Action = Literal["enter", "exit", "skip"]
HORIZONS = (1, 5, 30)
"""Seconds after a fill at which a mark-out is taken."""

LATE = 0.5
"""Seconds after which a mark-out that is due is written as unknown."""

MidOf = Callable[[str, str], float | None]
"""Returns the mid of a symbol on an exchange; None without a live book."""

WriteMarkout = Callable[[str, str, int, float | None], None]


class FillEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One order that is done, filled or not. Unknown values are None.

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

    `expected_fill` and `expected_exit` are the calibration's fill probabilities of the target's zone.
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


class RunRecorder:
    """The files and counters of one run; each line is flushed as it is written."""

    def __init__(self, directory: Path, session_id: str) -> None:
        """Replaces existing files of this session. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True)
        self.session_id = session_id
        self.counters = RunCounters()
        self.markouts = Markouts()
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

    def write_fill(self, event: FillEvent, filled_at: float | None = None) -> None:
        """Write the event of an order that is done, and plan the mark-outs of what was filled at `filled_at`."""
        self._hash.update(_write(self._fills, event))
        self.fills += 1
        if event.filled_quantity <= 0:
            self.counters.unfilled[event.fill_reason] += 1
        elif event.effective_price is not None and filled_at is not None:
            self.markouts.expect(
                event.trade_id,
                event.order_id,
                event.symbol,
                event.exchange,
                event.side,
                event.effective_price,
                filled_at,
            )

    def write_markouts(self, now: float, mid_of: MidOf) -> None:
        """Write the mark-outs that are due.

        The lines of an order together have the fields that its fill event left open.
        """
        self.markouts.look(now, mid_of, self._write_markout)

    def write_skip(
        self,
        now: float,
        symbol: str,
        quote: VenueQuote,
        rejection: Rejection,
        target: Target,
        advice: Expectation | None,
    ) -> None:
        """Write a decision not to enter, and why."""
        self.counters.skipped[rejection.code] += 1
        self.write_decision(now, symbol, "skip", quote, rejection, target=target, advice=advice)

    def write_blocked_exit(
        self, now: float, symbol: str, quote: VenueQuote, rejection: Rejection, trade_id: str, target: Target
    ) -> None:
        """Write why a position that should be sold cannot be."""
        self.counters.blocked_exits[rejection.code] += 1
        self.write_decision(now, symbol, "exit", quote, rejection, trade_id=trade_id, target=target)

    def write_decision(
        self,
        now: float,
        symbol: str,
        action: Action,
        quote: VenueQuote,
        rejection: Rejection | None = None,
        *,
        target: Target,
        trade_id: str | None = None,
        advice: Expectation | None = None,
    ) -> None:
        """Write a decision and the book it was made on; `rejection` is None where an order followed."""
        book = quote.book
        event = DecisionEvent(
            timestamp=utc(now),
            session_id=self.session_id,
            symbol=symbol,
            decision=self.counters.decisions,
            action=action,
            reason=rejection.code if rejection is not None else "",
            detail=rejection.detail if rejection is not None else "",
            trade_id=trade_id,
            entry_bps=target.entry_bps,
            tp_bps=target.tp_bps,
            zone_id=advice.zone_id if advice is not None else None,
            expected_fill=advice.buy if advice is not None else None,
            expected_exit=advice.sell if advice is not None else None,
            book_status=quote.status,
            book_seq=book.seq or None if book is not None else None,
            book_update_id=book.update_id if book is not None else None,
            book_age_ms=milliseconds(quote.age),
        )
        _write(self._decisions, event)

    def write_kpi(self, kpi: object) -> None:
        """Write the figures of the whole run; they replace earlier ones atomically."""
        new = self.kpi_path.with_suffix(".new")
        new.write_bytes(msgspec.json.format(msgspec.json.encode(kpi), indent=2) + b"\n")
        new.replace(self.kpi_path)

    def close(self) -> None:
        for file in (self._fills, self._markouts, self._decisions):
            file.close()

    def _write_markout(self, trade_id: str, order_id: str, horizon: int, bps: float | None) -> None:
        _write(self._markouts, {"trade_id": trade_id, "order_id": order_id, f"markout_{horizon}s_bps": bps})


class _Due(NamedTuple):
    at: float
    number: int
    trade_id: str
    order_id: str
    symbol: str
    exchange: str
    side: Side
    price: float
    horizon: int


class Markouts:
    """Mark-outs that are still to be taken."""

    def __init__(self) -> None:
        self._due: list[_Due] = []
        self._number = 0

    @property
    def next_due(self) -> float:
        """When the next one is due, in seconds since 1970; infinity if none is."""
        return self._due[0].at if self._due else float("inf")

    def expect(
        self, trade_id: str, order_id: str, symbol: str, exchange: str, side: Side, price: float, filled_at: float
    ) -> None:
        """Plan one mark-out at each horizon after this fill."""
        for horizon in HORIZONS:
            self._number += 1
            due = _Due(
                later(filled_at, horizon), self._number, trade_id, order_id, symbol, exchange, side, price, horizon
            )
            heapq.heappush(self._due, due)

    def look(self, now: float, mid_of: MidOf, write: WriteMarkout) -> None:
        """Write those that are due: the mid against the fill's price in bps, positive where it moved in our favour."""
        while self._due and self._due[0].at <= now:
            due = heapq.heappop(self._due)
            mid = mid_of(due.symbol, due.exchange) if now - due.at <= LATE else None
            sign = 1 if due.side == "buy" else -1
            bps = None if mid is None else sign * (mid - due.price) / due.price * 1e4
            write(due.trade_id, due.order_id, due.horizon, bps)


@dataclass(slots=True)
class Gap:
    """Periods in which a symbol's book could not be traded on; seconds."""

    count: int = 0
    longest: float = 0.0
    since: float | None = None

    def observe(self, now: float, tradable: bool) -> None:
        """Update with the state at `now`."""
        if tradable:
            self.since = None
            return
        if self.since is None:
            self.count, self.since = self.count + 1, now
        self.longest = max(self.longest, now - self.since)


@dataclass(slots=True)
class RunCounters:
    """Counters of one run."""

    decisions: int = 0
    entries: int = 0
    closed: int = 0
    wins: int = 0
    steps: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    unfilled: Counter[str] = field(default_factory=Counter)
    """Orders without a fill, by the fill model's reason."""
    blocked_exits: Counter[str] = field(default_factory=Counter)
    """Positions that could not be sold when they should have been, by reason."""
    traded_on: Counter[str] = field(default_factory=Counter)
    """Orders by the status of the book they were decided on."""
    ages: list[float] = field(default_factory=list)
    """Seconds since the last confirmation of each book that was decided on."""
    gaps: dict[str, Gap] = field(default_factory=dict)
    advised: list[tuple[float, bool]] = field(default_factory=list)
    """For each entry, the fill probability of the calibration and whether it was filled whole."""

    def count_order(self, quote: VenueQuote) -> None:
        self.traded_on[quote.status] += 1
        if quote.age is not None:
            self.ages.append(quote.age)


def utc(now: float) -> str:
    """A time in seconds since 1970 as ISO 8601 text in UTC."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds")


def milliseconds(seconds: float | None) -> float | None:
    """Rounded to microseconds; None stays None."""
    return None if seconds is None else round(seconds * 1e3, 3)


def _write(file: IO[bytes], line: object) -> bytes:
    encoded = msgspec.json.encode(line) + b"\n"
    file.write(encoded)
    file.flush()
    return encoded
