"""Connects fill models to orders: marketable ones fill against the book, passive ones wait for the market."""

import math
import random
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

from bookbus.consumers.paper.calibration.table import CalibrationTable
from bookbus.consumers.paper.fills.model import (
    AdvancedFill,
    BookOrder,
    BookWalk,
    Fill,
    FillModel,
    FillReason,
    SimpleFill,
    TapeEvent,
    no_fill,
    opposite_side,
    reject_reason,
    slippage_bps,
)
from bookbus.consumers.paper.fills.queue import QueueFill, TimeSource
from bookbus.consumers.paper.settings import RunSettings
from bookbus.schemas.snapshot import OrderBookSnapshot

CalibratedMode = Literal["sampled", "expected"]
FILL_MODELS = ("simple", "advanced", "book_walk", "queue", "calibrated")


class WaitingOrder(Protocol):
    """A passive order on the exchange. It must receive every book and trade of its market, in order."""

    @property
    def order(self) -> BookOrder:
        """The order as it was placed."""

    @property
    def done(self) -> bool:
        """Whether no further fill can follow."""

    def receive(self, event: TapeEvent) -> Fill | None:
        """The fill by this event, None if it fills nothing."""

    def cancel(self, sent_us: int) -> None:
        """Cancel the order; the cancel may take effect later."""

    def total(self) -> Fill:
        """The sum of the fills so far, with the reason why not more was filled."""


class CalibratedFill:
    """`sampled` fills the whole order with the zone's fill ratio as probability; `expected` fills that share of it.

    A fill never exceeds what the base model fills of the same quantity at once; its price is the order's limit.
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
        self._rng = random.Random(seed)  # noqa: S311 - not a secret

    def fill(self, order: BookOrder, book: OrderBookSnapshot) -> Fill:
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
            # Sampled before the base fills, because the base may remember the quantity that it took.
            if self._rng.random() >= ratio:
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
    """The fill models of one run. `taker` fills marketable orders, which stops and time exits always are; `name` is
    the model that was asked for, and names the fills of waiting orders.
    """

    name: str
    taker: FillModel
    queue: QueueFill | None = None
    calibrated: CalibratedFill | None = None
    walks: tuple[BookWalk, ...] = ()
    """Models that remember the quantity they took."""

    @property
    def passive(self) -> bool:
        """Whether entries and take-profits wait on the exchange."""
        return self.queue is not None or self.calibrated is not None

    def observe(self, book: OrderBookSnapshot) -> None:
        """Let models that remember what they took see which levels were refreshed."""
        for walk in self.walks:
            walk.observe(book)

    def wait(self, order: BookOrder, book: OrderBookSnapshot) -> WaitingOrder:
        """Raises ValueError if the model fills at once."""
        if self.queue is not None:
            return self.queue.place(order, book)
        if self.calibrated is not None:
            return SampledOrder(order, self.calibrated.fill(order, book))
        raise ValueError(f"{self.name} fills at once")


def make_execution(settings: RunSettings, table: CalibrationTable | None, time_source: TimeSource) -> Execution:
    """The fill models that the settings name. Raises ValueError for an unknown or incomplete choice."""
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
            # A separate base: its hypothetical fills must not reduce the quantity left for exits.
            base = BookWalk()
            wrapped = CalibratedFill(base, table, settings.calibrated_mode, settings.entry.seed)
            return Execution(name, walk, calibrated=wrapped, walks=(walk, base))
        case "calibrated":
            raise ValueError("--fill-model calibrated needs a table: give --calibration-path")
    raise ValueError(f"unknown fill model {name!r}; known: {', '.join(FILL_MODELS)}")


class SampledOrder:
    """An order whose fill was sampled when it was placed, and happens when the market reaches the order's price.

    A fill at once would buy below the market.
    """

    def __init__(self, order: BookOrder, sampled: Fill) -> None:
        self.order = order
        self._sampled = sampled
        self._total = no_fill(FillReason.NOT_REACHED if sampled.quantity else sampled.reason)
        self.done = sampled.quantity <= 0 and sampled.reason is not FillReason.ZONE_MISS

    def receive(self, event: TapeEvent) -> Fill | None:
        """A live book fills it when its best price on the order's side is no better than the order's price."""
        if self.done or not self._sampled.quantity or not isinstance(event, OrderBookSnapshot) or event.state != "live":
            return None
        if self.order.side == "buy":
            reached = (event.best_bid() or math.inf) <= (self.order.price or 0.0)
        else:
            reached = (event.best_ask() or 0.0) >= (self.order.price or math.inf)
        if not reached:
            return None
        self.done, self._total = True, self._sampled
        return self._sampled

    def cancel(self, sent_us: int) -> None:
        """Without delay: the fill ratios of the table already include it."""
        self.done = True

    def total(self) -> Fill:
        return self._total
