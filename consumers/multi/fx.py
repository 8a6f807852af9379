"""Conversion of prices between quote currencies, each side at the rate that its trade would get."""

import msgspec

from bookbus.schemas.snapshot import Levels, OrderBookSnapshot


class Conversion(msgspec.Struct, frozen=True):
    """From one currency to another at the best prices of a book that trades the two.

    A buyer at an ask first has to buy the foreign currency, a seller at a bid then sells it: the two sides of the rate.
    Each price is rounded once, so that conversion never makes an uncrossed book cross.
    """

    bid: float
    """The rate for the proceeds of a sale."""
    ask: float
    """The rate for the cost of a purchase."""
    divides: bool
    """Whether prices are divided by the rate, because the rate is the price of the target currency."""
    bid_size: float
    """Proceeds of sales, in the target currency, that the rate's best level covers."""
    ask_size: float
    """Cost of purchases, in the target currency, that the rate's best level covers."""

    def bids(self, levels: Levels) -> Levels:
        """Bid levels in the target currency; sizes are in the base asset and do not change."""
        return self._converted(levels, self.bid)

    def asks(self, levels: Levels) -> Levels:
        """Ask levels in the target currency."""
        return self._converted(levels, self.ask)

    def _converted(self, levels: Levels, rate: float) -> Levels:
        if self.divides:
            return tuple((price / rate, quantity) for price, quantity in levels)
        return tuple((price * rate, quantity) for price, quantity in levels)


def links(symbol: str, source: str, target: str) -> bool:
    """Whether a book of this standard symbol is the exchange rate between the two currencies."""
    base, _, quote = symbol.partition("-")
    return {base, quote} == {source, target}


def conversion(rate: OrderBookSnapshot, target: str) -> Conversion:
    """Conversion to `target` from the other currency of the book `rate`. Raises ValueError if a side is empty."""
    if not rate.bids or not rate.asks:
        raise ValueError(f"{rate.symbol} has no {'asks' if rate.bids else 'bids'}")
    (bid, bid_quantity), (ask, ask_quantity) = rate.bids[0], rate.asks[0]
    base, _, _ = rate.symbol.partition("-")
    if base == target:
        # The proceeds of a sale buy the target at its ask; a purchase is paid by selling the target at its bid.
        return Conversion(bid=ask, ask=bid, divides=True, bid_size=ask_quantity, ask_size=bid_quantity)
    return Conversion(bid=bid, ask=ask, divides=False, bid_size=bid_quantity * bid, ask_size=ask_quantity * ask)
