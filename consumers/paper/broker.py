"""The paper broker: owns a run's orders, their fills and the account, and records what became of each order."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from bookbus.consumers.paper.account import Portfolio, RiskGuard, exact
from bookbus.consumers.paper.calibration.table import Expectation
from bookbus.consumers.paper.execution import Execution, WaitingOrder
from bookbus.consumers.paper.fills.model import Fill, Order, TapeEvent, opposite_side
from bookbus.consumers.paper.market import VenueQuote, mid_on
from bookbus.consumers.paper.order_rules import Rejection
from bookbus.consumers.paper.records import ExitReason, FillEvent, RunRecorder, milliseconds, utc
from bookbus.consumers.paper.settings import RunSettings, Target
from bookbus.schemas.instruments import NOT_MATCHING
from bookbus.schemas.snapshot import OrderBookSnapshot, Side

ROUNDING = Fraction(1, 10**12)
"""Relative difference by which the sum of partial fills may differ from the order."""

_CANCEL_LIMIT = 1.0
"""Seconds after which a cancelled order is done even if its market shows no further event."""


@dataclass(slots=True)
class Position:
    """One trade from its entry to its exit: what was bought, sold and earned so far, after fees."""

    trade_id: str
    symbol: str
    target: Target
    advice: Expectation | None
    orders: int = 0
    bought: Fraction = field(default_factory=Fraction)
    cost: Fraction = field(default_factory=Fraction)
    sold: Fraction = field(default_factory=Fraction)
    pnl: Fraction = field(default_factory=Fraction)

    @property
    def remaining(self) -> Fraction:
        """Quantity that is held and still to be sold."""
        return self.bought - self.sold

    @property
    def entry_price(self) -> float:
        return float(self.cost / self.bought)

    def apply_fill(self, side: Side, quantity: Fraction, price: float, fee: float) -> None:
        value = quantity * exact(price)
        self.pnl -= exact(fee)
        if side == "buy":
            self.bought += quantity
            self.cost += value
            self.pnl -= value
        else:
            self.sold += quantity
            self.pnl += value


@dataclass(slots=True)
class SentOrder:
    """An order, the book it was decided on, and what became of it."""

    order_id: str
    position: Position
    order: Order
    quote: VenueQuote
    book: OrderBookSnapshot
    target_price: float
    exit_reason: ExitReason | None
    waiting: WaitingOrder | None = None
    """None for an order that was filled, or not, at once."""
    fill: Fill | None = None
    """The whole fill, once the order is done."""
    fee: float = 0.0
    filled_at: float | None = None
    mid_at_fill: float | None = None
    cancelled_at: float | None = None


class PaperBroker:
    """Times are seconds since 1970; prices and amounts are in `currency`, the quote currency of the run."""

    def __init__(
        self,
        settings: RunSettings,
        currency: str,
        exchanges: Sequence[str],
        execution: Execution,
        records: RunRecorder,
        calibration_version: str | None = None,
    ) -> None:
        self.settings = settings
        self.currency = currency
        self.execution = execution
        self.records = records
        self.calibration_version = calibration_version
        self.portfolio = Portfolio(dict.fromkeys(exchanges, settings.cash_in(currency)))
        self.open_trades = 0
        self._guard = RiskGuard(settings.limits_in(currency))
        self._marks: dict[str, float] = {}
        self._reserved: defaultdict[str, float] = defaultdict(float)
        self._trades = 0

    @property
    def pnl(self) -> float:
        """Profit so far after fees, positions valued at their last marks."""
        return self.portfolio.pnl(self._marks)

    def mark(self, symbol: str, mid: float) -> None:
        """Value positions in `symbol` at this mid price from now on."""
        self._marks[symbol] = mid

    def update_daily_loss(self, now: float) -> None:
        """Let the risk limits see the profit so far; the first call of a UTC day starts that day's loss at zero."""
        self._guard.observe(now, self.pnl)

    def rejection(self, quote: VenueQuote, order: Order) -> Rejection | None:
        """Why the risk limits or the account do not allow this entry; None if they do."""
        notional = order.quantity * (order.price or 0.0)
        code, detail = self._guard.reject_reason(notional, self.pnl, self.open_trades)
        if code:
            return Rejection(code, detail)
        cost = _cost(quote, order) + self._reserved[quote.exchange]
        if detail := self.portfolio.reject_reason("buy", quote.exchange, order.symbol, order.quantity, cost):
            return Rejection("no_balance", detail)
        return None

    def open_position(
        self, now: float, symbol: str, quote: VenueQuote, target: Target, advice: Expectation | None
    ) -> Position:
        """Begin a trade that was decided on `quote`, and record the decision."""
        self.open_trades += 1
        self._trades += 1
        position = Position(f"{self.records.session_id}-{self._trades}", symbol, target, advice)
        self.records.counters.entries += 1
        self.records.write_decision(
            now, symbol, "enter", quote, trade_id=position.trade_id, target=target, advice=advice
        )
        return position

    def close_position(self, position: Position, exit_reason: ExitReason) -> None:
        """End a trade; one that bought nothing does not count as closed."""
        self.open_trades -= 1
        if not position.bought:
            return
        counters = self.records.counters
        counters.closed += 1
        counters.wins += position.pnl > 0
        counters.exits[exit_reason] += 1

    def send(
        self,
        now: float,
        position: Position,
        quote: VenueQuote,
        order: Order,
        exit_reason: ExitReason | None = None,
    ) -> SentOrder:
        """Send an order on the book of `quote`: a limit waits where the fill model lets orders wait, any other order
        is done at once.
        """
        book = quote.book
        if book is None:
            raise ValueError("an order needs a book")
        self.records.counters.count_order(quote)
        position.orders += 1
        order_id = f"{position.trade_id}-{position.orders}"
        limit = order.price if self.execution.passive else None
        target_price = opposite_side(order.side, book)[0][0] if limit is None else limit
        sent = SentOrder(order_id, position, order, quote, book, target_price, exit_reason)
        if limit is None:
            sent.fill = self.execution.taker.fill(order, book)
            self._apply_fill(now, sent, sent.fill, book.mid())
            self._record(now, sent, sent.fill)
        else:
            sent.waiting = self.execution.wait(order, book)
            if order.side == "buy":
                self._reserved[quote.exchange] += _cost(quote, order)
        return sent

    def receive(self, now: float, sent: SentOrder, event: TapeEvent, quotes: Sequence[VenueQuote]) -> None:
        """Let a waiting order see an event of its symbol; `quotes` are the books as they are now.

        While its market is halted it sees none: nothing is filled.
        """
        if sent.waiting is None or event.exchange != sent.order.exchange:
            return
        if any(quote.exchange == event.exchange and quote.trading in NOT_MATCHING for quote in quotes):
            return
        if (fill := sent.waiting.receive(event)) is not None:
            self._apply_fill(now, sent, fill, mid_on(quotes, event.exchange))

    def cancel(self, now: float, sent: SentOrder) -> None:
        """Cancel a waiting order; until the cancel takes effect it may still be filled."""
        if sent.cancelled_at is None and sent.waiting is not None:
            sent.waiting.cancel(round(now * 1e6))
            sent.cancelled_at = now

    def is_done(self, now: float, sent: SentOrder) -> bool:
        """Whether a waiting order gets no further fill."""
        cancelled = sent.cancelled_at is not None and now >= sent.cancelled_at + _CANCEL_LIMIT
        return cancelled or sent.waiting is None or sent.waiting.done

    def finish(self, now: float, sent: SentOrder) -> Fill:
        """Record a waiting order as done. Returns all that was filled."""
        if sent.waiting is None:
            raise ValueError("only a waiting order has to be finished")
        if sent.order.side == "buy":
            self._reserved[sent.quote.exchange] -= _cost(sent.quote, sent.order)
        sent.fill = sent.waiting.total()
        self._record(now, sent, sent.fill)
        return sent.fill

    def _apply_fill(self, now: float, sent: SentOrder, fill: Fill, mid: float | None) -> None:
        """Move money and quantity by a fill, or by a part of one."""
        if fill.price is None or fill.quantity <= 0:
            return
        side, exchange, position = sent.order.side, sent.quote.exchange, sent.position
        quantity = exact(fill.quantity)
        # The last partial sale also sells the rest that rounding left over.
        if side == "sell" and abs(position.remaining - quantity) <= position.bought * ROUNDING:
            quantity = position.remaining
        fee = fill.quantity * fill.price * sent.quote.fee_bps / 1e4
        self.portfolio.apply_fill(side, exchange, position.symbol, quantity, fill.price, fee)
        position.apply_fill(side, quantity, fill.price, fee)
        sent.fee += fee
        sent.filled_at, sent.mid_at_fill = now, mid

    def _record(self, now: float, sent: SentOrder, fill: Fill) -> None:
        """Write the fill event of an order that is done."""
        order, position, book = sent.order, sent.position, sent.book
        levels = opposite_side(order.side, book)
        waited = None if sent.waiting is None or sent.filled_at is None else sent.filled_at - order.placed_us / 1e6
        self.records.write_fill(
            FillEvent(
                timestamp=utc(now),
                session_id=self.records.session_id,
                symbol=position.symbol,
                side=order.side,
                entry_bps=position.target.entry_bps,
                tp_bps=position.target.tp_bps,
                order_quantity=order.quantity,
                filled_quantity=fill.quantity,
                fill_ratio=fill.quantity / order.quantity,
                slippage_bps=fill.slippage_bps,
                available_volume=levels[0][1] if levels else None,
                spread_bps=book.spread_bps(),
                exit_reason=sent.exit_reason,
                latency_ms=milliseconds(waited),
                trade_id=position.trade_id,
                exchange=sent.quote.exchange,
                target_price=sent.target_price,
                effective_price=fill.price,
                fee=sent.fee,
                order_id=sent.order_id,
                liquidity=fill.liquidity,
                arrival_mid=book.mid(),
                mid_at_fill=sent.mid_at_fill,
                book_seq=book.seq or None,
                book_update_id=book.update_id,
                book_age_ms=milliseconds(sent.quote.age),
                depth_volume=math.fsum(quantity for _, quantity in levels),
                zone_id=position.advice.zone_id if position.advice is not None else None,
                fill_model=self.execution.taker.name if sent.waiting is None else self.execution.name,
                fill_reason=fill.reason,
                calibration_version=self.calibration_version,
                l2_source=self.settings.source,
            ),
            sent.filled_at,
        )


def _cost(quote: VenueQuote, order: Order) -> float:
    """Cash that the whole order needs, the fee included."""
    return order.quantity * (order.price or 0.0) * (1 + quote.fee_bps / 1e4)
