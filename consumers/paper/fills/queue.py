"""The fill model of passive orders: a position in the price level's queue, moved by trades and cancellations."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from bookbus.consumers.paper.fills.model import (
    BookOrder,
    Fill,
    FillReason,
    TapeEvent,
    no_fill,
    opposite_side,
    own_side,
    reject_reason,
    require_same_market,
    slippage_bps,
)
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade

TimeSource = Literal["received", "exchange"]


@dataclass(frozen=True, slots=True)
class QueueFill:
    """`cancellation_share` is the share of cancelled quantity that was ahead of the order, as calibration fits it;
    with 0 only trades move the queue.

    An order and its cancel take effect `latency_us` after they are sent. `time_source` is the time that orders the
    events: receipt in a recording, the exchange's time where books and trades were merged by it.
    """

    name: ClassVar[str] = "queue"
    cancellation_share: float = 0.0
    latency_us: int = 50_000
    time_source: TimeSource = "received"

    def __post_init__(self) -> None:
        if not 0 <= self.cancellation_share <= 1:
            raise ValueError(f"the share of cancellations ahead must be between 0 and 1, got {self.cancellation_share}")
        if self.latency_us < 0:
            raise ValueError(f"a latency must not be below zero, got {self.latency_us}")

    def place(self, order: BookOrder, book: OrderBookSnapshot) -> "QueuedOrder":
        """The order on its way to the exchange; `book` is the newest one when it was sent."""
        require_same_market(order, book)
        return QueuedOrder(order, book, self)


class QueuedOrder:
    """One passive order and the quantity ahead of it. It must receive every book and trade of its market, in order.

    Trades at its price first consume the quantity ahead, then fill the order; a trade through its price fills it up
    to the traded quantity. While the books do not reach its price the quantity ahead is unknown; then it is all that
    the first book shows there.
    """

    def __init__(self, order: BookOrder, book: OrderBookSnapshot, model: QueueFill) -> None:
        self.order = order
        self.filled = 0.0
        self._model = model
        self._effective_us = order.placed_us + model.latency_us
        self._cancelled_us: int | None = None
        self._book = book
        self._traded = 0.0
        self._position: QueuePosition | None = None
        self._reason = _passive_reject_reason(order, book)
        levels = opposite_side(order.side, book)
        self._touch = levels[0][0] if levels else math.nan

    @property
    def done(self) -> bool:
        """Whether no further fill can follow."""
        return self._reason is not None

    @property
    def remaining(self) -> float:
        """Quantity that is not filled yet."""
        return self.order.quantity - self.filled

    @property
    def ahead(self) -> float | None:
        """Quantity that is filled before the order; None while it is unknown."""
        return None if self._position is None else self._position.ahead

    def cancel(self, sent_us: int) -> None:
        """Cancel the order after the latency; trades until then still fill it."""
        if self._cancelled_us is None:
            self._cancelled_us = sent_us + self._model.latency_us

    def receive(self, event: TapeEvent) -> Fill | None:
        """The fill by this event, None if it fills nothing. Raises ValueError for an event of another market."""
        require_same_market(self.order, event)
        if self.done:
            return None
        at_us = time_of(event, self._model.time_source)
        if self._cancelled_us is not None and at_us >= self._cancelled_us:
            self._reason = FillReason.PARTIAL if self.filled else FillReason.NOT_REACHED
            return None
        # An event received before the order was sent is older than the order, whatever the exchange's clock says.
        if self._position is None and at_us >= self._effective_us and event.received_us >= self.order.placed_us:
            self._arrive()
        if isinstance(event, Trade):
            return self._see_trade(event)
        self._see_book(event)
        return None

    def total(self) -> Fill:
        """The sum of the fills so far, with the reason why not more was filled."""
        if not self.filled:
            return no_fill(self._reason or FillReason.NOT_REACHED)
        return self._fill_of(self.filled, self._reason or FillReason.PARTIAL)

    def _arrive(self) -> None:
        """Join the queue of the newest book, less the quantity that traded at the price since."""
        # Post-only: the exchange rejects an order that would take.
        if (reason := _passive_reject_reason(self.order, self._book)) is not None:
            self._reason = reason
            return
        displayed = shown(self.order, self._book)
        self._position = QueuePosition(displayed, self._model.cancellation_share)
        self._position.trade(self._traded, in_newest_book=False)

    def _see_trade(self, trade: Trade) -> Fill | None:
        if self.done or not self._meets(trade):
            return None
        # Trades and books are separate streams: a book may already reflect a trade that is received after it.
        in_newest_book = self._book.exchange_us is not None and trade.exchange_us <= self._book.exchange_us
        through = trade.price != self.order.price
        position = self._position
        if position is None:
            self._traded += 0.0 if through or in_newest_book else trade.quantity
            return None
        left = position.meet(trade.quantity, through, in_newest_book)
        quantity = min(self.remaining, left)
        if quantity <= 0:
            return None
        # Rounding may bring the sum to the order's quantity although a tiny rest remains.
        if quantity == self.remaining or self.filled + quantity >= self.order.quantity:
            self.filled, self._reason = self.order.quantity, FillReason.FILLED
        else:
            self.filled += quantity
        return self._fill_of(quantity, self._reason or FillReason.PARTIAL)

    def _see_book(self, book: OrderBookSnapshot) -> None:
        live = book.state == "live"
        if self._position is not None:
            self._position.book(shown(self.order, book) if live else None)
        self._book, self._traded = book, 0.0

    def _meets(self, trade: Trade) -> bool:
        """Whether a trade at this price and side can fill the order."""
        if trade.price == self.order.price:
            return trade.aggressor != self.order.side
        return self.order.reaches(trade.price)

    def _fill_of(self, quantity: float, reason: FillReason) -> Fill:
        price = self.order.price or math.nan
        return Fill(quantity, price, slippage_bps(self.order.side, price, self._touch), reason, "maker")


@dataclass(frozen=True, slots=True)
class _Interval:
    """The time between two books: quantity ahead and displayed at its start (None if unknown), and traded since."""

    ahead: float | None
    displayed: float | None
    traded: float = 0.0


class QueuePosition:
    """The queue position of an order that joined last. `share` is the share of cancelled quantity that was ahead.

    Between two books, the decrease of the level less the quantity traded at its price was cancelled. The quantity
    ahead never exceeds the displayed quantity.
    """

    def __init__(self, displayed: float | None, share: float) -> None:
        """`displayed` is the quantity at the price, None where the book does not reach it."""
        self._share = share
        self._shown = displayed
        self._ended: _Interval | None = None
        self._now = _Interval(displayed, displayed)

    @property
    def ahead(self) -> float | None:
        """Quantity that is filled before the order; None while it is unknown."""
        ahead = self._now.ahead
        return None if ahead is None else max(ahead - self._now.traded, 0.0)

    def trade(self, quantity: float, in_newest_book: bool) -> float:
        """Quantity of a trade at the price that was left for the order.

        `in_newest_book`: the newest book already reflects the trade, so that it belongs to the interval before that
        book. If the order joined after that interval, the trade cannot fill it.
        """
        if in_newest_book:
            ended = self._ended
            if ended is None or ended.ahead is None:
                return 0.0
            left = quantity - max(ended.ahead - ended.traded, 0.0)
            self._ended = replace(ended, traded=ended.traded + quantity)
            self._now = replace(self._now, ahead=self._after(self._ended))
            return max(left, 0.0)
        ahead = self.ahead
        self._now = replace(self._now, traded=self._now.traded + quantity)
        return 0.0 if ahead is None else max(quantity - ahead, 0.0)

    def meet(self, quantity: float, through: bool, in_newest_book: bool) -> float:
        """Quantity of a trade at the price, or `through` it, that was left for the order."""
        if not through:
            return self.trade(quantity, in_newest_book)
        if in_newest_book and not self.joined_before_newest_book():
            return 0.0
        self.clear()
        return quantity

    def clear(self) -> None:
        """The market traded through the price: nothing is ahead."""
        self._now = replace(self._now, ahead=0.0)
        if self._ended is not None:
            self._ended = replace(self._ended, ahead=0.0)

    def book(self, displayed: float | None) -> None:
        """A new book shows `displayed` at the price, None where it does not reach it."""
        self._ended, self._shown = self._now, displayed
        self._now = _Interval(self._after(self._ended), displayed)

    def joined_before_newest_book(self) -> bool:
        """Whether a trade that the newest book reflects may have come after the order."""
        return self._ended is not None

    def _after(self, interval: _Interval) -> float | None:
        shown = self._shown
        if interval.ahead is None:
            return shown
        ahead = max(interval.ahead - interval.traded, 0.0)
        if shown is None:
            return ahead
        if interval.displayed is not None:
            cancelled = max(interval.displayed - shown - interval.traded, 0.0)
            ahead = max(ahead - self._share * cancelled, 0.0)
        return min(ahead, shown)


def time_of(event: TapeEvent, time_source: TimeSource) -> int:
    """Microseconds since 1970; the receive time where the exchange gives none."""
    at_us = event.exchange_us if time_source == "exchange" else None
    return event.received_us if at_us is None else at_us


def _passive_reject_reason(order: BookOrder, book: OrderBookSnapshot) -> FillReason | None:
    if order.price is None:
        return FillReason.NOT_PASSIVE
    reason = reject_reason(order, book)
    if reason is None:
        return FillReason.WOULD_TAKE
    return None if reason is FillReason.NOT_MARKETABLE else reason


def shown(order: BookOrder, book: OrderBookSnapshot) -> float | None:
    """Quantity at the order's price; None where the book does not reach it."""
    levels = own_side(order.side, book)
    for price, quantity in levels:
        if price == order.price:
            return quantity
    # With fewer levels than requested the whole side is shown; otherwise prices beyond the last level are unknown.
    covered = len(levels) < book.depth or order.reaches(levels[-1][0])
    return 0.0 if covered else None
