"""What all symbols of a run share, and how what they do is put on record."""

import math
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from bookbus.consumers.paper.account import Portfolio, exact
from bookbus.consumers.paper.calibration.table import CalibrationTable, Expectation
from bookbus.consumers.paper.entry_zones import Target
from bookbus.consumers.paper.execution import Execution
from bookbus.consumers.paper.fills.model import Fill, Order, opposite
from bookbus.consumers.paper.market import VenueQuote
from bookbus.consumers.paper.markouts import Markouts
from bookbus.consumers.paper.open_trade import ROUNDING, OpenTrade, SentOrder
from bookbus.consumers.paper.records import Action, DecisionEvent, EventFiles, FillEvent, utc
from bookbus.consumers.paper.risk import RiskGuard
from bookbus.consumers.paper.run_record import RunRecord
from bookbus.consumers.paper.settings import RunSettings


class Entry(NamedTuple):
    """An order, and the book it was decided on."""

    quote: VenueQuote
    order: Order


def waiting_cost(entry: Entry) -> float:
    """Cash that the whole order needs."""
    price = entry.order.price or 0.0
    return entry.order.quantity * price * (1 + entry.quote.fee_bps / 1e4)


@dataclass(slots=True)
class RunContext:
    """One run's settings, money, models and files."""

    settings: RunSettings
    session_id: str
    execution: Execution
    table: CalibrationTable | None
    calibration_version: str | None
    portfolio: Portfolio
    guard: RiskGuard
    files: EventFiles
    misfits: tuple[str, ...] = ()
    """In what the orders of the calibration differ from those of the run."""
    record: RunRecord = field(default_factory=RunRecord)
    markouts: Markouts = field(default_factory=Markouts)
    marks: dict[str, float] = field(default_factory=dict)
    """The newest mid of each symbol that could be traded on."""
    reserved: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Cash that waiting orders may need, by exchange."""
    open_trades: int = 0
    trades: int = 0

    @property
    def pnl(self) -> float:
        """Profit so far after fees, positions at their last marks."""
        return self.portfolio.pnl(self.marks)

    def next_trade_id(self) -> str:
        """A name for one more trade."""
        self.trades += 1
        return f"{self.session_id}-{self.trades}"

    def take_fill(self, now: float, trade: OpenTrade, sent: SentOrder, fill: Fill, mid: float | None) -> None:
        """Book a fill, or a part of one."""
        if fill.price is None or fill.quantity <= 0:
            return
        order, exchange = sent.order, sent.quote.exchange
        quantity: Fraction = exact(fill.quantity)
        # What a fill in parts leaves over by rounding alone is sold with its last part.
        if order.side == "sell" and abs(trade.remaining - quantity) <= trade.bought * ROUNDING:
            quantity = trade.remaining
        fee = fill.quantity * fill.price * sent.quote.fee_bps / 1e4
        self.portfolio.trade(order.side, exchange, trade.symbol, quantity, fill.price, fee)
        trade.book(order, fill, quantity, fee)
        sent.fee += fee
        sent.filled_at, sent.mid_at_fill = now, mid

    def write_order(self, now: float, trade: OpenTrade, sent: SentOrder, fill: Fill) -> None:
        """An order is done: one fill event, and a look at the market after it."""
        order, quote = sent.order, sent.quote
        book = quote.book
        if book is None:
            raise ValueError("an order is decided on a book")
        levels = opposite(order.side, book)
        waited = sent.waiting is not None and sent.filled_at is not None
        self.files.write_fill(
            FillEvent(
                timestamp=utc(now),
                session_id=self.session_id,
                symbol=trade.symbol,
                side=order.side,
                entry_bps=trade.target.entry_bps,
                tp_bps=trade.target.tp_bps,
                order_quantity=order.quantity,
                filled_quantity=fill.quantity,
                fill_ratio=fill.quantity / order.quantity,
                slippage_bps=fill.slippage_bps,
                available_volume=levels[0][1] if levels else None,
                spread_bps=book.spread_bps(),
                exit_reason=sent.exit_reason,
                latency_ms=round(((sent.filled_at or now) - order.placed_us / 1e6) * 1e3, 3) if waited else None,
                trade_id=trade.trade_id,
                exchange=quote.exchange,
                target_price=sent.target_price,
                effective_price=fill.price,
                fee=sent.fee,
                order_id=sent.order_id,
                liquidity=fill.liquidity,
                arrival_mid=book.mid(),
                mid_at_fill=sent.mid_at_fill,
                book_seq=book.seq or None,
                book_update_id=book.update_id,
                book_age_ms=_milliseconds(quote.age),
                depth_volume=math.fsum(quantity for _, quantity in levels),
                zone_id=trade.advice.zone_id if trade.advice is not None else None,
                fill_model=self.execution.name if sent.waiting is not None else self.execution.taker.name,
                fill_reason=fill.reason,
                calibration_version=self.calibration_version,
                l2_source=self.settings.source,
            )
        )
        if fill.quantity <= 0:
            self.record.unfilled[fill.reason] += 1
        elif fill.price is not None and sent.filled_at is not None:
            self.markouts.expect(
                trade.trade_id, sent.order_id, trade.symbol, quote.exchange, order.side, fill.price, sent.filled_at
            )

    def write_decision(
        self,
        now: float,
        symbol: str,
        action: Action,
        quote: VenueQuote | None,
        *,
        reason: str = "",
        detail: str = "",
        trade_id: str | None = None,
        target: Target | None = None,
        advice: Expectation | None = None,
    ) -> None:
        """One decision, and the book it goes by."""
        book = quote.book if quote is not None else None
        self.files.write_decision(
            DecisionEvent(
                timestamp=utc(now),
                session_id=self.session_id,
                symbol=symbol,
                decision=self.record.decisions,
                action=action,
                reason=reason,
                detail=detail,
                trade_id=trade_id,
                entry_bps=target.entry_bps if target else None,
                tp_bps=target.tp_bps if target else None,
                zone_id=advice.zone_id if advice else None,
                expected_fill=advice.buy if advice else None,
                expected_exit=advice.sell if advice else None,
                book_status=quote.status if quote is not None else "missing",
                book_seq=book.seq or None if book is not None else None,
                book_update_id=book.update_id if book is not None else None,
                book_age_ms=_milliseconds(quote.age) if quote is not None else None,
            )
        )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)
