"""How a run's orders are filled: at once against the book, or by waiting for the market to come."""

import math
from dataclasses import dataclass
from typing import Protocol

from bookbus.consumers.paper.advanced_fill import AdvancedFill
from bookbus.consumers.paper.calibrated_fill import CalibratedFill
from bookbus.consumers.paper.calibration.table import CalibrationTable
from bookbus.consumers.paper.fills.model import Fill, FillModel, FillReason, Order, TapeEvent, nothing
from bookbus.consumers.paper.fills.queue import Clock, QueueFill
from bookbus.consumers.paper.fills.taker import BookWalk
from bookbus.consumers.paper.settings import RunSettings
from bookbus.consumers.paper.simple_fill import SimpleFill
from bookbus.schemas.snapshot import OrderBookSnapshot

FILL_MODELS = ("simple", "advanced", "book_walk", "queue", "calibrated")


class WaitingOrder(Protocol):
    """A passive order on the exchange; fed every book and trade of its market, in order."""

    @property
    def order(self) -> Order:
        """As it was placed."""

    @property
    def done(self) -> bool:
        """Whether nothing more can be filled."""

    def receive(self, event: TapeEvent) -> Fill | None:
        """What this event filled, if anything."""

    def cancel(self, sent_us: int) -> None:
        """Take it back, which may take its time."""

    def total(self) -> Fill:
        """All that was filled so far, and why not more."""


@dataclass(slots=True)
class Execution:
    """`taker` fills marketable orders; `name` is the model asked for, which a passive one shares with its waiting
    orders while stops and time exits go to `taker`.
    """

    name: str
    taker: FillModel
    queue: QueueFill | None = None
    calibrated: CalibratedFill | None = None
    walks: tuple[BookWalk, ...] = ()
    """Models that remember what they took."""

    @property
    def passive(self) -> bool:
        """Whether entries and take-profits wait."""
        return self.queue is not None or self.calibrated is not None

    def observe(self, book: OrderBookSnapshot) -> None:
        """Let models that remember what they took see which levels refreshed."""
        for walk in self.walks:
            walk.observe(book)

    def wait(self, order: Order, book: OrderBookSnapshot) -> WaitingOrder:
        """Send a passive order."""
        if self.queue is not None:
            return self.queue.place(order, book)
        if self.calibrated is not None:
            return DrawnOrder(order, self.calibrated.fill(order, book))
        raise ValueError(f"{self.name} fills at once")


def make_execution(settings: RunSettings, table: CalibrationTable | None, clock: Clock) -> Execution:
    """As the settings ask. Raises ValueError."""
    name, walk = settings.fill_model, BookWalk()
    match name:
        case "simple":
            return Execution(name, SimpleFill())
        case "advanced":
            return Execution(name, AdvancedFill())
        case "book_walk":
            return Execution(name, walk, walks=(walk,))
        case "queue":
            share = table.cancellation_share if table is not None else None
            return Execution(name, walk, queue=QueueFill(share or 0.0, clock=clock), walks=(walk,))
        case "calibrated" if table is not None:
            # A base of its own: what it only imagines to take must not be missing for real exits.
            base = BookWalk()
            wrapped = CalibratedFill(base, table, settings.calibrated_mode, settings.entry.seed)
            return Execution(name, walk, calibrated=wrapped, walks=(walk, base))
        case "calibrated":
            raise ValueError("--fill-model calibrated goes by a table: give --calibration-path")
    raise ValueError(f"unknown fill model {name!r}; known: {', '.join(FILL_MODELS)}")


class DrawnOrder:
    """An order whose fill was drawn when it was placed, and comes true once the market has come to its price.

    Without waiting for that, it would buy below a market that is not there yet.
    """

    def __init__(self, order: Order, drawn: Fill) -> None:
        self.order = order
        self._drawn = drawn
        self._total = nothing(FillReason.NOT_REACHED if drawn.quantity else drawn.reason)
        self.done = drawn.quantity <= 0 and drawn.reason is not FillReason.ZONE_MISS

    def receive(self, event: TapeEvent) -> Fill | None:
        """Filled by a live book whose best price on the order's own side is no better than the order's."""
        if self.done or not self._drawn.quantity or not isinstance(event, OrderBookSnapshot) or event.state != "live":
            return None
        if self.order.side == "buy":
            come = (event.best_bid() or math.inf) <= (self.order.price or 0.0)
        else:
            come = (event.best_ask() or 0.0) >= (self.order.price or math.inf)
        if not come:
            return None
        self.done, self._total = True, self._drawn
        return self._drawn

    def cancel(self, sent_us: int) -> None:
        """Without delay: the table's horizon already counts everything."""
        self.done = True

    def total(self) -> Fill:
        """What was drawn, once it came true."""
        return self._total
