"""The fill model of passive orders: a place in the queue that trades and cancellations move forward."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from consumers.paper.fill_model import (
    Fill,
    FillReason,
    Order,
    TapeEvent,
    nothing,
    opposite,
    own,
    require_same_market,
    slippage_bps,
)
from schemas.snapshot import OrderBookSnapshot
from schemas.trade import Trade

Clock = Literal["received", "exchange"]


def time_of(event: TapeEvent, clock: Clock) -> int:
    """When it happened in microseconds since 1970, by receipt where the exchange gives no time."""
    at_us = event.exchange_us if clock == "exchange" else None
    return event.received_us if at_us is None else at_us


@dataclass(frozen=True, slots=True)
class QueueFill:
    """`cancellation_share` is the share of cancelled quantity that stood ahead of us, as calibration fits it; 0 where
    nobody fitted one, so that only trades move the queue.

    An order and its cancel take effect `latency_us` after they are sent. `clock` is what the events of the tape are
    ordered by: receipt in a recording, the exchange's time where books and trades were merged by it.
    """

    name: ClassVar[str] = "queue"
    cancellation_share: float = 0.0
    latency_us: int = 50_000
    clock: Clock = "received"

    def __post_init__(self) -> None:
        if not 0 <= self.cancellation_share <= 1:
            raise ValueError(f"the share of cancellations ahead is between 0 and 1, got {self.cancellation_share}")
        if self.latency_us < 0:
            raise ValueError(f"a latency is not below zero, got {self.latency_us}")

    def place(self, order: Order, book: OrderBookSnapshot) -> "QueuedOrder":
        """The order on its way to the exchange, `book` being the newest seen when it was sent."""
        require_same_market(order, book)
        return QueuedOrder(order, book, self)

    def fill(self, order: Order, book: OrderBookSnapshot, tape: Iterable[TapeEvent] = ()) -> Fill:
        """What the order got by the end of `tape`."""
        queued = self.place(order, book)
        for event in tape:
            if queued.done:
                break
            queued.receive(event)
        return queued.total()


class QueuedOrder:
    """One passive order and what is ahead of it. Feed it every book and trade of its market, in order.

    Trades at its price move it forward and then fill it; a print through its price fills it, up to what printed. A
    level that shrank by more than was traded at it since the last book was cancelled for the rest, of which the
    fitted share stood ahead. Where the books do not reach its price, all that is shown once they do is ahead.
    """

    def __init__(self, order: Order, book: OrderBookSnapshot, model: QueueFill) -> None:
        self.order = order
        self.filled = 0.0
        self._model = model
        self._effective_us = order.placed_us + model.latency_us
        self._cancelled_us: int | None = None
        self._reason: FillReason | None = None
        self._touch: float | None = None
        self._book = book
        self._active = False
        self._displayed: float | None = None
        self._ahead: float | None = None
        self._traded = 0.0
        levels = opposite(order.side, book)
        if book.state != "live":
            self._reason = FillReason.BOOK_NOT_LIVE
        elif order.price is None:
            self._reason = FillReason.NOT_PASSIVE
        elif not levels:
            self._reason = FillReason.EMPTY_SIDE
        elif order.reaches(levels[0][0]):
            self._reason = FillReason.WOULD_TAKE
        else:
            self._touch = levels[0][0]

    @property
    def done(self) -> bool:
        """Whether nothing more can be filled."""
        return self._reason is not None

    @property
    def active(self) -> bool:
        """Whether the order reached the exchange and still stands there."""
        return self._active and not self.done

    @property
    def remaining(self) -> float:
        """What is not filled."""
        return max(self.order.quantity - self.filled, 0.0)

    @property
    def ahead(self) -> float | None:
        """Quantity that is served before us; None while it is not known."""
        return self._ahead

    def cancel(self, sent_us: int) -> None:
        """Take the order back, which takes its time too; what trades until then still fills it."""
        if self._cancelled_us is None:
            self._cancelled_us = sent_us + self._model.latency_us

    def receive(self, event: TapeEvent) -> Fill | None:
        """What this event filled, if anything. Raises ValueError for an event of another market."""
        require_same_market(self.order, event)
        if self.done:
            return None
        at_us = time_of(event, self._model.clock)
        if self._cancelled_us is not None and at_us >= self._cancelled_us:
            self._reason = FillReason.PARTIAL if self.filled else FillReason.NOT_REACHED
            return None
        if not self._active and at_us >= self._effective_us:
            self._arrive()
        if isinstance(event, Trade):
            return self._see_trade(event)
        self._see_book(event)
        return None

    def total(self) -> Fill:
        """All that was filled so far, and why not more."""
        if not self.filled:
            return nothing(self._reason or FillReason.NOT_REACHED)
        return self._fill_of(self.filled, self._reason or FillReason.PARTIAL)

    def _arrive(self) -> None:
        """The order joins the queue of the newest book, less what traded at its price since."""
        levels = opposite(self.order.side, self._book)
        if levels and self.order.reaches(levels[0][0]):
            # Passive means that the exchange refuses it rather than let it take.
            self._reason = FillReason.WOULD_TAKE
            return
        self._active = True
        self._displayed = self._shown(self._book)
        self._ahead = None if self._displayed is None else max(self._displayed - self._traded, 0.0)

    def _see_trade(self, trade: Trade) -> Fill | None:
        if self.done or not self._meets(trade):
            return None
        through = trade.price != self.order.price
        if not through:
            self._traded += trade.quantity
        if not self._active:
            return None
        if through:
            self._ahead, left = 0.0, trade.quantity
        elif self._ahead is None:
            return None
        else:
            left = trade.quantity - self._ahead
            self._ahead = max(self._ahead - trade.quantity, 0.0)
        quantity = min(self.remaining, left)
        if quantity <= 0:
            return None
        self.filled = self.order.quantity if quantity == self.remaining else self.filled + quantity
        if self.filled == self.order.quantity:
            self._reason = FillReason.FILLED
        return self._fill_of(quantity, self._reason or FillReason.PARTIAL)

    def _see_book(self, book: OrderBookSnapshot) -> None:
        if book.state == "live":
            shown = self._shown(book)
            if self._active and shown is not None:
                self._ahead = self._moved_up(shown)
            self._displayed = shown
            self._book = book
        else:
            self._displayed = None
        self._traded = 0.0

    def _moved_up(self, shown: float) -> float:
        """What is ahead after an interval that ended with `shown` at our price."""
        if self._ahead is None:
            return shown
        if self._displayed is None:
            return min(self._ahead, shown)
        cancelled = max(self._displayed - shown - self._traded, 0.0)
        return min(max(self._ahead - self._model.cancellation_share * cancelled, 0.0), shown)

    def _meets(self, trade: Trade) -> bool:
        """Whether the trade is one that an order like ours takes part in, or would have."""
        price, side = self.order.price, self.order.side
        if trade.price == price:
            return trade.aggressor != side
        return self.order.reaches(trade.price)

    def _shown(self, book: OrderBookSnapshot) -> float | None:
        """Quantity at our price; None where the book does not show so far."""
        price, levels = self.order.price, own(self.order.side, book)
        if price is None:
            return None
        for level, quantity in levels:
            if level == price:
                return quantity
        reaches_us = len(levels) < book.depth or (
            levels[-1][0] < price if self.order.side == "buy" else levels[-1][0] > price
        )
        return 0.0 if reaches_us else None

    def _fill_of(self, quantity: float, reason: FillReason) -> Fill:
        price, touch = self.order.price, self._touch
        if price is None or touch is None:
            return nothing(reason)
        return Fill(quantity, price, slippage_bps(self.order.side, price, touch), reason, "maker")
