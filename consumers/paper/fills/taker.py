"""Fill models of marketable orders."""

import math
from dataclasses import dataclass
from typing import ClassVar

from bookbus.consumers.paper.fills.model import (
    Fill,
    FillReason,
    Order,
    no_fill,
    opposite_side,
    reject_reason,
    slippage_bps,
    taker_fill,
)
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot, Side


class BookWalk:
    """Takes the displayed levels, each quantity once: the real book does not lose what a paper order takes.

    The quantity taken from a level stays unavailable until the level is refreshed: quantity added later is
    available, a level that shrinks below the taken quantity reduces it, and a level that disappears resets it.
    """

    name: ClassVar[str] = "book_walk"

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str, Side], dict[float, float]] = {}

    def observe(self, book: OrderBookSnapshot) -> None:
        """See which levels were refreshed. `fill` does this too; call it for every book between fills."""
        if book.state != "live":
            return
        sides: tuple[Side, Side] = ("buy", "sell")
        for side in sides:
            if memory := self._taken.get((book.exchange, book.symbol, side)):
                _refresh(memory, opposite_side(side, book), side, book.depth)

    def fill(self, order: Order, book: OrderBookSnapshot) -> Fill:
        if (reason := reject_reason(order, book)) is not None:
            return no_fill(reason)
        self.observe(book)
        memory = self._taken.setdefault((order.exchange, order.symbol, order.side), {})
        levels = opposite_side(order.side, book)
        left, takes, prices, cost = order.quantity, [], [], 0.0
        for price, displayed in levels:
            if left <= 0 or not order.reaches(price):
                break
            take = min(left, max(displayed - memory.get(price, 0.0), 0.0))
            if take > 0:
                memory[price] = memory.get(price, 0.0) + take
                takes.append(take)
                prices.append(price)
                cost += take * price
                left -= take
        if not takes:
            return no_fill(FillReason.CONSUMED)
        quantity = math.fsum(takes)
        # Rounding must not move the average outside the prices it is made of.
        average = min(max(cost / quantity, min(prices)), max(prices))
        return taker_fill(order, quantity if left > 0 else order.quantity, average, levels[0][0])


def _refresh(memory: dict[float, float], levels: Levels, side: Side, depth: int) -> None:
    displayed = dict(levels)
    # Beyond the last level of a full book there may be levels that are not published.
    hidden_from = levels[-1][0] if len(levels) >= depth else None
    for price in list(memory):
        if price in displayed:
            memory[price] = min(memory[price], displayed[price])
        elif hidden_from is None or slippage_bps(side, price, hidden_from) <= 0:
            del memory[price]


@dataclass(frozen=True, slots=True)
class SimpleFill:
    """Fills `min(order, best level)` at `target * (1 ± alpha * filled / level)`, never better than the touch."""

    name: ClassVar[str] = "simple"
    alpha: float = 1e-4

    def fill(self, order: Order, book: OrderBookSnapshot) -> Fill:
        if (reason := reject_reason(order, book)) is not None:
            return no_fill(reason)
        touch, available = opposite_side(order.side, book)[0]
        quantity = min(order.quantity, available)
        impact = min(quantity / available, 1.0)
        sign = 1 if order.side == "buy" else -1
        price = (order.target_price or touch) * (1 + sign * self.alpha * impact)
        return taker_fill(order, quantity, price, touch)


@dataclass(frozen=True, slots=True)
class AdvancedFill:
    """Level i holds `best quantity * multiplier * exp(-decay * i)` at `target * (1 ± spacing_bps * i / 10^4)`.

    Taking a share of a level adds an impact of `alpha * share ^ exponent` to its price. Virtual levels may hold more
    than the real ones: a fill never exceeds what the book shows within the limit, and is never better than the touch.
    """

    name: ClassVar[str] = "advanced"
    alpha: float = 2e-4
    levels: int = 5
    spacing_bps: float = 1.0
    decay: float = 0.3
    exponent: float = 1.2
    multiplier: float = 0.8

    def fill(self, order: Order, book: OrderBookSnapshot) -> Fill:
        if (reason := reject_reason(order, book)) is not None:
            return no_fill(reason)
        levels = opposite_side(order.side, book)
        touch, available = levels[0]
        target = order.target_price or touch
        sign = 1 if order.side == "buy" else -1
        wanted = min(order.quantity, math.fsum(quantity for price, quantity in levels if order.reaches(price)))
        left, takes, cost = wanted, [], 0.0
        for number in range(self.levels):
            price = target * (1 + sign * self.spacing_bps * number / 1e4)
            if left <= 0 or not (number == 0 or order.reaches(price)):
                break
            volume = available * self.multiplier * math.exp(-self.decay * number)
            take = min(left, volume)
            takes.append(take)
            cost += take * price * (1 + sign * self.alpha * (take / volume) ** self.exponent)
            left -= take
        quantity = math.fsum(takes)
        return taker_fill(order, quantity if left > 0 else wanted, cost / quantity, touch)
