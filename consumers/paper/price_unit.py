"""The tick of a market as its prices show it, where the exchange did not say."""

from decimal import Decimal
from math import gcd

from bookbus.schemas.snapshot import OrderBookSnapshot

_DECIMALS = 12
_LEVELS = 5


class PriceUnit:
    """The largest number that divides every price seen near the touch; it can only become smaller."""

    def __init__(self) -> None:
        self._unit = 0
        self._seen: OrderBookSnapshot | None = None

    @property
    def tick(self) -> float | None:
        """The tick so far; None before the first book."""
        return float(Decimal(self._unit).scaleb(-_DECIMALS)) if self._unit else None

    def observe(self, book: OrderBookSnapshot) -> None:
        """Learn from one more book."""
        if book is self._seen:
            return
        self._seen = book
        for price, _ in (*book.bids[:_LEVELS], *book.asks[:_LEVELS]):
            self._unit = gcd(self._unit, int(Decimal(repr(price)).scaleb(_DECIMALS)))
