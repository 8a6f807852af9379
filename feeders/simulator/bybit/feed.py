"""One Bybit market: the books its topics show, a counter as their id, and the truth at each id."""

from random import Random

from bookbus.feeders.simulator.core.feed import BookAt, Feed
from bookbus.feeders.simulator.core.market import Fill

DEPTH = 50
"""Levels a side that are watched and remembered: the id rises when one of these changes, for deeper topics too."""

RESTARTED = 1
"""The id with which a restarted service begins."""


class BybitFeed:
    """What the venue needs to know of one market. `market` has ids of its own, which leave as `seq`."""

    def __init__(self, market: Feed, truth_flushes: int) -> None:
        self.market = market
        self.instrument = market.instrument
        self._truth_flushes = truth_flushes
        self._shown_at: dict[int, int] = {}
        self._show(Random(f"first id:{self.instrument.native}").randrange(10**7, 10**8), self.market.top(DEPTH))  # noqa: S311

    @property
    def sequence(self) -> int:
        """Rises with every message, by more than one."""
        return self._shown.update_id

    def step(self) -> list[Fill]:
        """Move by a quarter of the way to the next flush; the trades on the way."""
        return [event for event in self.market.step() if isinstance(event, Fill)]

    def flush(self) -> bool:
        """Whether there is something to tell, under the next id."""
        if self.market.flush() is None:
            return False
        book = self.market.top(DEPTH)
        if (book.bids, book.asks) == (self._shown.bids, self._shown.asks):
            return False  # deeper levels wait for the next time
        self._show(self.update_id + 1, book)
        return True

    def book(self, depth: int) -> BookAt:
        """The book as a topic of this depth has it."""
        deep = self._shown if depth <= DEPTH else self.market.snapshot(depth, "flushed")
        return BookAt(self.update_id, deep.bids[:depth], deep.asks[:depth])

    def truth(self, update_id: int) -> BookAt | None:
        """The best levels at this id."""
        market_id = self._shown_at.get(update_id)
        book = None if market_id is None else self.market.truth(market_id)
        return book and BookAt(update_id, book.bids, book.asks)

    def truth_ids(self, since: int) -> list[int]:
        """Every id from this one on whose book is remembered."""
        return [known for known in self._shown_at if known >= since]

    def restart(self) -> None:
        """Begin anew with another book and the lowest id."""
        self.market.restart()
        self._show(RESTARTED, self.market.top(DEPTH))

    def _show(self, update_id: int, book: BookAt) -> None:
        self.update_id = update_id
        self._shown = book
        self._shown_at.pop(update_id, None)  # of an earlier beginning: the newest are the last
        self._shown_at[update_id] = book.update_id
        if len(self._shown_at) > self._truth_flushes:
            del self._shown_at[next(iter(self._shown_at))]
