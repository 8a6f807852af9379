"""One Bybit market: a book whose id counts its changes."""

import time
from random import Random

from bookbus.feeders.simulator.core.feed import BookAt, LiveFeed, MarketFeed, WholeBookMarket

DEPTH = 50
"""Levels a side that count: the id rises when one of these changes, for deeper topics too."""


class BybitMarket(WholeBookMarket):
    """`update_id` is a counter; the ids of the feed are sent as `seq`."""

    def __init__(self, feed: MarketFeed, truth_flushes: int) -> None:
        first_id = Random(f"first id:{feed.instrument.native}").randrange(10**7, 10**8)  # noqa: S311
        super().__init__(feed, DEPTH, truth_flushes, first_id)
        self.matched_ms = time.time_ns() // 1_000_000
        """When the matching engine made the book that is shown."""

    @property
    def sequence(self) -> int:
        """Rises with every message, by more than one."""
        return self.book.update_id

    def full(self, levels: int) -> BookAt:
        """A book between two messages of the topics, with the feed's id, which is sent as `seq`."""
        return self.feed.snapshot(levels, "unflushed" if isinstance(self.feed, LiveFeed) else "flushed")

    def at_depth(self, depth: int) -> BookAt:
        """The book as a topic of this depth shows it."""
        deep = self.book if depth <= DEPTH else self.feed.snapshot(depth, "flushed")
        return BookAt(self.update_id, deep.bids[:depth], deep.asks[:depth])
