"""Orders, fills, and the interface of fill models."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol

from bookbus.schemas.snapshot import Levels, OrderBookSnapshot, Side
from bookbus.schemas.trade import Trade

Liquidity = Literal["maker", "taker"]

TapeEvent = OrderBookSnapshot | Trade
"""A book or a trade of one market."""


class FillReason(StrEnum):
    """Why an order was filled, partly filled or not filled; only the first two have a quantity."""

    FILLED = "filled"
    PARTIAL = "partial"
    EMPTY_SIDE = "empty_side"
    CONSUMED = "consumed"
    BOOK_NOT_LIVE = "book_not_live"
    NOT_MARKETABLE = "not_marketable"
    NOT_PASSIVE = "not_passive"
    WOULD_TAKE = "would_take"
    NOT_REACHED = "not_reached"
    ZONE_UNKNOWN = "zone_unknown"
    ZONE_UNUSABLE = "zone_unusable"
    ZONE_MISS = "zone_miss"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """`price` is the limit, None a market order; times are microseconds since 1970.

    `target_price` is the price of the decision, None for the touch (best price that the order can take).
    `entry_bps` and `tp_bps` are the decision's target, for models with zones.
    """

    exchange: str
    symbol: str
    side: Side
    quantity: float
    placed_us: int
    price: float | None = None
    target_price: float | None = None
    entry_bps: float | None = None
    tp_bps: float | None = None

    def __post_init__(self) -> None:
        for name in ("quantity", "price", "target_price"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"the {name} of an order must be finite and above zero, got {value}")

    def reaches(self, price: float) -> bool:
        """Whether the limit allows to trade at `price`."""
        if self.price is None:
            return True
        return price <= self.price if self.side == "buy" else price >= self.price


@dataclass(frozen=True, slots=True)
class Fill:
    """`price` is the average, `slippage_bps` its cost against the touch at the decision (positive is worse).

    Without a quantity, price, slippage and liquidity are None.
    """

    quantity: float
    price: float | None
    slippage_bps: float | None
    reason: FillReason
    liquidity: Liquidity | None


class FillModel(Protocol):
    """Fills marketable orders. A model may remember the quantity that it took before."""

    @property
    def name(self) -> str:
        """The name on the command line."""

    def fill(self, order: Order, book: OrderBookSnapshot) -> Fill:
        """The fill of `order` against `book`, at once or not at all."""


def no_fill(reason: FillReason) -> Fill:
    return Fill(0.0, None, None, reason, None)


def opposite_side(side: Side, book: OrderBookSnapshot) -> Levels:
    """The levels that an order takes from: asks for a buy, bids for a sell."""
    return book.asks if side == "buy" else book.bids


def own_side(side: Side, book: OrderBookSnapshot) -> Levels:
    """The levels where an order waits: bids for a buy, asks for a sell."""
    return book.bids if side == "buy" else book.asks


def slippage_bps(side: Side, price: float, touch: float) -> float:
    """Cost of `price` against `touch` in basis points; positive is worse."""
    return (price - touch if side == "buy" else touch - price) / touch * 1e4


def reject_reason(order: Order, book: OrderBookSnapshot) -> FillReason | None:
    """Why `order` cannot take from `book`; None if it can. Raises ValueError for another market's book."""
    require_same_market(order, book)
    if book.state != "live":
        return FillReason.BOOK_NOT_LIVE
    levels = opposite_side(order.side, book)
    if not levels:
        return FillReason.EMPTY_SIDE
    return None if order.reaches(levels[0][0]) else FillReason.NOT_MARKETABLE


def require_same_market(order: Order, event: TapeEvent) -> None:
    """Raises ValueError if the event is not of the order's market."""
    if (order.exchange, order.symbol) != (event.exchange, event.symbol):
        raise ValueError(
            f"an order for {order.exchange}:{order.symbol} meets an event of {event.exchange}:{event.symbol}"
        )


def taker_fill(order: Order, quantity: float, price: float, touch: float) -> Fill:
    """A fill against resting orders; its price is clamped between the touch and the order's limit."""
    if order.side == "buy":
        price = max(price, touch)
        price = price if order.price is None else min(price, order.price)
    else:
        price = min(price, touch)
        price = price if order.price is None else max(price, order.price)
    quantity = min(quantity, order.quantity)
    reason = FillReason.FILLED if quantity == order.quantity else FillReason.PARTIAL
    return Fill(quantity, price, slippage_bps(order.side, price, touch), reason, "taker")
