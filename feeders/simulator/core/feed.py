"""One symbol's market on a venue's grid: steps between flushes, snapshots, and the truth of both."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import Literal, NamedTuple, Protocol

from bookbus.feeders.simulator.core.market import (
    Fill,
    Flush,
    Ladder,
    Market,
    Quote,
    RawLevel,
    SimulatedInstrument,
    unpack,
)


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
        self._rng = Random(f"{self._seed}:{self._restarts}:activity:{self.instrument.native}")  # noqa: S311
        self._credit = self._rng.random()
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
            self._left = max(1, round(self._changes * self._rng.uniform(0.2, 1.8)))
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


Render = Callable[[SimulatedInstrument, Flush], str]


class PreparedFeed:
    """Plays a stretch of market forwards, then backwards, then again: ids go on rising, books stay consistent.

    Quotes come once a flush, trades not at all. `live` must remember the truth of all `slots`.
    """

    def __init__(self, live: LiveFeed, slots: int, render: Render, truth_flushes: int) -> None:
        self.instrument = live.instrument
        self.stream_prefix = live.stream_prefix
        self._live = live
        self._truth_flushes = truth_flushes
        self._first_live_id = self._first_id = live.snapshot(1, "flushed").update_id
        self._quotes = [live.quote()]
        """At each position, the start first."""
        self._forward: list[Flush | None] = []
        for _ in range(slots):
            self._forward.append(_next_flush(live))
            self._quotes.append(live.quote())
        both_ways = self._forward + [flush and flush.undone() for flush in reversed(self._forward)]
        self._cycle = [flush and replace(flush, body=render(self.instrument, flush)) for flush in both_ways]
        spans = (flush.last_id - flush.first_id + 1 if flush else 0 for flush in self._cycle)
        self._used = list(accumulate(spans, initial=0))
        """Ids used before each slot of the cycle; the last is what a whole cycle uses."""
        self._slot_of = {used: slot for slot, used in enumerate(self._used)}
        self._played = 0
        self._flushed_id = self._first_id
        self._told = self.quote()
        self._stepped_to = 0

    def step(self) -> list[Quote | Fill]:
        if self._stepped_to == self._played:
            return []
        self._stepped_to = self._played
        quote = self.quote()
        if quote[1:] == self._told[1:]:
            return []
        self._told = quote
        return [quote]

    def flush(self) -> Flush | None:
        flush = self._cycle[self._played % len(self._cycle)]
        self._played += 1
        if flush is None:
            return None
        first_id, self._flushed_id = self._flushed_id + 1, self._id_before(self._played)
        return replace(flush, first_id=first_id, last_id=self._flushed_id)

    def top(self, depth: int) -> BookAt:
        book = self.truth(self._flushed_id)
        if book is None:
            raise LookupError(f"{self.instrument.native} has no book at {self._flushed_id}")
        return BookAt(book.update_id, book.bids[:depth], book.asks[:depth])

    def quote(self) -> Quote:
        _, bid, ask = self._quotes[self._position(self._played % len(self._cycle))]
        return Quote(self._flushed_id, bid, ask)

    def snapshot(self, limit: int, mode: SnapshotMode) -> BookAt:
        if mode != "flushed":
            raise ValueError(f"a prepared market has no {mode!r} snapshots")
        return self._whole_book(self._position(self._played % len(self._cycle)), self._flushed_id, limit)

    def stale_snapshot(self, limit: int) -> BookAt:
        return self._whole_book(0, self._first_id, limit)

    def truth(self, update_id: int) -> BookAt | None:
        if not self._first_id <= update_id <= self._flushed_id:
            return None
        slot = self._slot_of.get((update_id - self._first_id) % max(1, self._used[-1]))
        if slot is None:
            return None
        book = self._live.truth(self._first_live_id + self._used[self._position(slot)])
        return book and BookAt(update_id, book.bids, book.asks)

    def remember(self, quote: Quote) -> None:
        """Its quotes are those of the books it knows."""

    def truth_ids(self, since: int) -> list[int]:
        played = range(max(0, self._played - self._truth_flushes), self._played + 1)
        return list(dict.fromkeys(known for slot in played if (known := self._id_before(slot)) >= since))

    def restart(self) -> None:
        self._first_id = self._flushed_id = max(1, self._first_id - 100_000_000)
        self._played = 0

    def _id_before(self, slot: int) -> int:
        cycles, rest = divmod(slot, len(self._cycle))
        return self._first_id + cycles * self._used[-1] + self._used[rest]

    def _position(self, slot: int) -> int:
        """How many flushes away from the start the book is before this slot of the cycle."""
        return min(slot, len(self._cycle) - slot)

    def _whole_book(self, position: int, update_id: int, limit: int) -> BookAt:
        # The live market stands at the far end: walk back from there. Each change on the way hides at most one level.
        undone = [flush for flush in reversed(self._forward[position:]) if flush is not None]
        hidden = sum(len(flush.bids_before) + len(flush.asks_before) for flush in undone)
        end = self._live.snapshot(limit + hidden, "flushed")
        bids, asks = dict(end.bids), dict(end.asks)
        for flush in undone:
            bids.update(flush.bids_before)
            asks.update(flush.asks_before)
        return BookAt(update_id, _best(bids.items(), limit, highest=True), _best(asks.items(), limit, highest=False))


def _next_flush(live: LiveFeed) -> Flush | None:
    for _ in range(STEPS_PER_FLUSH):
        live.step()
    return live.flush()


def _best(levels: Iterable[RawLevel], limit: int, *, highest: bool) -> list[RawLevel]:
    return sorted((level for level in levels if level[1]), reverse=highest)[:limit]
