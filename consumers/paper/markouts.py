"""What the market did after each fill, looked at when the time has come."""

import heapq
from collections.abc import Callable
from typing import NamedTuple

from bookbus.consumers.paper.records import HORIZONS
from bookbus.schemas.snapshot import Side

MidOf = Callable[[str, str], float | None]
"""The mid of a symbol on an exchange now; None if there is no live book."""

LATE = 0.5
"""Seconds after which it is too late to say what the mid was then."""

WriteMarkout = Callable[[str, str, int, float | None], None]


class _Due(NamedTuple):
    at: float
    number: int
    trade_id: str
    order_id: str
    symbol: str
    exchange: str
    side: Side
    price: float
    horizon: int


class Markouts:
    """The looks that are still to come, the next first."""

    def __init__(self) -> None:
        self._due: list[_Due] = []
        self._number = 0

    @property
    def next_due(self) -> float:
        """When to look next; infinity if there is nothing to look at."""
        return self._due[0].at if self._due else float("inf")

    def expect(
        self, trade_id: str, order_id: str, symbol: str, exchange: str, side: Side, price: float, filled_at: float
    ) -> None:
        """Look at each horizon after this fill."""
        for horizon in HORIZONS:
            self._number += 1
            due = _Due(filled_at + horizon, self._number, trade_id, order_id, symbol, exchange, side, price, horizon)
            heapq.heappush(self._due, due)

    def look(self, now: float, mid_of: MidOf, write: WriteMarkout) -> None:
        """Write those whose time has come: how far the mid is from the fill's price, positive in our favour."""
        while self._due and self._due[0].at <= now:
            due = heapq.heappop(self._due)
            mid = mid_of(due.symbol, due.exchange) if now - due.at <= LATE else None
            sign = 1 if due.side == "buy" else -1
            bps = None if mid is None else sign * (mid - due.price) / due.price * 1e4
            write(due.trade_id, due.order_id, due.horizon, bps)
