"""One symbol's market on a venue's grid: steps between flushes, snapshots, and the truth of both."""

from collections import deque
from random import Random
from typing import Literal, Protocol

from bookbus.feeders.simulator.core.market import Fill, Flush, Market, Quote
from bookbus.feeders.simulator.instruments import SimulatedInstrument
from bookbus.feeders.simulator.truth import BookAt, TruthHistory

STEPS_PER_FLUSH = 4
"""The market moves this often between two flushes, so that quotes and trades are not all on the grid."""

FLUSHES_PER_SECOND = 10

SnapshotMode = Literal["flushed", "unflushed", "ahead"]
"""Which id a snapshot has: of the last flush · inside what the next flush will cover · of a flush still to be sent."""

_FLUSHES_AHEAD = 3


class Feed(Protocol):
    """What a venue needs to know of one symbol."""

    instrument: SimulatedInstrument
    stream_prefix: str
    """`btcusdt@`"""

    def step(self) -> list[Quote | Fill]:
        """Move by a quarter of the way to the next flush."""

    def flush(self) -> Flush | None:
        """What changed since the last flush; None if nothing did."""

    def top(self, depth: int) -> BookAt:
        """The book at the last flush that was handed out."""

    def quote(self) -> Quote:
        """Best bid and ask."""

    def snapshot(self, limit: int, mode: SnapshotMode) -> BookAt:
        """A book to answer a request with; the truth at its id is remembered."""

    def stale_snapshot(self, limit: int) -> BookAt:
        """The book as it was when the market began: older than what any client buffers."""

    def truth(self, update_id: int) -> BookAt | None:
        """The true book at this id, as deep as it is remembered."""

    def remember(self, quote: Quote) -> None:
        """Make the truth known at the id of a quote that goes out."""

    def truth_ids(self, since: int) -> list[int]:
        """Every id from this one on whose truth is remembered."""

    def restart(self) -> None:
        """Begin anew with lower ids and another book."""


class LiveFeed:
    """A market that is computed as it goes."""

    def __init__(
        self,
        instrument: SimulatedInstrument,
        *,
        seed: int,
        rate: float,
        changes: int,
        levels: int,
        truth_depth: int,
        truth_flushes: int,
    ) -> None:
        self.instrument = instrument
        self.stream_prefix = f"{instrument.native.lower()}@"
        self._seed = seed
        self._levels = levels
        self._share = rate / FLUSHES_PER_SECOND
        self._changes = changes
        self._history = TruthHistory(truth_depth, truth_flushes)
        self._restarts = 0
        self._first_id: int | None = None
        self._begin()

    def _create_market(self) -> Market:
        return Market(self.instrument, self._seed + 7919 * self._restarts, self._levels, self._first_id)

    def _begin(self) -> None:
        self._market = self._create_market()
        self._dice = Random(f"{self._seed}:{self._restarts}:activity:{self.instrument.native}")  # noqa: S311
        self._credit = self._dice.random()
        self._left = 0
        self._steps_left = 0
        self._must_change = False
        self._ahead: deque[Flush] = deque()
        self._record()

    def step(self) -> list[Quote | Fill]:
        if self._ahead:
            return []
        if not self._steps_left:
            self._plan_slot()
        mutations = self._left // self._steps_left
        self._left -= mutations
        self._steps_left -= 1
        return self._market.step(mutations) if mutations else []

    def flush(self) -> Flush | None:
        if self._ahead:
            return self._ahead.popleft()
        self._steps_left = 0
        flush = self._market.flush()
        if flush is not None:
            self._record()
        return flush

    def top(self, depth: int) -> BookAt:
        sent = self._ahead[0].first_id - 1 if self._ahead else self._market.flushed_id
        book = self._history.at(sent)
        if book is None:
            raise LookupError(f"{self.instrument.native} forgot its book at {sent}")
        return BookAt(sent, book.bids[:depth], book.asks[:depth])

    def quote(self) -> Quote:
        return self._market.quote()

    def snapshot(self, limit: int, mode: SnapshotMode) -> BookAt:
        if mode == "unflushed" and not self._ahead:
            return self._inside_next_flush(limit)
        if mode == "ahead" and not self._ahead:
            self._run_ahead()
        return self._at_flush(limit)

    def stale_snapshot(self, limit: int) -> BookAt:
        first = self._create_market()
        self._history.record(first.update_id, first.bids, first.asks)
        return BookAt(first.update_id, first.bids.top(limit), first.asks.top(limit))

    def truth(self, update_id: int) -> BookAt | None:
        return self._history.at(update_id)

    def remember(self, quote: Quote) -> None:
        self._history.record_quote(quote)

    def truth_ids(self, since: int) -> list[int]:
        return self._history.ids_since(since)

    def restart(self) -> None:
        self._restarts += 1
        # Far enough below for no id to be used twice.
        self._first_id = max(1, self._market.update_id - 100_000_000)
        self._begin()

    def _plan_slot(self) -> None:
        self._steps_left = STEPS_PER_FLUSH
        self._left = 0
        self._credit += self._share
        if self._credit >= 1.0:
            self._credit -= 1.0
            self._left = max(1, round(self._changes * self._dice.uniform(0.2, 1.8)))
        elif self._must_change:
            self._left = 1
        self._must_change = False

    def _inside_next_flush(self, limit: int) -> BookAt:
        market = self._market
        if market.update_id == market.flushed_id:
            market.step(1)
        if self._steps_left:
            self._left += 1
        else:
            self._must_change = True
        self._record()
        return BookAt(market.update_id, market.bids.top(limit), market.asks.top(limit))

    def _run_ahead(self) -> None:
        for _ in range(_FLUSHES_AHEAD):
            self._market.step(max(1, self._changes))
            flush = self._market.flush()
            if flush is not None:
                self._record()
                self._ahead.append(flush)

    def _at_flush(self, limit: int) -> BookAt:
        market = self._market
        return BookAt(market.flushed_id, market.bids.top_at_flush(limit), market.asks.top_at_flush(limit))

    def _record(self) -> None:
        self._history.record(self._market.update_id, self._market.bids, self._market.asks)
