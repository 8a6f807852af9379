"""The simple fill model: the best level alone, and a slippage that grows with the share taken of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from bookbus.consumers.paper.fills.model import Fill, Order, TapeEvent, nothing, obstacle, opposite, taken
from bookbus.schemas.snapshot import OrderBookSnapshot


@dataclass(frozen=True, slots=True)
class SimpleFill:
    """Fills `min(order, best level)` at `target * (1 ± alpha * filled / level)`, never better than the touch."""

    name: ClassVar[str] = "simple"
    alpha: float = 1e-4

    def fill(self, order: Order, book: OrderBookSnapshot, tape: Iterable[TapeEvent] = ()) -> Fill:
        """At once or not at all; `tape` does not matter."""
        if (reason := obstacle(order, book)) is not None:
            return nothing(reason)
        touch, available = opposite(order.side, book)[0]
        quantity = min(order.quantity, available)
        impact = min(quantity / available, 1.0)
        sign = 1 if order.side == "buy" else -1
        price = (order.target_price or touch) * (1 + sign * self.alpha * impact)
        return taken(order, quantity, price, touch)
