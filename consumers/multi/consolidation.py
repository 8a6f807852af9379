"""One book out of the books of several exchanges that may be compared."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import inf
from operator import itemgetter
from typing import NamedTuple

import msgspec

from bookbus.consumers.multi.venue_book import VenueBook, why_skewed, why_unlike
from bookbus.schemas.snapshot import Levels

_price = itemgetter(0)


class VenueLevel(NamedTuple):
    """One price level and the exchange that has it; the price is in the common quote currency."""

    price: float
    quantity: float
    exchange: str


class ConsolidatedBook(msgspec.Struct, frozen=True, kw_only=True):
    """Every level that is known of all exchanges that take part, best first.

    `venues` has all books, `out` the reason of each exchange that takes no part. A side ends where one of those that
    take part publishes no further: beyond, the others' levels would be less than all. `depth` is the number of prices
    known a side. The book may be crossed: that is what an opportunity between two exchanges looks like.
    """

    symbol: str
    venues: tuple[VenueBook, ...]
    out: Mapping[str, str]
    bids: tuple[VenueLevel, ...]
    asks: tuple[VenueLevel, ...]
    depth: int

    @property
    def parts(self) -> list[VenueBook]:
        """The books that take part."""
        return [venue for venue in self.venues if venue.exchange not in self.out]

    def best_bid(self) -> VenueLevel | None:
        """Where most is paid for the asset; None if no exchange takes part."""
        return self.bids[0] if self.bids else None

    def best_ask(self) -> VenueLevel | None:
        """Where the asset costs least; None if no exchange takes part."""
        return self.asks[0] if self.asks else None

    def bid_levels(self) -> Levels:
        """The best `depth` bids, one level a price."""
        return _by_price(self.bids)[: self.depth]

    def ask_levels(self) -> Levels:
        """The best `depth` asks, one level a price."""
        return _by_price(self.asks)[: self.depth]


def consolidate(symbol: str, venues: Iterable[VenueBook], max_skew: float) -> ConsolidatedBook:
    """Merge the books that may be compared.

    A book stays out for a reason of its own, or because it was confirmed more than `max_skew` seconds before the
    freshest one, or because its mid is far from most others'. Where two disagree, both stay out: which of them is
    wrong cannot be told.
    """
    venues = tuple(venues)
    out = {venue.exchange: venue.reason for venue in venues if venue.reason}
    parts = _without(venues, out)
    out |= _left_behind(parts, max_skew)
    parts = _without(parts, out)
    out |= _outvoted(parts)
    parts = _without(parts, out)
    bids, bid_depth = _side(parts, _bids, sign=-1)
    asks, ask_depth = _side(parts, _asks, sign=1)
    return ConsolidatedBook(
        symbol=symbol, venues=venues, out=out, bids=bids, asks=asks, depth=min(bid_depth, ask_depth)
    )


def _bids(venue: VenueBook) -> Levels:
    return venue.bids


def _asks(venue: VenueBook) -> Levels:
    return venue.asks


def _without(venues: Sequence[VenueBook], out: Mapping[str, str]) -> list[VenueBook]:
    return [venue for venue in venues if venue.exchange not in out]


def _left_behind(venues: Sequence[VenueBook], max_skew: float) -> dict[str, str]:
    if not venues:
        return {}
    freshest = min(venues, key=lambda venue: venue.age if venue.age is not None else float("inf"))
    reasons = ((venue, why_skewed(freshest, venue, max_skew)) for venue in venues if venue is not freshest)
    return {venue.exchange: reason for venue, reason in reasons if reason}


def _outvoted(venues: Sequence[VenueBook]) -> dict[str, str]:
    out = {}
    for venue in venues:
        against = [reason for other in venues if other is not venue and (reason := why_unlike(venue, other))]
        if len(against) * 2 >= len(venues):
            out[venue.exchange] = against[0]
    return out


def _side(
    parts: Sequence[VenueBook], levels_of: Callable[[VenueBook], Levels], sign: int
) -> tuple[tuple[VenueLevel, ...], int]:
    """One side of all parts as far as it is known, and for how many prices that is; `sign` is -1 for bids."""
    sides = [(part, levels_of(part)) for part in parts]
    # A book with as many levels as were asked for goes on where it ends here.
    ends = [sign * levels[-1][0] for part, levels in sides if len(levels) >= part.depth]
    end = min(ends, default=inf)
    known = [
        VenueLevel(price, quantity, part.exchange)
        for part, levels in sides
        for price, quantity in levels
        if sign * price <= end
    ]
    known.sort(key=_price, reverse=sign < 0)
    return tuple(known), len(set(map(_price, known))) if ends else sum(part.depth for part in parts)


def _by_price(levels: Iterable[VenueLevel]) -> Levels:
    return tuple((price, sum(level.quantity for level in same)) for price, same in groupby(levels, _price))
