"""An exchange's rules for orders: ticks, quantity steps, minimum value, trading status."""

from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from math import gcd

from bookbus.consumers.paper.fills.model import Order
from bookbus.schemas.instruments import NOT_MATCHING, Instrument
from bookbus.schemas.snapshot import OrderBookSnapshot, Side

_TICK_DECIMALS = 12
_TICK_LEVELS = 5


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why there is no order: `code` is for counting, `detail` for people."""

    code: str
    detail: str


def floor_to(value: float, unit: float | None) -> float:
    """The largest multiple of `unit` not above `value`, in exact decimal arithmetic; None leaves it alone."""
    return _to_multiple(value, unit, ROUND_FLOOR)


def ceil_to(value: float, unit: float | None) -> float:
    """The smallest multiple of `unit` not below `value`, in exact decimal arithmetic; None leaves it alone."""
    return _to_multiple(value, unit, ROUND_CEILING)


def fit_order(order: Order, instrument: Instrument, touch: float) -> Order | Rejection:
    """The order as the exchange takes it, or why it does not.

    Quantities round down, limits away from the market: a BUY down, a SELL up. Unknown rules, as in recordings,
    are not checked. `touch` prices a market order for the minimum value.
    """
    if instrument.status in NOT_MATCHING:
        return Rejection("not_trading", f"{instrument.symbol} is not trading on {instrument.exchange}")
    quantity = floor_to(order.quantity, instrument.step)
    if quantity <= 0:
        return Rejection("below_step", f"{order.quantity:g} is less than one step of {instrument.step:g}")
    price = order.price
    if price is not None:
        price = floor_to(price, instrument.tick) if order.side == "buy" else ceil_to(price, instrument.tick)
        if price <= 0:
            return Rejection("below_tick", f"a limit of {order.price:g} is less than one tick of {instrument.tick:g}")
    value = quantity * (price or touch)
    if instrument.minimum_notional is not None and value < instrument.minimum_notional:
        return Rejection("below_minimum_notional", f"{value:g} is less than {instrument.minimum_notional:g}")
    return replace(order, quantity=quantity, price=price)


def entry_price(side: Side, book: OrderBookSnapshot, entry_bps: float, tick: float | None) -> float | None:
    """Limit of a passive order: `entry_bps` behind the best price of its own side; 0 joins the best level.

    None on an empty side, or where the result is not above zero.
    """
    touch = book.best_bid() if side == "buy" else book.best_ask()
    return None if touch is None else _away(side, touch, entry_bps, tick)


def take_profit_price(entry_side: Side, entry: float, tp_bps: float, tick: float | None) -> float | None:
    """Limit of the order that closes a position entered at `entry` with `tp_bps` of profit before fees."""
    return _away("sell" if entry_side == "buy" else "buy", entry, tp_bps, tick)


class PriceUnit:
    """Infers an exchange's tick: the largest number that divides every price seen near the touch."""

    def __init__(self) -> None:
        self._unit = 0
        self._seen: OrderBookSnapshot | None = None

    @property
    def tick(self) -> float | None:
        """The inferred tick, which can only become smaller; None before the first book."""
        return float(Decimal(self._unit).scaleb(-_TICK_DECIMALS)) if self._unit else None

    def observe(self, book: OrderBookSnapshot) -> None:
        """Use the prices of one more book."""
        if book is self._seen:
            return
        self._seen = book
        for price, _ in (*book.bids[:_TICK_LEVELS], *book.asks[:_TICK_LEVELS]):
            self._unit = gcd(self._unit, int(Decimal(repr(price)).scaleb(_TICK_DECIMALS)))


def _away(side: Side, price: float, bps: float, tick: float | None) -> float | None:
    if side == "buy":
        away = floor_to(price * (1 - bps / 1e4), tick)
        return away if away > 0 else None
    return ceil_to(price * (1 + bps / 1e4), tick)


def _to_multiple(value: float, unit: float | None, rounding: str) -> float:
    if unit is None:
        return value
    exact = Decimal(repr(unit))
    return float((Decimal(repr(value)) / exact).to_integral_value(rounding) * exact)
