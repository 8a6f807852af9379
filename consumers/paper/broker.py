"""What all symbols of a run share, and how what they do is put on record."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, NamedTuple

from bookbus.consumers.paper.account import Portfolio, RiskGuard, exact
from bookbus.consumers.paper.calibration.table import CalibrationTable, Expectation
from bookbus.consumers.paper.execution import Execution, WaitingOrder
from bookbus.consumers.paper.fills.model import Fill, Order, TapeEvent, opposite_side
from bookbus.consumers.paper.market import VenueQuote
from bookbus.consumers.paper.records import (
    Action,
    DecisionEvent,
    EventFiles,
    ExitReason,
    FillEvent,
    Markouts,
    RunCounters,
    utc,
)
from bookbus.consumers.paper.settings import RunSettings, Target

ROUNDING = Fraction(1, 10**12)
"""Share by which a fill in parts may differ from the whole."""

Phase = Literal["entering", "holding", "exiting"]


@dataclass(slots=True)
class SentOrder:
    """An order with what was known when it was decided on, and what became of it."""

    order_id: str
    order: Order
    quote: VenueQuote
    target_price: float
    exit_reason: ExitReason | None = None
    waiting: WaitingOrder | None = None
    fee: float = 0.0
    filled_at: float | None = None
    mid_at_fill: float | None = None
    cancelled_at: float | None = None


@dataclass(slots=True)
class OpenTrade:
    """`ordered` is what the entry asks for; `deadline` is when it, later the position, has waited long enough."""

    trade_id: str
    symbol: str
    target: Target
    ordered: float
    advice: Expectation | None
    deadline: float
    phase: Phase = "entering"
    sent: SentOrder | None = None
    exit_reason: ExitReason | None = None
    orders: int = 0
    bought: Fraction = field(default_factory=Fraction)
    cost: Fraction = field(default_factory=Fraction)
    sold: Fraction = field(default_factory=Fraction)
    pnl: Fraction = field(default_factory=Fraction)
    blocked: str = ""
    """Why the last attempt to leave did not work."""
    too_small: bool = False
    """What is left is less than the exchange takes."""
    tried: tuple[str, int, int, int] | None = None
    """Exchange, `seq`, update id and time of receipt of the book of the last attempt."""

    @property
    def expected(self) -> float | None:
        """What the calibration says of the entry; None where it says nothing."""
        return self.advice.buy if self.advice is not None else None

    @property
    def entered_whole(self) -> bool:
        """Whether the entry was filled as a table counts it: not in part."""
        return self.bought >= exact(self.ordered) * (1 - ROUNDING)

    @property
    def remaining(self) -> Fraction:
        """What is held and still to be sold."""
        return self.bought - self.sold

    @property
    def entry_price(self) -> float:
        """Average price paid."""
        return float(self.cost / self.bought)

    def next_order_id(self) -> str:
        """A name for one more order."""
        self.orders += 1
        return f"{self.trade_id}-{self.orders}"

    def book(self, order: Order, fill: Fill, quantity: Fraction, fee: float) -> None:
        """Count a fill."""
        value = quantity * exact(fill.price or 0.0)
        self.pnl -= exact(fee)
        if order.side == "buy":
            self.bought += quantity
            self.cost += value
            self.pnl -= value
        else:
            self.sold += quantity
            self.pnl += value


class Entry(NamedTuple):
    """An order, and the book it was decided on."""

    quote: VenueQuote
    order: Order


def waiting_cost(entry: Entry) -> float:
    """Cash that the whole order needs."""
    price = entry.order.price or 0.0
    return entry.order.quantity * price * (1 + entry.quote.fee_bps / 1e4)


@dataclass(slots=True)
class PaperBroker:
    """One run's settings, money, models and files."""

    settings: RunSettings
    session_id: str
    execution: Execution
    table: CalibrationTable | None
    calibration_version: str | None
    portfolio: Portfolio
    guard: RiskGuard
    files: EventFiles
    mismatches: tuple[str, ...] = ()
    """In what the orders of the calibration differ from those of the run."""
    record: RunCounters = field(default_factory=RunCounters)
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
        levels = opposite_side(order.side, book)
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


_CANCEL_LIMIT = 1.0
"""Seconds after which a cancelled order is done even if its market shows nothing any more."""


def take(context: PaperBroker, now: float, trade: OpenTrade, entry: Entry) -> Fill:
    """Send an order that does not wait; it is done at once."""
    book = entry.quote.book
    if book is None:
        raise ValueError("an order is decided on a book")
    touch = (book.asks if entry.order.side == "buy" else book.bids)[0][0]
    sent = _sent(context, trade, entry, touch)
    fill = context.execution.taker.fill(entry.order, book)
    context.take_fill(now, trade, sent, fill, book.mid())
    context.write_order(now, trade, sent, fill)
    return fill


def wait(context: PaperBroker, trade: OpenTrade, entry: Entry) -> None:
    """Send an order that waits for the market."""
    book, price = entry.quote.book, entry.order.price
    if book is None or price is None:
        raise ValueError("a waiting order has a price, and is decided on a book")
    sent = _sent(context, trade, entry, price)
    sent.waiting = context.execution.wait(entry.order, book)
    trade.sent = sent
    if entry.order.side == "buy":
        context.reserved[entry.quote.exchange] += waiting_cost(entry)


def receive(context: PaperBroker, now: float, trade: OpenTrade, event: TapeEvent, quotes: Sequence[VenueQuote]) -> None:
    """Let the waiting order see what happened on its exchange; `quotes` are the books as they are now."""
    sent = trade.sent
    if sent is None or sent.waiting is None or event.exchange != sent.order.exchange:
        return
    if (fill := sent.waiting.receive(event)) is not None:
        live = [one.book for one in quotes if one.exchange == event.exchange and not one.reject_reason and one.book]
        context.take_fill(now, trade, sent, fill, live[0].mid() if live else None)


def cancel(now: float, sent: SentOrder) -> None:
    """Take the waiting order back; until that has taken effect it may still be filled."""
    if sent.cancelled_at is None and sent.waiting is not None:
        sent.waiting.cancel(round(now * 1e6))
        sent.cancelled_at = now


def is_done(now: float, sent: SentOrder) -> bool:
    """Whether the waiting order gets nothing more."""
    gone = sent.cancelled_at is not None and now >= sent.cancelled_at + _CANCEL_LIMIT
    return gone or (sent.waiting is not None and sent.waiting.done)


def finish(context: PaperBroker, now: float, trade: OpenTrade, sent: SentOrder) -> None:
    """Put on record what became of the waiting order."""
    if sent.waiting is None:
        raise ValueError("only a waiting order has to be finished")
    if sent.order.side == "buy":
        context.reserved[sent.quote.exchange] -= waiting_cost(Entry(sent.quote, sent.order))
    context.write_order(now, trade, sent, sent.waiting.total())
    trade.sent = None


def _sent(context: PaperBroker, trade: OpenTrade, entry: Entry, target_price: float) -> SentOrder:
    context.record.used(entry.quote)
    reason = None if entry.order.side == "buy" else trade.exit_reason or "take_profit"
    return SentOrder(trade.next_order_id(), entry.order, entry.quote, target_price, reason)
