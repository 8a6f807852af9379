"""Consolidates the comparable books of several exchanges into one."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from math import inf
from operator import itemgetter
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from bookbus.consumers.multi.venue_book import (
    ExchangeSource,
    FxReading,
    FxSource,
    VenueBook,
    VenueReading,
    other_asset_reason,
    skew_reason,
)
from bookbus.consumers.reading import Observation
from bookbus.consumers.shared_state import Cell
from bookbus.schemas.instruments import TRADING_STATUSES, Instrument, TradingStatus
from bookbus.schemas.snapshot import BookStatus, Levels, OrderBookSnapshot, StoredState

logger = logging.getLogger(__name__)

_price = itemgetter(0)
_SHOWN_BY_AGE = {BookStatus.STALE, BookStatus.MISSING}


class VenueLevel(NamedTuple):
    """One price level of an exchange; the price is in the common quote currency."""

    price: float
    quantity: float
    exchange: str


class ConsolidatedBook(msgspec.Struct, frozen=True, kw_only=True):
    """The levels of all exchanges that take part, best first.

    `venues` has all books, `out` the reason of each excluded exchange. A side ends at the price where the first of the
    included books ends, because beyond it the levels would be incomplete. `depth` is the number of known prices per
    side. The book may be crossed: then there is an opportunity between two exchanges.
    """

    symbol: str
    venues: tuple[VenueBook, ...]
    out: Mapping[str, str]
    bids: tuple[VenueLevel, ...]
    asks: tuple[VenueLevel, ...]
    depth: int

    @property
    def parts(self) -> list[VenueBook]:
        return [venue for venue in self.venues if venue.exchange not in self.out]

    def best_bid(self) -> VenueLevel | None:
        """The highest bid; None if no exchange is included."""
        return self.bids[0] if self.bids else None

    def best_ask(self) -> VenueLevel | None:
        """The lowest ask; None if no exchange is included."""
        return self.asks[0] if self.asks else None

    def bid_levels(self) -> Levels:
        """The best `depth` bids, one level per price."""
        return _by_price(self.bids)[: self.depth]

    def ask_levels(self) -> Levels:
        """The best `depth` asks, one level per price."""
        return _by_price(self.asks)[: self.depth]


class _Read(NamedTuple):
    """All books of the asset at one moment."""

    book: ConsolidatedBook
    venues: list[VenueReading]
    fx: FxReading | None


class _Made(NamedTuple):
    """A consolidated snapshot, its source books and their exchanges."""

    snapshot: OrderBookSnapshot
    sources: tuple[OrderBookSnapshot | None, ...]
    exchanges: frozenset[str]


class ConsolidatedAsset:
    """The consolidated book of one asset. Thread-safe: no read returns an older book than an earlier read.

    `fx` is needed if an exchange quotes in another currency than `instrument`.
    """

    def __init__(
        self,
        instrument: Instrument,
        venues: Sequence[ExchangeSource],
        fx: FxSource | None,
        max_age: float,
        max_skew: float,
    ) -> None:
        self.instrument = instrument
        self._venues = venues
        self._fx = fx
        self._max_age = max_age
        self._max_skew = max_skew
        self._made: Cell[_Made | None] = Cell(None)
        self._included: set[str] = set()
        self._excluded: set[str] = set()

    def consolidated(self) -> ConsolidatedBook:
        return self._read().book

    def observe(self) -> Observation:
        """The consolidated book as one snapshot.

        While no exchange is included it is the last snapshot; its state or age shows that it is no longer confirmed.
        """
        while True:
            before = self._made.get()
            read = self._read()
            made = self._newest(before, read)
            # Else another thread, or a signal handler in between, read and numbered: ids rise in the order of reads.
            if self._made.replace(before, made):
                break
        alive, error = _alive(read.venues), "; ".join(dict.fromkeys(read.book.out.values()))
        # One exchange that trades is enough: those that do not are excluded.
        known = {reading.observation.trading for reading in read.venues} - {"unknown"}
        trading: TradingStatus = min(known, key=TRADING_STATUSES.index, default="unknown")
        if made is None:
            return Observation(feeder_alive=alive, error=error, trading=trading)
        parts = [reading.observation for reading in read.venues if reading.book.exchange in made.exchanges]
        ages = [part.age for part in parts if part.age is not None]
        updates = [part.update_age for part in parts if part.update_age is not None]
        oldest = max(ages) if len(ages) == len(parts) else None
        seen = all(part.confirmation_seen for part in parts)
        gone = any(part.gone for part in parts)
        return Observation(made.snapshot, oldest, min(updates, default=None), alive, error, trading, seen, gone)

    def _read(self) -> _Read:
        converts = any(venue.quote != self.instrument.quote for venue in self._venues)
        fx = self._fx.read(self.instrument.quote) if converts and self._fx is not None else None
        readings = [
            venue.read(self.instrument.base, fx if venue.quote != self.instrument.quote else None, self._max_age)
            for venue in self._venues
        ]
        book = consolidate(self.instrument.symbol, (reading.book for reading in readings), self._max_skew)
        self._log_changes(book)
        return _Read(book, readings, fx)

    def _newest(self, made: _Made | None, read: _Read) -> _Made | None:
        parts = read.book.parts
        if parts:
            converted = any(part.conversion is not None for part in parts)
            sources = (*(part.snapshot for part in parts), read.fx.snapshot if read.fx and converted else None)
            exchanges = frozenset(part.exchange for part in parts)
            if made is None or made.snapshot.state != "live" or not _same(sources, made.sources):
                return _Made(self._snapshot(read.book, _next_id(made)), sources, exchanges)
        elif made is not None and (state := _state(made.snapshot, read.venues)) != made.snapshot.state:
            return made._replace(snapshot=replace(made.snapshot, state=state, update_id=_next_id(made)))
        return made

    def _snapshot(self, book: ConsolidatedBook, update_id: int) -> OrderBookSnapshot:
        return OrderBookSnapshot(
            exchange=self.instrument.exchange,
            symbol=self.instrument.symbol,
            native=self.instrument.native,
            state="live",
            update_id=update_id,
            exchange_us=None,
            received_us=max(part.snapshot.received_us for part in book.parts if part.snapshot is not None),
            depth=book.depth,
            bids=book.bid_levels(),
            asks=book.ask_levels(),
        )

    def _log_changes(self, book: ConsolidatedBook) -> None:
        """Log once when an exchange is excluded for its own reason, and once when it is included again."""
        for venue in book.venues:
            if venue.exchange not in book.out:
                self._included.add(venue.exchange)
                if _discarded(self._excluded, venue.exchange):
                    logger.info("%s is included in %s again", venue.exchange, book.symbol)
            elif venue.reason and _discarded(self._included, venue.exchange):
                self._excluded.add(venue.exchange)
                logger.warning("%s is excluded from %s: %s", venue.exchange, book.symbol, venue.reason)


def _next_id(made: _Made | None) -> int:
    return 1 if made is None else made.snapshot.update_id + 1


def _discarded(names: set[str], name: str) -> bool:
    """Whether it was among them; of several threads at once, one hears so."""
    try:
        names.remove(name)
    except KeyError:
        return False
    return True


def consolidate(symbol: str, venues: Iterable[VenueBook], max_skew: float) -> ConsolidatedBook:
    """Merge the comparable books.

    A book is excluded for its own reason, or because it was confirmed more than `max_skew` seconds before the newest
    one, or because its mid price is far from those of at least half of the books. If two disagree, both are excluded:
    it is unknown which one is wrong.
    """
    venues = tuple(venues)
    out = {venue.exchange: venue.reason for venue in venues if venue.reason}
    parts = _without(venues, out)
    out |= _skewed(parts, max_skew)
    parts = _without(parts, out)
    out |= _outvoted(parts)
    parts = _without(parts, out)
    bids, bid_depth = _side([(part, part.bids) for part in parts], sign=-1)
    asks, ask_depth = _side([(part, part.asks) for part in parts], sign=1)
    return ConsolidatedBook(
        symbol=symbol, venues=venues, out=out, bids=bids, asks=asks, depth=min(bid_depth, ask_depth)
    )


def _state(last: OrderBookSnapshot, readings: Sequence[VenueReading]) -> StoredState:
    """State of the last consolidated book while no exchange is included."""
    statuses = {reading.book.status for reading in readings}
    if statuses == {BookStatus.CLOSED}:
        return "closed"
    return last.state if statuses <= _SHOWN_BY_AGE else "suspect"


def _alive(readings: Sequence[VenueReading]) -> bool | None:
    """Whether the feeder of any exchange is alive; None if unknown."""
    known = {reading.observation.feeder_alive for reading in readings}
    return True if True in known else None if None in known else False


def _same(sources: Sequence[OrderBookSnapshot | None], others: Sequence[OrderBookSnapshot | None]) -> bool:
    return len(sources) == len(others) and all(one is other for one, other in zip(sources, others, strict=True))


def _without(venues: Sequence[VenueBook], out: Mapping[str, str]) -> list[VenueBook]:
    return [venue for venue in venues if venue.exchange not in out]


def _skewed(venues: Sequence[VenueBook], max_skew: float) -> dict[str, str]:
    if not venues:
        return {}
    newest = min(venues, key=lambda venue: venue.age if venue.age is not None else float("inf"))
    reasons = ((venue, skew_reason(newest, venue, max_skew)) for venue in venues if venue is not newest)
    return {venue.exchange: reason for venue, reason in reasons if reason}


def _outvoted(venues: Sequence[VenueBook]) -> dict[str, str]:
    out = {}
    for venue in venues:
        against = [reason for other in venues if other is not venue and (reason := other_asset_reason(venue, other))]
        if len(against) * 2 >= len(venues):
            out[venue.exchange] = against[0]
    return out


def _side(sides: Sequence[tuple[VenueBook, Levels]], sign: int) -> tuple[tuple[VenueLevel, ...], int]:
    """The known levels of one side, best first, and the number of known prices; `sign` is -1 for bids."""
    # A book with all requested levels continues at the exchange beyond its last one.
    ends = [sign * levels[-1][0] for part, levels in sides if len(levels) >= part.depth]
    end = min(ends, default=inf)
    known = [
        VenueLevel(price, quantity, part.exchange)
        for part, levels in sides
        for price, quantity in levels
        if sign * price <= end
    ]
    known.sort(key=_price, reverse=sign < 0)
    return tuple(known), len(set(map(_price, known))) if ends else sum(part.depth for part, _ in sides)


def _by_price(levels: Iterable[VenueLevel]) -> Levels:
    return tuple((price, sum(level.quantity for level in same)) for price, same in groupby(levels, _price))
