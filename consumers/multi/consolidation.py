"""One book out of the books of several exchanges that may be compared."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from math import inf
from operator import itemgetter
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from bookbus.consumers.multi.venue_book import (
    FxReading,
    FxSource,
    Venue,
    VenueBook,
    VenueReading,
    why_skewed,
    why_unlike,
)
from bookbus.consumers.reading import Observation
from bookbus.schemas.instruments import Instrument
from bookbus.schemas.snapshot import BookStatus, Levels, OrderBookSnapshot, StoredState

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


logger = logging.getLogger(__name__)

_TOLD_BY_AGE = {BookStatus.STALE, BookStatus.MISSING}


class _Read(NamedTuple):
    """Everything that is known of the asset at one moment."""

    book: ConsolidatedBook
    venues: list[VenueReading]
    fx: FxReading | None


class _Made(NamedTuple):
    """A consolidated snapshot, the books it was made of and their exchanges."""

    snapshot: OrderBookSnapshot
    sources: tuple[OrderBookSnapshot | None, ...]
    exchanges: frozenset[str]


class ConsolidatedAsset:
    """Any thread may read; what one reads is never older than what another read before.

    An asset on an exchange that quotes in another currency than `instrument` needs `fx`.
    """

    def __init__(
        self, instrument: Instrument, venues: Sequence[Venue], fx: FxSource | None, max_age: float, max_skew: float
    ) -> None:
        self.instrument = instrument
        self._venues = venues
        self._fx = fx
        self._max_age = max_age
        self._max_skew = max_skew
        # Reading and numbering are one step: two threads must not number in another order than they read.
        self._lock = threading.Lock()
        self._made: _Made | None = None
        self._took_part: set[str] = set()
        self._left: set[str] = set()

    def consolidated(self) -> ConsolidatedBook:
        """The books as they are now."""
        with self._lock:
            return self._read().book

    def observe(self) -> Observation:
        """The consolidated book as one snapshot.

        While no exchange takes part it is the last one there was; its state or its age says that nobody vouches for it.
        """
        with self._lock:
            read = self._read()
            made = self._made = self._newest(read)
        alive, error = _alive(read.venues), "; ".join(dict.fromkeys(read.book.out.values()))
        if made is None:
            return Observation(feeder_alive=alive, error=error)
        parts = [reading.observation for reading in read.venues if reading.book.exchange in made.exchanges]
        ages = [part.age for part in parts if part.age is not None]
        updates = [part.update_age for part in parts if part.update_age is not None]
        oldest = max(ages) if len(ages) == len(parts) else None
        return Observation(made.snapshot, oldest, min(updates, default=None), alive, error)

    def _read(self) -> _Read:
        converts = any(venue.quote != self.instrument.quote for venue in self._venues)
        fx = self._fx.read(self.instrument.quote) if converts and self._fx is not None else None
        readings = [
            venue.read(self.instrument.base, fx if venue.quote != self.instrument.quote else None, self._max_age)
            for venue in self._venues
        ]
        book = consolidate(self.instrument.symbol, (reading.book for reading in readings), self._max_skew)
        self._tell(book)
        return _Read(book, readings, fx)

    def _newest(self, read: _Read) -> _Made | None:
        made, parts = self._made, read.book.parts
        if parts:
            converted = any(part.conversion is not None for part in parts)
            sources = (*(part.snapshot for part in parts), read.fx.snapshot if read.fx and converted else None)
            exchanges = frozenset(part.exchange for part in parts)
            if made is None or made.snapshot.state != "live" or not _same(sources, made.sources):
                return _Made(self._snapshot(read.book), sources, exchanges)
        elif made is not None and (state := _state(made.snapshot, read.venues)) != made.snapshot.state:
            return made._replace(snapshot=replace(made.snapshot, state=state, update_id=self._next_id()))
        return made

    def _snapshot(self, book: ConsolidatedBook) -> OrderBookSnapshot:
        return OrderBookSnapshot(
            exchange=self.instrument.exchange,
            symbol=self.instrument.symbol,
            native=self.instrument.native,
            state="live",
            update_id=self._next_id(),
            exchange_us=None,
            received_us=max(part.snapshot.received_us for part in book.parts if part.snapshot is not None),
            depth=book.depth,
            bids=book.bid_levels(),
            asks=book.ask_levels(),
        )

    def _next_id(self) -> int:
        return 1 if self._made is None else self._made.snapshot.update_id + 1

    def _tell(self, book: ConsolidatedBook) -> None:
        """One line when an exchange leaves for a reason of its own, and one when it is back."""
        for venue in book.venues:
            if venue.exchange not in book.out:
                self._took_part.add(venue.exchange)
                if venue.exchange in self._left:
                    self._left.discard(venue.exchange)
                    logger.info("%s takes part in %s again", venue.exchange, book.symbol)
            elif venue.reason and venue.exchange in self._took_part:
                self._took_part.discard(venue.exchange)
                self._left.add(venue.exchange)
                logger.warning("%s takes no part in %s: %s", venue.exchange, book.symbol, venue.reason)


def _same(sources: Sequence[OrderBookSnapshot | None], others: Sequence[OrderBookSnapshot | None]) -> bool:
    return len(sources) == len(others) and all(one is other for one, other in zip(sources, others, strict=True))


def _state(last: OrderBookSnapshot, readings: Sequence[VenueReading]) -> StoredState:
    """What to call the last consolidated book while no exchange takes part."""
    statuses = {reading.book.status for reading in readings}
    if statuses == {BookStatus.CLOSED}:
        return "closed"
    return last.state if statuses <= _TOLD_BY_AGE else "suspect"


def _alive(readings: Sequence[VenueReading]) -> bool | None:
    """Whether any exchange's feeder lives; None if that cannot be told."""
    known = {reading.observation.feeder_alive for reading in readings}
    return True if True in known else None if None in known else False
