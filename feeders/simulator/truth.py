"""What the true book was at each update id, for as far back as memory is allowed."""

from collections import deque
from typing import NamedTuple

from bookbus.feeders.simulator.core.market import Quote
from bookbus.feeders.simulator.ladder import Ladder, RawLevel, unpack


class BookAt(NamedTuple):
    """A book at one update id, best levels first."""

    update_id: int
    bids: list[RawLevel]
    asks: list[RawLevel]


class TruthHistory:
    """The best `depth` levels at each of the last `limit` recorded ids, and as many quotes; no older ones."""

    def __init__(self, depth: int, limit: int) -> None:
        self._depth = depth
        self._limit = limit
        self._books: dict[int, tuple[bytes, bytes]] = {}
        self._ids: deque[int] = deque()
        self._quotes: dict[int, Quote] = {}
        self._quote_ids: deque[int] = deque()

    def record(self, update_id: int, bids: Ladder, asks: Ladder) -> None:
        """Remember the book as it is now."""
        if update_id not in self._books:
            self._ids.append(update_id)
        self._books[update_id] = (bids.packed(self._depth), asks.packed(self._depth))
        if len(self._ids) > self._limit:
            del self._books[self._ids.popleft()]

    def record_quote(self, quote: Quote) -> None:
        """Remember the best levels between two records."""
        if quote.update_id not in self._quotes:
            self._quote_ids.append(quote.update_id)
        self._quotes[quote.update_id] = quote
        if len(self._quote_ids) > self._limit:
            del self._quotes[self._quote_ids.popleft()]

    def at(self, update_id: int) -> BookAt | None:
        """The book at this id, one level of it if only a quote was recorded; None if nothing was or it is forgotten."""
        if packed := self._books.get(update_id):
            return BookAt(update_id, unpack(1, packed[0]), unpack(-1, packed[1]))
        if quote := self._quotes.get(update_id):
            return BookAt(update_id, [quote.bid], [quote.ask])
        return None

    def ids_since(self, update_id: int) -> list[int]:
        """Every id whose book is still known from this one on, in the order recorded."""
        return [known for known in self._ids if known >= update_id]
