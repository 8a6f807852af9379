"""One order book at one moment."""

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

PositiveNumber = Annotated[float, msgspec.Meta(gt=0, le=1.7e308)]
"""A price or a quantity on the wire: finite and above zero (not-a-number fails both)."""

Level = tuple[PositiveNumber, PositiveNumber]
"""`(price, quantity)`: price in the quote currency, quantity in the base currency."""

Levels = tuple[Level, ...]
"""One side of a book, best price first."""

StoredState = Literal["live", "suspect", "closed"]
Side = Literal["buy", "sell"]

UpdateId = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
"""The exchange's own id of the book. Below 2^53, so that Lua and JavaScript represent it exactly."""

Microseconds = Annotated[int, msgspec.Meta(ge=0)]
"""A wall-clock time in microseconds since 1970."""


class BookStatus(StrEnum):
    """Status of a book. The first three are stored by the feeder; the reader derives the others."""

    LIVE = "live"
    SUSPECT = "suspect"
    CLOSED = "closed"
    STALE = "stale"
    FEEDER_DOWN = "feeder_down"
    MISSING = "missing"


class OrderBookSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The best `depth` levels per side; a side with fewer levels is complete.

    `symbol` is the standard name (`BTC-USDT`), `native` the exchange's own (`BTCUSDT`). `seq`, `published_us` and
    `feeder` are set when the book is published, and 0, 0 and empty in a book that did not come from Redis.
    """

    v: Literal[1] = 1
    seq: Annotated[int, msgspec.Meta(ge=0)] = 0
    exchange: str
    symbol: str
    native: str
    state: StoredState
    update_id: UpdateId
    exchange_us: Microseconds | None
    received_us: Microseconds
    published_us: Microseconds = 0
    feeder: str = ""
    depth: Annotated[int, msgspec.Meta(ge=1)]
    bids: Levels
    asks: Levels

    @property
    def timestamp(self) -> float:
        """Seconds since 1970: the exchange's time of the update, else the time of receipt."""
        return (self.received_us if self.exchange_us is None else self.exchange_us) / 1e6

    def best_bid(self) -> float | None:
        """Highest bid price; None if there are no bids."""
        return self.bids[0][0] if self.bids else None

    def best_ask(self) -> float | None:
        """Lowest ask price; None if there are no asks."""
        return self.asks[0][0] if self.asks else None

    def mid(self) -> float | None:
        """Middle of best bid and best ask; None if a side is empty."""
        if not self.bids or not self.asks:
            return None
        return (self.bids[0][0] + self.asks[0][0]) / 2

    def spread_bps(self) -> float | None:
        """Best ask minus best bid in bps of the mid price; None if a side is empty."""
        mid = self.mid()
        return None if mid is None else (self.asks[0][0] - self.bids[0][0]) / mid * 1e4

    def microprice(self) -> float | None:
        """Mid price weighted by the opposite quantities (Stoikov 2018, first-order form); None if a side is empty."""
        if not self.bids or not self.asks:
            return None
        (bid, bid_quantity), (ask, ask_quantity) = self.bids[0], self.asks[0]
        return (bid * ask_quantity + ask * bid_quantity) / (bid_quantity + ask_quantity)

    def vwap(self, side: Side, quantity: float) -> float | None:
        """Average price of taking `quantity` now (`buy` takes asks); None if the known levels hold less."""
        if not quantity > 0:
            raise ValueError(f"quantity must be above zero, got {quantity}")
        left, cost = quantity, 0.0
        for price, available in self.asks if side == "buy" else self.bids:
            taken = min(left, available)
            cost += taken * price
            left -= taken
            if left <= quantity * 1e-12:  # the rest is rounding error
                return cost / quantity
        return None

    def depth_within(self, bps: float) -> tuple[float, float] | None:
        """Quantity on the bid and on the ask side within `bps` of the mid price; None if a side is empty.

        A lower bound if the published levels end before `bps` is reached.
        """
        mid = self.mid()
        if mid is None:
            return None
        floor, ceiling = mid * (1 - bps / 1e4), mid * (1 + bps / 1e4)
        return (
            sum(quantity for price, quantity in self.bids if price >= floor),
            sum(quantity for price, quantity in self.asks if price <= ceiling),
        )
