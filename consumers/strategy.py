"""The interface of a strategy of one's own: what it is told, and what it can do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import msgspec

from bookbus.consumers.reading import Reading
from bookbus.schemas.snapshot import OrderBookSnapshot, Side
from bookbus.schemas.trade import Trade

TimeInForce = Literal["GTC", "IOC", "FOK"]
OrderStatus = Literal["sent", "open", "filled", "cancelled", "rejected", "expired"]
OrderEvent = Literal[
    "accepted", "rejected", "partly_filled", "filled", "amended", "cancelled", "expired", "cancel_refused"
]
"""`cancel_refused` answers a cancel or an amendment that came too late or was not possible; the order stays as it was.
"""


@dataclass(slots=True, eq=False)
class Order:
    """An order as its strategy knows it: each answer of the exchange changes it just before `on_order` is called.

    `price` is None for a market order. `symbol` is the name to use with the context.
    """

    id: str
    symbol: str
    side: Side
    quantity: float
    price: float | None
    time_in_force: TimeInForce
    post_only: bool
    sent_us: int
    status: OrderStatus = "sent"
    filled: float = 0.0
    average_price: float | None = None
    fee: float = 0.0
    fee_asset: str = ""

    @property
    def done(self) -> bool:
        """Whether no further fill can follow."""
        return self.status not in ("sent", "open")

    @property
    def remaining(self) -> float:
        return self.quantity - self.filled


class OrderUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to an order, at `time_us` on the exchange.

    `quantity`, `price`, `fee` and `liquidity` are those of this fill; without one, quantity and fee are 0. `filled` is
    the sum so far; `order_quantity` and `order_price` are what the order is for now. `reason` is a code for `rejected`,
    `expired`, `cancelled` and `cancel_refused`, `detail` the same for people.
    """

    event: OrderEvent
    time_us: int
    order_quantity: float
    order_price: float | None
    filled: float
    average_price: float | None
    quantity: float = 0.0
    price: float | None = None
    fee: float = 0.0
    fee_asset: str = ""
    liquidity: Literal["maker", "taker"] | None = None
    reason: str = ""
    detail: str = ""


class Context(Protocol):
    """What a strategy can see and do. Symbols are those of `symbols`; `exchange:symbol` is always understood.

    Everything is as the strategy knows it: an order takes effect, and its answers arrive, after the run's latencies.
    """

    @property
    def now(self) -> float:
        """Seconds since 1970 on the run's clock."""

    @property
    def symbols(self) -> Sequence[str]:
        """The markets of the run: standard symbols, as `exchange:symbol` where two exchanges have the same."""

    @property
    def open_orders(self) -> list[Order]:
        """Orders that may still be filled, the oldest first."""

    def reading(self, symbol: str) -> Reading:
        """The newest book and its status."""

    def symbol_of(self, event: OrderBookSnapshot | Trade) -> str:
        """The name in `symbols` of this event's market."""

    def position(self, symbol: str) -> float:
        """Quantity of the base asset held on the symbol's exchange."""

    def cash(self, symbol: str) -> float:
        """Amount of the quote asset held on the symbol's exchange; open orders are not deducted."""

    def buy(
        self,
        symbol: str,
        price: float | Literal["market"],
        quantity: float,
        time_in_force: TimeInForce = "GTC",
        post_only: bool = False,
    ) -> Order:
        """Send an order. What an exchange would not take is answered by `rejected`.

        Quantities are rounded down to the lot step, prices away from the market to the tick. Raises SymbolError for an
        unknown symbol, ValueError for options that contradict each other.
        """

    def sell(
        self,
        symbol: str,
        price: float | Literal["market"],
        quantity: float,
        time_in_force: TimeInForce = "GTC",
        post_only: bool = False,
    ) -> Order:
        """Like `buy`. Only what is held can be sold."""

    def cancel(self, order: Order) -> None:
        """Ask to cancel; until the cancel arrives the order may be filled. Does nothing for a done order."""

    def amend(self, order: Order, *, price: float | None = None, quantity: float | None = None) -> None:
        """Ask to change an open limit order; `quantity` counts what is filled already.

        A smaller quantity at the same price keeps the place in the queue; any other change loses it.
        """


class Strategy:
    """Inherit and override what is needed. Class attributes with a value are parameters: `--set name=value`.

    Each instance has an account of its own. All methods are called from one thread; an exception out of one ends the
    strategy, with its traceback in the figures.
    """

    timer: float = 0.0
    """Seconds between two calls of `on_timer`; 0 for none."""

    def on_start(self, ctx: Context) -> None:
        """Every book is live."""

    def on_book(self, ctx: Context, book: OrderBookSnapshot) -> None:
        """A new book; `book.state` tells whether it is live."""

    def on_trade(self, ctx: Context, trade: Trade) -> None:
        """A trade of somebody else."""

    def on_timer(self, ctx: Context) -> None:
        """`timer` seconds have passed."""

    def on_order(self, ctx: Context, order: Order, update: OrderUpdate) -> None:
        """The exchange answered."""

    def on_stop(self, ctx: Context) -> None:
        """The run ends: open orders are cancelled. Orders sent here meet the last books without latency."""
