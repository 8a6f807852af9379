"""How a run's orders are filled: at once against the book, or by waiting for the market to come."""

import math
import random
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

from bookbus.consumers.paper.calibration.table import CalibrationTable
from bookbus.consumers.paper.fills.model import (
    Fill,
    FillModel,
    FillReason,
    Order,
    TapeEvent,
    no_fill,
    opposite_side,
    reject_reason,
    slippage_bps,
)
from bookbus.consumers.paper.fills.queue import QueueFill, TimeSource
from bookbus.consumers.paper.fills.taker import AdvancedFill, BookWalk, SimpleFill
from bookbus.consumers.paper.settings import RunSettings
from bookbus.schemas.snapshot import OrderBookSnapshot

CalibratedMode = Literal["sampled", "expected"]
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


class CalibratedFill:
    """`sampled` fills an order or does not, with the zone's ratio as the probability; `expected` scales its quantity.

    Never more than the base model fills of the same quantity at once, and always at the order's own limit.
    """

    name: ClassVar[str] = "calibrated"

    def __init__(
        self, base: FillModel, table: CalibrationTable, mode: CalibratedMode = "sampled", seed: int = 42
    ) -> None:
        """Raises ValueError for a calibrated base, whose fills would be scaled twice."""
        if isinstance(base, CalibratedFill):
            raise ValueError(f"calibrated goes over a model of marketable orders, not over {base.name}")
        self._base = base
        self._table = table
        self._mode: CalibratedMode = mode
        self._random = random.Random(seed)  # noqa: S311 - not a secret

    def fill(self, order: Order, book: OrderBookSnapshot) -> Fill:
        """Raises ValueError for an order without `entry_bps` and `tp_bps`."""
        if order.entry_bps is None or order.tp_bps is None:
            raise ValueError("a calibrated fill needs the entry_bps and tp_bps of the order")
        if order.price is None:
            return no_fill(FillReason.NOT_PASSIVE)
        reason = reject_reason(order, book)
        if reason is not FillReason.NOT_MARKETABLE:
            return no_fill(reason or FillReason.WOULD_TAKE)
        expectation = self._table.expect(order.entry_bps, order.tp_bps)
        ratio = expectation.ratio(order.side)
        if ratio is None:
            return no_fill(FillReason.ZONE_UNKNOWN if expectation.zone_id is None else FillReason.ZONE_UNUSABLE)
        if self._mode == "sampled":
            # Drawn before the base is asked, which may remember what it fills.
            if self._random.random() >= ratio:
                return no_fill(FillReason.ZONE_MISS)
            ratio = 1.0
        base = self._base.fill(replace(order, price=None, target_price=None), book)
        quantity = base.quantity * ratio
        if quantity <= 0:
            return no_fill(FillReason.ZONE_MISS if base.quantity else base.reason)
        touch = opposite_side(order.side, book)[0][0]
        reason = FillReason.FILLED if quantity == order.quantity else FillReason.PARTIAL
        return Fill(quantity, order.price, slippage_bps(order.side, order.price, touch), reason, "maker")


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
            return SampledOrder(order, self.calibrated.fill(order, book))
        raise ValueError(f"{self.name} fills at once")


def make_execution(settings: RunSettings, table: CalibrationTable | None, time_source: TimeSource) -> Execution:
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
            return Execution(name, walk, queue=QueueFill(share or 0.0, time_source=time_source), walks=(walk,))
        case "calibrated" if table is not None:
            # A base of its own: what it only imagines to take must not be missing for real exits.
            base = BookWalk()
            wrapped = CalibratedFill(base, table, settings.calibrated_mode, settings.entry.seed)
            return Execution(name, walk, calibrated=wrapped, walks=(walk, base))
        case "calibrated":
            raise ValueError("--fill-model calibrated goes by a table: give --calibration-path")
    raise ValueError(f"unknown fill model {name!r}; known: {', '.join(FILL_MODELS)}")


class SampledOrder:
    """An order whose fill was drawn when it was placed, and comes true once the market has come to its price.

    Without waiting for that, it would buy below a market that is not there yet.
    """

    def __init__(self, order: Order, drawn: Fill) -> None:
        self.order = order
        self._drawn = drawn
        self._total = no_fill(FillReason.NOT_REACHED if drawn.quantity else drawn.reason)
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
