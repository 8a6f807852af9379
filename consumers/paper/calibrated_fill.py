"""A wrapper for passive orders: another model's fill, as often as orders of its zone were filled on a tape."""

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar, Literal

from bookbus.consumers.paper.calibration.table import CalibrationTable
from bookbus.consumers.paper.fills.model import (
    Fill,
    FillModel,
    FillReason,
    Order,
    TapeEvent,
    nothing,
    obstacle,
    opposite,
    slippage_bps,
)
from bookbus.consumers.paper.fills.queue import QueueFill
from bookbus.schemas.snapshot import OrderBookSnapshot

CalibratedMode = Literal["sampled", "expected"]


class CalibratedFill:
    """`sampled` fills an order or does not, with the zone's ratio as the probability; `expected` scales its quantity.

    Never more than the base model fills of the same quantity at once, and always at the order's own limit.
    """

    name: ClassVar[str] = "calibrated"

    def __init__(
        self, base: FillModel, table: CalibrationTable, mode: CalibratedMode = "sampled", seed: int = 42
    ) -> None:
        """Raises ValueError for a base that already models waiting: its fills would be thinned out twice."""
        if isinstance(base, QueueFill | CalibratedFill):
            raise ValueError(f"calibrated goes over a model of marketable orders, not over {base.name}")
        self._base = base
        self._table = table
        self._mode: CalibratedMode = mode
        self._random = random.Random(seed)  # noqa: S311 - not a secret

    def fill(self, order: Order, book: OrderBookSnapshot, tape: Iterable[TapeEvent] = ()) -> Fill:
        """Decided at once; `tape` does not matter. Raises ValueError for an order that does not say what it aims at."""
        if order.entry_bps is None or order.tp_bps is None:
            raise ValueError("a calibrated fill needs the entry_bps and tp_bps of the order")
        if order.price is None:
            return nothing(FillReason.NOT_PASSIVE)
        reason = obstacle(order, book)
        if reason is not FillReason.NOT_MARKETABLE:
            return nothing(reason or FillReason.WOULD_TAKE)
        expectation = self._table.expect(order.entry_bps, order.tp_bps)
        ratio = expectation.ratio(order.side)
        if ratio is None:
            return nothing(FillReason.ZONE_UNKNOWN if expectation.zone_id is None else FillReason.ZONE_UNUSABLE)
        if self._mode == "sampled":
            # Drawn before the base is asked, which may remember what it fills.
            if self._random.random() >= ratio:
                return nothing(FillReason.ZONE_MISS)
            ratio = 1.0
        base = self._base.fill(replace(order, price=None, target_price=None), book)
        quantity = base.quantity * ratio
        if quantity <= 0:
            return nothing(FillReason.ZONE_MISS if base.quantity else base.reason)
        touch = opposite(order.side, book)[0][0]
        reason = FillReason.FILLED if quantity == order.quantity else FillReason.PARTIAL
        return Fill(quantity, order.price, slippage_bps(order.side, order.price, touch), reason, "maker")
