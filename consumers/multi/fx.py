"""Prices of one quote currency in another, each side at the exchange rate its trade would get."""

import msgspec

from bookbus.schemas.snapshot import Levels, OrderBookSnapshot


class Conversion(msgspec.Struct, frozen=True):
    """From one currency to another over the best prices of a book that trades the two.

    Who buys at an ask must first get the foreign currency, who sells at a bid wants to be rid of it: the two sides
    of the rate. Each price is rounded once, so prices that do not cross exactly do not cross here either.
    """

    bid: float
    """The rate for what a sale brings."""
    ask: float
    """The rate for what a purchase costs."""
    divides: bool
    """Whether a price is divided by the rate, because the rate is the price of the wanted currency."""
    bid_size: float
    """How much of the wanted currency the rate's best level gives for what sales bring."""
    ask_size: float
    """How much of the wanted currency the rate's best level takes for what purchases cost."""

    def bids(self, levels: Levels) -> Levels:
        """Levels to sell at; sizes are in the base currency and stay."""
        return self._converted(levels, self.bid)

    def asks(self, levels: Levels) -> Levels:
        """Levels to buy at."""
        return self._converted(levels, self.ask)

    def _converted(self, levels: Levels, rate: float) -> Levels:
        if self.divides:
            return tuple((price / rate, quantity) for price, quantity in levels)
        return tuple((price * rate, quantity) for price, quantity in levels)


def links(symbol: str, source: str, target: str) -> bool:
    """Whether a book of this standard symbol is an exchange rate between the two currencies."""
    base, _, quote = symbol.partition("-")
    return {base, quote} == {source, target}


def conversion(rate: OrderBookSnapshot, target: str) -> Conversion:
    """The way to `target` from the other currency of the book `rate`. Raises ValueError if a side of it is empty."""
    if not rate.bids or not rate.asks:
        raise ValueError(f"{rate.symbol} has no {'asks' if rate.bids else 'bids'}")
    (bid, bid_quantity), (ask, ask_quantity) = rate.bids[0], rate.asks[0]
    base, _, _ = rate.symbol.partition("-")
    if base == target:
        # What a sale brings buys the target at its ask; a purchase is paid by selling the target at its bid.
        return Conversion(bid=ask, ask=bid, divides=True, bid_size=ask_quantity, ask_size=bid_quantity)
    return Conversion(bid=bid, ask=ask, divides=False, bid_size=bid_quantity * bid, ask_size=ask_quantity * ask)
