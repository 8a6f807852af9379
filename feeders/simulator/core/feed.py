"""The market of one symbol as an exchange serves it: steps, flushes, snapshots, and the true book at each id."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import Any, Literal, NamedTuple

from bookbus.feeders.simulator.core.market import (
    Flush,
    Ladder,
    Quote,
    RawLevel,
    SimulatedFill,
    SimulatedInstrument,
    SimulatedMarket,
    unpack,
)
from bookbus.feeders.simulator.core.settings import FLUSHES_PER_SECOND, SimulatorSettings
from bookbus.feeders.simulator.core.tape import Candle, TradeHistory


class BookAt(NamedTuple):
    """A book at one update id, best levels first."""

    update_id: int
    bids: list[RawLevel]
    asks: list[RawLevel]


class TruthHistory:
    """The best `depth` levels at each of the last `limit` recorded ids, and the last `limit` quotes."""

    def __init__(self, depth: int, limit: int) -> None:
        self._depth = depth
        self._limit = limit
        self._books: dict[int, tuple[bytes, bytes]] = {}
        self._quotes: dict[int, Quote] = {}

    def record(self, update_id: int, bids: Ladder, asks: Ladder) -> None:
        self._books[update_id] = (bids.packed(self._depth), asks.packed(self._depth))
        _forget_oldest(self._books, self._limit)

    def record_quote(self, quote: Quote) -> None:
        """Remember the best levels between two records."""
        self._quotes[quote.update_id] = quote
        _forget_oldest(self._quotes, self._limit)

    def at(self, update_id: int) -> BookAt | None:
        """The book at this id, one level of it if only a quote was recorded; None if nothing is remembered."""
        if packed := self._books.get(update_id):
            return BookAt(update_id, unpack(1, packed[0]), unpack(-1, packed[1]))
        if quote := self._quotes.get(update_id):
            return BookAt(update_id, [quote.bid], [quote.ask])
        return None

    def ids_since(self, update_id: int) -> list[int]:
        """Every id from this one on whose book is remembered, in the order recorded."""
        return [known for known in self._books if known >= update_id]


STEPS_PER_FLUSH = 4
"""Steps between two flushes: quotes and trades are not all on the grid of the books."""

SnapshotMode = Literal["flushed", "unflushed", "ahead"]
"""Id of a snapshot: of the last flush, inside the range of the next flush, or of a flush that is not sent yet."""

_FLUSHES_AHEAD = 3


class LiveFeed:
    """A market that is computed while it runs."""

    stream_prefix: str
    """`btcusdt@`"""

    def __init__(
        self, instrument: SimulatedInstrument, settings: SimulatorSettings, truth_depth: int, rate: float | None = None
    ) -> None:
        """`truth_depth`: levels a side that are remembered; `rate` overrides that of the settings."""
        self.instrument = instrument
        self.tape = TradeHistory(instrument.start_ticks)
        self.stream_prefix = f"{instrument.native.lower()}@"
        self._settings = settings
        self._share = (settings.rate if rate is None else rate) / FLUSHES_PER_SECOND
        self._history = TruthHistory(truth_depth, settings.truth_flushes)
        self._restarts = 0
        self._first_id: int | None = None
        self._begin()

    def _create_market(self) -> SimulatedMarket:
        settings = self._settings
        return SimulatedMarket(self.instrument, settings.seed + 7919 * self._restarts, settings.levels, self._first_id)

    def _begin(self) -> None:
        self._market = self._create_market()
        self._rng = Random(f"{self._settings.seed}:{self._restarts}:activity:{self.instrument.native}")  # noqa: S311
        self._credit = self._rng.random()
        self._left = 0
        self._steps_left = 0
        self._must_change = False
        self._ahead: deque[Flush] = deque()
        self._record()

    def step(self) -> list[Quote | SimulatedFill]:
        """Move by a quarter of the way to the next flush."""
        if self._ahead:
            return []
        if not self._steps_left:
            self._plan_slot()
        mutations = self._left // self._steps_left
        self._left -= mutations
        self._steps_left -= 1
        return self._market.step(mutations) if mutations else []

    def flush(self) -> Flush | None:
        """Changes since the last flush; None if there are none."""
        if self._ahead:
            return self._ahead.popleft()
        self._steps_left = 0
        flush = self._market.flush()
        if flush is not None:
            self._record()
        return flush

    @property
    def flushed_id(self) -> int:
        """Id of the last flush that was handed out."""
        return self._ahead[0].first_id - 1 if self._ahead else self._market.flushed_id

    def top(self, depth: int) -> BookAt:
        """The book at the last flush that was handed out."""
        sent = self.flushed_id
        book = self._history.at(sent)
        if book is None:
            raise LookupError(f"{self.instrument.native} forgot its book at {sent}")
        return BookAt(sent, book.bids[:depth], book.asks[:depth])

    def quote(self) -> Quote:
        return self._market.quote()

    def snapshot(self, limit: int, mode: SnapshotMode) -> BookAt:
        """A book for the answer to a request; the truth at its id is remembered."""
        if mode == "unflushed" and not self._ahead:
            return self._inside_next_flush(limit)
        if mode == "ahead" and not self._ahead:
            self._run_ahead()
        market = self._market
        return BookAt(market.flushed_id, market.bids.top_at_flush(limit), market.asks.top_at_flush(limit))

    def stale_snapshot(self, limit: int) -> BookAt:
        """The book as it was when the market began: older than what any client buffers."""
        first = self._create_market()
        self._history.record(first.update_id, first.bids, first.asks)
        return BookAt(first.update_id, first.bids.top(limit), first.asks.top(limit))

    def truth(self, update_id: int) -> BookAt | None:
        """The true book at this id, as deep as remembered; None if it is not."""
        return self._history.at(update_id)

    def remember(self, quote: Quote) -> None:
        """Remember the truth at the id of a quote that is sent."""
        self._history.record_quote(quote)

    def truth_ids(self, since: int) -> list[int]:
        return self._history.ids_since(since)

    def restart(self) -> None:
        """Start again with lower ids and another book."""
        self._restarts += 1
        # Low enough that no id is used twice.
        self._first_id = max(1, self._market.update_id - 100_000_000)
        self._begin()

    def _plan_slot(self) -> None:
        self._steps_left = STEPS_PER_FLUSH
        self._left = 0
        self._credit += self._share
        if self._credit >= 1.0:
            self._credit -= 1.0
            self._left = max(1, round(self._settings.changes * self._rng.uniform(0.2, 1.8)))
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
            self._market.step(self._settings.changes)
            flush = self._market.flush()
            if flush is not None:
                self._record()
                self._ahead.append(flush)

    def _record(self) -> None:
        self._history.record(self._market.update_id, self._market.bids, self._market.asks)


Render = Callable[[SimulatedInstrument, Flush], str]


class PreparedFeed:
    """Replays some flushes of a market forwards, then backwards, and so on, with rising ids and consistent books.

    There is at most one quote per flush, and no trades. `render` writes the text of each flush beforehand.
    """

    def __init__(
        self,
        instrument: SimulatedInstrument,
        settings: SimulatorSettings,
        truth_depth: int,
        rate: float | None = None,
        render: Render | None = None,
    ) -> None:
        slots = round(settings.prepared * FLUSHES_PER_SECOND)
        self._truth_flushes = settings.truth_flushes
        # The live market must remember the truth of all slots.
        settings = replace(settings, truth_flushes=max(settings.truth_flushes, slots + 1))
        self._live = live = LiveFeed(instrument, settings, truth_depth, rate)
        self.instrument = instrument
        self.tape = live.tape
        self.stream_prefix = live.stream_prefix
        self._first_live_id = self._first_id = live.snapshot(1, "flushed").update_id
        self._quotes = [live.quote()]
        """Quote at each position, the start first."""
        self._forward: list[Flush | None] = []
        for _ in range(slots):
            self._forward.append(_next_flush(live))
            self._quotes.append(live.quote())
        both_ways = self._forward + [flush and flush.undone() for flush in reversed(self._forward)]
        self._cycle = [
            flush and flush._replace(body=render(self.instrument, flush)) if render else flush for flush in both_ways
        ]
        spans = (flush.last_id - flush.first_id + 1 if flush else 0 for flush in self._cycle)
        self._used = list(accumulate(spans, initial=0))
        """Number of ids used before each slot of the cycle; the last is that of a whole cycle."""
        self._slot_of = {used: slot for slot, used in enumerate(self._used)}
        self._played = 0
        self.position = 0
        """Distance of the book from the start, in flushes: at one position the book is always the same."""
        self.flushed_id = self._first_id
        """Id of the last flush."""
        self._last_quote = self.quote()
        self._stepped_to = 0

    def step(self) -> list[Quote | SimulatedFill]:
        if self._stepped_to == self._played:
            return []
        self._stepped_to = self._played
        quote = self.quote()
        if quote[1:] == self._last_quote[1:]:
            return []
        self._last_quote = quote
        return [quote]

    def flush(self) -> Flush | None:
        flush = self._cycle[self._played % len(self._cycle)]
        self._played += 1
        self.position = self._distance(self._played % len(self._cycle))
        if flush is None:
            return None
        first_id, self.flushed_id = self.flushed_id + 1, self._id_before(self._played)
        return flush._replace(first_id=first_id, last_id=self.flushed_id)

    def top(self, depth: int) -> BookAt:
        book = self.truth(self.flushed_id)
        if book is None:
            raise LookupError(f"{self.instrument.native} has no book at {self.flushed_id}")
        return BookAt(book.update_id, book.bids[:depth], book.asks[:depth])

    def quote(self) -> Quote:
        _, bid, ask = self._quotes[self.position]
        return Quote(self.flushed_id, bid, ask)

    def snapshot(self, limit: int, mode: SnapshotMode) -> BookAt:
        if mode != "flushed":
            raise ValueError(f"a prepared market has no {mode!r} snapshots")
        return self._whole_book(self.position, self.flushed_id, limit)

    def stale_snapshot(self, limit: int) -> BookAt:
        return self._whole_book(0, self._first_id, limit)

    def truth(self, update_id: int) -> BookAt | None:
        if not self._first_id <= update_id <= self.flushed_id:
            return None
        slot = self._slot_of.get((update_id - self._first_id) % max(1, self._used[-1]))
        if slot is None:
            return None
        book = self._live.truth(self._first_live_id + self._used[self._distance(slot)])
        return book and BookAt(update_id, book.bids, book.asks)

    def remember(self, quote: Quote) -> None:
        """Nothing to do: quotes are those of books whose truth is known."""

    def truth_ids(self, since: int) -> list[int]:
        played = range(max(0, self._played - self._truth_flushes), self._played + 1)
        return list(dict.fromkeys(known for slot in played if (known := self._id_before(slot)) >= since))

    def restart(self) -> None:
        self._first_id = self.flushed_id = max(1, self._first_id - 100_000_000)
        self._played = self.position = 0

    def _id_before(self, slot: int) -> int:
        cycles, rest = divmod(slot, len(self._cycle))
        return self._first_id + cycles * self._used[-1] + self._used[rest]

    def _distance(self, slot: int) -> int:
        """Distance of the book before this slot from the start, in flushes."""
        return min(slot, len(self._cycle) - slot)

    def _whole_book(self, position: int, update_id: int, limit: int) -> BookAt:
        # The live market is at the far end: revert from there. Each reverted change may hide one level.
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


def _forget_oldest(remembered: dict[int, Any], limit: int) -> None:
    if len(remembered) > limit:
        del remembered[next(iter(remembered))]


MarketFeed = LiveFeed | PreparedFeed


def last_price(feed: MarketFeed) -> int:
    """Ticks of the last trade, or of the best bid if nothing was traded."""
    return feed.tape.recent[-1].fill.ticks if feed.tape.recent else feed.quote().bid[0]


def window(feed: MarketFeed, span_ms: int, now_ms: int, volume: int = 0) -> Candle:
    """Trades within `span_ms` as one candle that ends with the last price, and `volume` steps at the first price."""
    candle, last = feed.tape.window(span_ms, now_ms), last_price(feed)
    return candle._replace(
        high=max(candle.high, last),
        low=min(candle.low, last),
        close=last,
        volume=candle.volume + volume,
        turnover=candle.turnover + volume * feed.instrument.start_ticks,
    )


def create_feed(
    instrument: SimulatedInstrument,
    settings: SimulatorSettings,
    truth_depth: int,
    rate: float | None = None,
    render: Render | None = None,
) -> MarketFeed:
    """A prepared feed if the settings ask for one, otherwise a live one."""
    if round(settings.prepared * FLUSHES_PER_SECOND):
        return PreparedFeed(instrument, settings, truth_depth, rate, render)
    return LiveFeed(instrument, settings, truth_depth, rate)


class WholeBookMarket:
    """A market of an exchange with separate ids, which rise when one of the best `depth` levels changes."""

    def __init__(self, feed: MarketFeed, depth: int, truth_flushes: int, first_id: int) -> None:
        """`feed` must remember the truth of `depth` levels."""
        self.feed = feed
        self.instrument = feed.instrument
        self._depth = depth
        self._truth_flushes = truth_flushes
        self._feed_ids: dict[int, int] = {}
        """Id of the feed for each book shown, by id of the exchange."""
        self._prepared: dict[int, BookAt] = {}
        """Books of a prepared feed by their position."""
        self._show(first_id, self._current_book())

    def fills(self) -> list[SimulatedFill]:
        """Move by a quarter of the way to the next flush; the trades on the way."""
        if isinstance(self.feed, PreparedFeed):
            return []  # it has no trades
        return [event for event in self.feed.step() if isinstance(event, SimulatedFill)]

    def flush(self, update_id: int) -> bool:
        """Flush the feed. Returns whether another book is shown from now on, under this id."""
        if self.feed.flush() is None:
            return False
        book = self._current_book()
        if book[1:] == self.book[1:]:
            return False  # only deeper levels changed
        self._show(update_id, book)
        return True

    @property
    def flushed_id(self) -> int:
        """Id of the book shown."""
        return self.update_id

    def truth(self, update_id: int) -> BookAt | None:
        """The book shown at this id; None if it is not remembered."""
        feed_id = self._feed_ids.get(update_id)
        book = None if feed_id is None else self.feed.truth(feed_id)
        return book and self._shown_of(book)._replace(update_id=update_id)

    def truth_ids(self, since: int) -> list[int]:
        return [known for known in self._feed_ids if known >= since]

    def restart_at(self, update_id: int) -> None:
        """Restart the feed and show its first book under this id."""
        self.feed.restart()
        self._show(update_id, self._current_book())

    def _current_book(self) -> BookAt:
        if not isinstance(self.feed, PreparedFeed):
            return self._shown_of(self.feed.top(self._depth))
        if self.feed.position not in self._prepared:
            self._prepared[self.feed.position] = self._shown_of(self.feed.top(self._depth))
        return self._prepared[self.feed.position]._replace(update_id=self.feed.flushed_id)

    def _shown_of(self, book: BookAt) -> BookAt:
        """The part of a book that the exchange shows."""
        return book

    def _show(self, update_id: int, book: BookAt) -> None:
        self.update_id = update_id
        self.book = book
        """The book shown; its own id is the feed's."""
        self._feed_ids.pop(update_id, None)  # used before a restart: the newest ids stay last
        self._feed_ids[update_id] = book.update_id
        _forget_oldest(self._feed_ids, self._truth_flushes)
