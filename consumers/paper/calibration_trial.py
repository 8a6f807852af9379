"""One hypothetical trade along a tape: a passive entry, and if it is filled a passive exit at take-profit."""

from dataclasses import dataclass

from bookbus.consumers.paper.fills.model import FillReason, Order, TapeEvent
from bookbus.consumers.paper.fills.queue import QueuedOrder, QueueFill
from bookbus.consumers.paper.order_rules import entry_price, take_profit_price
from bookbus.schemas.snapshot import OrderBookSnapshot


@dataclass(frozen=True, slots=True)
class TrialSettings:
    """How long an order may wait, what it is worth, how its queue moves."""

    horizon_us: int
    notional: float
    queue: QueueFill


class Trial:
    """`entered` and `exited` are None while not known; `void` says that the tape could not decide."""

    def __init__(self, entry: QueuedOrder, exit_price: float, settings: TrialSettings, book: OrderBookSnapshot) -> None:
        self.entered: bool | None = None
        self.exited: bool | None = None
        self.void = False
        self._waiting = entry
        self._exit_price = exit_price
        self._settings = settings
        self._book = book

    @property
    def done(self) -> bool:
        """Whether the rest of the tape does not matter."""
        return self.void or self.entered is False or self.exited is not None

    def receive(self, event: TapeEvent) -> None:
        """The next book or trade of the market."""
        if self.done:
            return
        if isinstance(event, OrderBookSnapshot):
            if event.state != "live":
                self.void = True
                return
            self._book = event
        self.expire(event.received_us)
        if self.done:
            return
        self._waiting.receive(event)
        if self._waiting.done:
            reason = self._waiting.total().reason
            if reason is FillReason.FILLED:
                self._settle(True, event.received_us)
            else:
                # An entry that came too late to wait is none; an exit that finds the market beyond it is one.
                self._settle(self.entered is True and reason is FillReason.WOULD_TAKE)

    def expire(self, now_us: int) -> None:
        """What has waited longer than the horizon is not filled any more."""
        if not self.done and now_us > self._waiting.order.placed_us + self._settings.horizon_us:
            self._settle(False)

    def _settle(self, filled: bool, at_us: int = 0) -> None:
        if self.entered:
            self.exited = filled
            return
        self.entered = filled
        if filled:
            self._leave(at_us)

    def _leave(self, at_us: int) -> None:
        order = self._waiting.order
        leaving = Order(
            exchange=order.exchange,
            symbol=order.symbol,
            side="sell",
            quantity=order.quantity,
            placed_us=at_us,
            price=self._exit_price,
        )
        self._waiting = self._settings.queue.place(leaving, self._book)
        if self._waiting.done:
            self._settle(self._waiting.total().reason is FillReason.WOULD_TAKE)


def begin(
    book: OrderBookSnapshot, now_us: int, entry_bps: float, tp_bps: float, tick: float | None, settings: TrialSettings
) -> Trial | None:
    """A trial that decides now on the newest book; None where no order can wait in it."""
    price = entry_price("buy", book, entry_bps, tick)
    exit_price = None if price is None else take_profit_price("buy", price, tp_bps, tick)
    if price is None or exit_price is None:
        return None
    order = Order(
        exchange=book.exchange,
        symbol=book.symbol,
        side="buy",
        quantity=settings.notional / price,
        placed_us=now_us,
        price=price,
    )
    entry = settings.queue.place(order, book)
    return None if entry.done else Trial(entry, exit_price, settings, book)
