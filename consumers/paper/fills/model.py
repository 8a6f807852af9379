"""Orders, fills, and the fill models of marketable orders."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Literal, Protocol

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
class BookOrder:
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

    def fill(self, order: BookOrder, book: OrderBookSnapshot) -> Fill:
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


def reject_reason(order: BookOrder, book: OrderBookSnapshot) -> FillReason | None:
    """Why `order` cannot take from `book`; None if it can. Raises ValueError for another market's book."""
    require_same_market(order, book)
    if book.state != "live":
        return FillReason.BOOK_NOT_LIVE
    levels = opposite_side(order.side, book)
    if not levels:
        return FillReason.EMPTY_SIDE
    return None if order.reaches(levels[0][0]) else FillReason.NOT_MARKETABLE


def require_same_market(order: BookOrder, event: TapeEvent) -> None:
    """Raises ValueError if the event is not of the order's market."""
    if (order.exchange, order.symbol) != (event.exchange, event.symbol):
        raise ValueError(
            f"an order for {order.exchange}:{order.symbol} meets an event of {event.exchange}:{event.symbol}"
        )


def taker_fill(order: BookOrder, quantity: float, price: float, touch: float) -> Fill:
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

    def fill(self, order: BookOrder, book: OrderBookSnapshot) -> Fill:
        fill, takes = self._walk(order, book)
        memory = self._taken.setdefault((order.exchange, order.symbol, order.side), {})
        for price, take in takes:
            memory[price] = memory.get(price, 0.0) + take
        return fill

    def preview(self, order: BookOrder, book: OrderBookSnapshot) -> Fill:
        """What `fill` would return now, without taking it."""
        return self._walk(order, book)[0]

    def taken(self, exchange: str, symbol: str, side: Side, price: float) -> float:
        """Quantity that orders of this side took at the price and that is still displayed."""
        return self._taken.get((exchange, symbol, side), {}).get(price, 0.0)

    def _walk(self, order: BookOrder, book: OrderBookSnapshot) -> tuple[Fill, list[tuple[float, float]]]:
        """The fill, and the price and quantity that it takes of each level."""
        if (reason := reject_reason(order, book)) is not None:
            return no_fill(reason), []
        self.observe(book)
        memory = self._taken.get((order.exchange, order.symbol, order.side), {})
        levels = opposite_side(order.side, book)
        left, takes, cost = order.quantity, [], 0.0
        for price, displayed in levels:
            if left <= 0 or not order.reaches(price):
                break
            take = min(left, max(displayed - memory.get(price, 0.0), 0.0))
            if take > 0:
                takes.append((price, take))
                cost += take * price
                left -= take
        if not takes:
            return no_fill(FillReason.CONSUMED), []
        quantity = math.fsum(take for _, take in takes)
        # Rounding must not move the average outside the prices it is made of.
        average = min(max(cost / quantity, min(takes)[0]), max(takes)[0])
        return taker_fill(order, quantity if left > 0 else order.quantity, average, levels[0][0]), takes


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

    def fill(self, order: BookOrder, book: OrderBookSnapshot) -> Fill:
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

    def fill(self, order: BookOrder, book: OrderBookSnapshot) -> Fill:
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
