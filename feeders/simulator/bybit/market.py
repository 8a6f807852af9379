"""One Bybit market: a book whose id counts its changes."""

from random import Random

from bookbus.feeders.simulator.core.feed import BookAt, MarketFeed, WholeBookMarket

DEPTH = 50
"""Levels a side that count: the id rises when one of these changes, for deeper topics too."""


class BybitMarket(WholeBookMarket):
    """`update_id` is a counter; the ids of the feed are sent as `seq`."""

    def __init__(self, feed: MarketFeed, truth_flushes: int) -> None:
        first_id = Random(f"first id:{feed.instrument.native}").randrange(10**7, 10**8)  # noqa: S311
        super().__init__(feed, DEPTH, truth_flushes, first_id)

    @property
    def sequence(self) -> int:
        """Rises with every message, by more than one."""
        return self.book.update_id

    def at_depth(self, depth: int) -> BookAt:
        """The book as a topic of this depth shows it."""
        deep = self.book if depth <= DEPTH else self.feed.snapshot(depth, "flushed")
        return BookAt(self.update_id, deep.bids[:depth], deep.asks[:depth])
