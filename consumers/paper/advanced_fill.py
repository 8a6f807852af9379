"""The advanced fill model: virtual levels behind the best one, thinning out by distance."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from bookbus.consumers.paper.fills.model import Fill, Order, TapeEvent, nothing, obstacle, opposite, taken
from bookbus.schemas.snapshot import OrderBookSnapshot


@dataclass(frozen=True, slots=True)
class AdvancedFill:
    """Level i holds `best quantity * multiplier * exp(-decay * i)` at `target * (1 ± spacing_bps * i / 10^4)`.

    Taking a share of a level costs `alpha * share ^ exponent` on top. Virtual levels may hold more than the real
    ones: what is filled never exceeds what the book shows within the limit, nor is it ever better than the touch.
    """

    name: ClassVar[str] = "advanced"
    alpha: float = 2e-4
    levels: int = 5
    spacing_bps: float = 1.0
    decay: float = 0.3
    exponent: float = 1.2
    multiplier: float = 0.8

    def fill(self, order: Order, book: OrderBookSnapshot, tape: Iterable[TapeEvent] = ()) -> Fill:
        """At once or not at all; `tape` does not matter."""
        if (reason := obstacle(order, book)) is not None:
            return nothing(reason)
        levels = opposite(order.side, book)
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
        return taken(order, quantity if left > 0 else wanted, cost / quantity, touch)
