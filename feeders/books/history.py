"""The levels of one book at every update id, while its history is recorded."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bookbus.feeders.books.order_book import BookSide, DepthChange, OrderBook

if TYPE_CHECKING:
    from bookbus.feeders.books.order_book import DepthUpdate

Quantities = dict[float, float]
"""Price -> quantity of one side."""


class RecordedBook(NamedTuple):
    """A book at one id. A side is known up to its edge, which is infinite where the side is complete."""

    bids: Quantities
    asks: Quantities
    bid_edge: float
    ask_edge: float
    changing: frozenset[tuple[int, float]] | None = None
    """Sign of the side and price of levels that the next update changes, where it is not known whether this id is
    before or after that change. None where ids of snapshots are those of updates, so that the book had exactly this id.
    """


class BookHistory:
    """A copy of a book, and the updates it took since.

    The synchroniser adds them, and ends the history when the book is lost or replaced.
    """

    def __init__(self, book: OrderBook, update_id: int, id_of: "Callable[[DepthUpdate], int] | None" = None) -> None:
        """`id_of` is given where snapshots have another counter than updates, one that rises between updates too."""
        self._first_id = self.last_id = update_id
        self._id_of = id_of
        self._start = RecordedBook(_levels(book.bids), _levels(book.asks), book.bids.edge, book.asks.edge)
        self._updates: list[DepthUpdate] = []
        self.is_over = False

    def add(self, update: "DepthUpdate") -> None:
        self._updates.append(update)
        self.last_id = update.last_id if self._id_of is None else self._id_of(update)

    def end(self) -> None:
        """The book was lost or replaced, or its history is not needed any more."""
        self.is_over = True

    def at(self, update_id: int) -> RecordedBook | None:
        """The book at exactly this id; None if it never had it, or if the id lies inside the range of one update."""
        if self.is_over:
            return None
        if self._id_of is not None:
            return self._near(update_id, self._id_of)
        bids, asks, reached = dict(self._start.bids), dict(self._start.asks), self._first_id
        for update in self._updates:
            if reached >= update_id:
                break
            _apply(bids, update.bids)
            _apply(asks, update.asks)
            reached = update.last_id
        return self._start._replace(bids=bids, asks=asks) if reached == update_id else None

    def _near(self, update_id: int, id_of: "Callable[[DepthUpdate], int]") -> RecordedBook | None:
        """The book after the last update up to this id, known to the worst level that it and the next book hold."""
        if self._first_id > update_id:
            return None
        bids, asks, reached = dict(self._start.bids), dict(self._start.asks), self._first_id
        after: DepthUpdate | None = None
        for update in self._updates:
            if id_of(update) > update_id:
                after = update
                break
            _apply(bids, update.bids)
            _apply(asks, update.asks)
            reached = id_of(update)
        bid_edge, ask_edge = min(bids, default=0.0), max(asks, default=math.inf)
        changing: set[tuple[int, float]] = set()
        if after is not None:
            next_bids, next_asks = dict(bids), dict(asks)
            _apply(next_bids, after.bids)
            _apply(next_asks, after.asks)
            bid_edge = max(bid_edge, min(next_bids, default=0.0))
            ask_edge = min(ask_edge, max(next_asks, default=math.inf))
            changing = {(1, price) for price, _ in after.bids} | {(-1, price) for price, _ in after.asks}
        return RecordedBook(bids, asks, bid_edge, ask_edge, frozenset(() if reached == update_id else changing))


def _levels(side: BookSide) -> Quantities:
    # The published levels come first as they are: a comparison has to show it if they are not the best of all.
    return dict([*side.top, *side.levels()[len(side.top) :]])


def _apply(levels: Quantities, changes: Sequence[DepthChange]) -> None:
    for price, quantity in changes:
        if quantity:
            levels[price] = quantity
        else:
            levels.pop(price, None)
