"""One symbol's market computed beforehand and replayed for ever, for load that costs the simulator little."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate

from bookbus.feeders.simulator.core.feed import STEPS_PER_FLUSH, LiveFeed, SnapshotMode
from bookbus.feeders.simulator.core.market import Fill, Flush, Quote
from bookbus.feeders.simulator.instruments import SimulatedInstrument
from bookbus.feeders.simulator.ladder import RawLevel
from bookbus.feeders.simulator.truth import BookAt

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
