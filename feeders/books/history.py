"""The levels of one book at every update id, while its history is recorded."""

from collections.abc import Sequence
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


class BookHistory:
    """A copy of a book, and the updates it took since.

    The synchroniser adds them, and ends the history when the book is lost or replaced.
    """

    def __init__(self, book: OrderBook, update_id: int) -> None:
        self._first_id = self.last_id = update_id
        self._start = RecordedBook(_levels(book.bids), _levels(book.asks), book.bids.edge, book.asks.edge)
        self._updates: list[DepthUpdate] = []
        self.is_over = False

    def add(self, update: "DepthUpdate") -> None:
        self._updates.append(update)
        self.last_id = update.last_id

    def end(self) -> None:
        """The book was lost or replaced, or its history is not needed any more."""
        self.is_over = True

    def at(self, update_id: int) -> RecordedBook | None:
        """The book at exactly this id; None if it never had it, or if the id lies inside the range of one update."""
        if self.is_over:
            return None
        bids, asks, reached = dict(self._start.bids), dict(self._start.asks), self._first_id
        for update in self._updates:
            if reached >= update_id:
                break
            _apply(bids, update.bids)
            _apply(asks, update.asks)
            reached = update.last_id
        return self._start._replace(bids=bids, asks=asks) if reached == update_id else None


def _levels(side: BookSide) -> Quantities:
    # The published levels come first as they are: a comparison has to show it if they are not the best of all.
    return dict([*side.top, *side.levels()[len(side.top) :]])


def _apply(levels: Quantities, changes: Sequence[DepthChange]) -> None:
    for price, quantity in changes:
        if quantity:
            levels[price] = quantity
        else:
            levels.pop(price, None)
