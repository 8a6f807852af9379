"""One trade from its entry to the last of its exits."""

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from bookbus.consumers.paper.account import exact
from bookbus.consumers.paper.calibration.table import Expectation
from bookbus.consumers.paper.entry_zones import Target
from bookbus.consumers.paper.execution import WaitingOrder
from bookbus.consumers.paper.fills.model import Fill, Order
from bookbus.consumers.paper.market import VenueQuote
from bookbus.consumers.paper.records import ExitReason

ROUNDING = Fraction(1, 10**12)
"""Share by which a fill in parts may differ from the whole."""

Phase = Literal["entering", "holding", "exiting"]


@dataclass(slots=True)
class SentOrder:
    """An order with what was known when it was decided on, and what became of it."""

    order_id: str
    order: Order
    quote: VenueQuote
    target_price: float
    exit_reason: ExitReason | None = None
    waiting: WaitingOrder | None = None
    fee: float = 0.0
    filled_at: float | None = None
    mid_at_fill: float | None = None
    cancelled_at: float | None = None


@dataclass(slots=True)
class OpenTrade:
    """`ordered` is what the entry asks for; `deadline` is when it, later the position, has waited long enough."""

    trade_id: str
    symbol: str
    target: Target
    ordered: float
    advice: Expectation | None
    deadline: float
    phase: Phase = "entering"
    sent: SentOrder | None = None
    exit_reason: ExitReason | None = None
    orders: int = 0
    bought: Fraction = field(default_factory=Fraction)
    cost: Fraction = field(default_factory=Fraction)
    sold: Fraction = field(default_factory=Fraction)
    pnl: Fraction = field(default_factory=Fraction)
    blocked: str = ""
    """Why the last attempt to leave did not work."""
    too_small: bool = False
    """What is left is less than the exchange takes."""
    tried: tuple[str, int, int, int] | None = None
    """Exchange, `seq`, update id and time of receipt of the book of the last attempt."""

    @property
    def expected(self) -> float | None:
        """What the calibration says of the entry; None where it says nothing."""
        return self.advice.buy if self.advice is not None else None

    @property
    def entered_whole(self) -> bool:
        """Whether the entry was filled as a table counts it: not in part."""
        return self.bought >= exact(self.ordered) * (1 - ROUNDING)

    @property
    def remaining(self) -> Fraction:
        """What is held and still to be sold."""
        return self.bought - self.sold

    @property
    def entry_price(self) -> float:
        """Average price paid."""
        return float(self.cost / self.bought)

    def next_order_id(self) -> str:
        """A name for one more order."""
        self.orders += 1
        return f"{self.trade_id}-{self.orders}"

    def book(self, order: Order, fill: Fill, quantity: Fraction, fee: float) -> None:
        """Count a fill."""
        value = quantity * exact(fill.price or 0.0)
        self.pnl -= exact(fee)
        if order.side == "buy":
            self.bought += quantity
            self.cost += value
            self.pnl -= value
        else:
            self.sold += quantity
            self.pnl += value
