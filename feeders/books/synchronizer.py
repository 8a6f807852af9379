"""Synchronisation strategies: from when a book equals the exchange's, and when that is no longer certain."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from bookbus.feeders.books.arbitration import LineIds
from bookbus.feeders.books.events import (
    BookLost,
    BookUnchanged,
    BookUpdated,
    Event,
    KnownWindowLeft,
    ResubscribeNeeded,
    SnapshotNeeded,
    Topic,
)
from bookbus.feeders.books.history import BookHistory
from bookbus.feeders.books.order_book import DepthSnapshot, DepthUpdate, OrderBook
from bookbus.schemas.snapshot import Levels

NOTHING: tuple[Event, ...] = ()

_MAX_BUFFERED = 100
"""Updates kept while a snapshot is awaited: 10 s of a 100 ms stream, which no request outlasts.

Without older ones the snapshot has to be a newer one, nothing else.
"""

_RESTARTED = 1
"""Update id of the snapshot that a restarted service sends."""

_MORE_THAN_ALL = 1 << 31
"""A snapshot limit above any number of levels: the book holds every level of the stream's depth."""

Arrival = tuple[DepthUpdate, int]
"""An update that must wait, and the line it came by."""


class BookSync(Protocol):
    """One symbol's strategy. `line` numbers the connection an update came by; `lines` holds the working ones."""

    @property
    def update_id(self) -> int | None:
        """The id the book is at; None while it is not synchronised."""

    @property
    def is_behind(self) -> bool:
        """Whether the book may be older than what came: the next update may still come by another line, or ids fell."""

    def receive_update(self, update: DepthUpdate, line: int) -> Sequence[Event]:
        """Changes of the book, or a whole book where the venue sends those."""

    def line_down(self, line: int, reason: str) -> Sequence[Event]:
        """The connection ended; `lines` no longer holds it."""

    def invalidate(self, reason: str) -> Sequence[Event]:
        """A comparison showed that the book is not the exchange's."""


class RangeSync:
    """Snapshot by request plus updates that carry the range of ids they cover.

    Binance spot, "How to manage a local order book correctly" (web-socket-streams.md, rule of 2025-11-12): drop
    what ends at or before the book's id, stop when an update starts after the next id, else set the absolute
    quantities. The text adds that the first update should contain the snapshot's id in its range, which real
    traffic does not do; being contiguous with it is what counts.

    Updates may come by several lines, each in order: another line may deliver what one lacks. An update is lost
    only when every working line is past it.
    """

    def __init__(self, native: str, depth: int, lines: set[int], first_limit: int, deep_limit: int) -> None:
        self._native = native
        self._book = OrderBook(depth)
        self._lines = lines
        self._first_limit = first_limit
        self._deep_limit = deep_limit
        self._id: int | None = None
        self._ids = LineIds()
        self._asked = False
        """Whether a snapshot is requested and not received yet."""
        self._buffer: deque[Arrival] | None = None
        """Updates that may have to follow that snapshot: all since the book was lost, or since the request was sent."""
        self._ahead: list[Arrival] = []
        """Updates received before an earlier one that another line may still deliver."""
        self._window_left = self._hurried = False
        self._uncovered = False
        """Whether the book is kept and not published: its snapshot is too small for the published levels now."""
        self._history: BookHistory | None = None

    @property
    def book(self) -> OrderBook:
        """The levels, meaningful while `update_id` is not None."""
        return self._book

    @property
    def update_id(self) -> int | None:
        return None if self._uncovered else self._id

    @property
    def is_behind(self) -> bool:
        return bool(self._ahead) or self._ids.falling

    def start(self) -> Sequence[Event]:
        """The subscription works: ask for the first snapshot. A quiet symbol may send no update for minutes."""
        return NOTHING if self._id is not None else self._ask(self._first_limit, urgent=True)

    def snapshot_requested(self) -> None:
        """The request is sent now. Updates before it need no buffer: the answer is newer."""
        if self._asked and self._buffer is None:
            self._buffer = deque(maxlen=_MAX_BUFFERED)

    def receive_update(self, update: DepthUpdate, line: int) -> Sequence[Event]:
        """Apply, ignore, keep for later, or lose the book."""
        if self._ids.restarted(update.last_id, line):
            return self._lose(f"update ids fell to {update.last_id}", [(update, line)])
        if self._buffer is not None:
            self._buffer.append((update, line))
        book_id = self._id
        if book_id is None:
            return self._ask(self._first_limit, urgent=True, since=[(update, line)])
        if update.last_id <= book_id:
            return NOTHING
        if update.first_id > book_id + 1:
            return self._wait(update, line, book_id)
        events = self._apply(update, line)
        return [*events, *self._catch_up(update.last_id)] if self._ahead else events

    def receive_snapshot(self, snapshot: DepthSnapshot, limit: int) -> Sequence[Event]:
        """Bridge from the snapshot to now by the buffered updates; `limit` is the levels asked for."""
        if self._buffer is None:
            return NOTHING  # the answer to a request from before the connection was lost
        live, arrivals = self._id is not None and not self._uncovered, [*self._buffer, *self._ahead]
        following, beyond = _split(arrivals, snapshot.last_id)
        reached = following[-1][0].last_id if following else snapshot.last_id
        if (reached < self._id) if self._id is not None else (arrivals and len(arrivals) == len(beyond)):
            return [SnapshotNeeded(self._native, limit, not live)]  # stale: a newer one will meet the buffer
        if beyond and self._all_past(beyond):
            return self._lose("updates since the snapshot are missing", arrivals[-1:])
        before = (self._book.bids.top, self._book.asks.top)
        self._end_history()
        self._book.replace(snapshot.bids, snapshot.asks, limit)
        for update, _ in following:
            self._book.apply(update.bids, update.asks)
        if self._book.crossed:
            return self._lose("bids and asks cross", arrivals[-1:])
        self._id, self._asked, self._buffer, self._ahead = reached, False, None, beyond
        self._window_left = self._hurried = False
        deepen = self._ask(self._deep_limit, urgent=False) if limit < self._deep_limit else NOTHING
        self._uncovered = not live  # a book that was not live is not lost
        left = self._check_window()
        if self._uncovered:
            return left
        if live and before == (self._book.bids.top, self._book.asks.top):
            return [*left, BookUnchanged(self._native, reached), *deepen]
        exchange_us = following[-1][0].exchange_us if following else None
        return [*left, self._updated(reached, exchange_us), *deepen]

    def line_down(self, line: int, reason: str) -> Sequence[Event]:
        """Without another line the book is lost, as with an update that only this line could deliver."""
        self._ids.forget(line)
        if self._lines:
            return self._lose(reason, self._ahead) if self._all_past(self._ahead) else NOTHING
        lost = self._lost(reason)
        self._id, self._asked, self._buffer, self._ahead, self._uncovered = None, False, None, [], False
        self._end_history()
        return lost

    def start_history(self) -> BookHistory | None:
        """Record the history of the book from now on; None while it is not synchronised."""
        self._end_history()
        if self._id is not None:
            self._history = BookHistory(self._book, self._id)
        return self._history

    def invalidate(self, reason: str) -> Sequence[Event]:
        return NOTHING if self._id is None else self._lose(reason, self._ahead)

    def _apply(self, update: DepthUpdate, line: int) -> Sequence[Event]:
        touched = self._book.apply(update.bids, update.asks)
        self._id = update.last_id
        if self._history is not None:
            self._add_to_history(self._history, update)
        if not touched:
            return NOTHING if self._uncovered else [BookUnchanged(self._native, update.last_id)]
        if self._book.crossed:
            return self._lose("bids and asks cross", [(update, line)])
        left = self._check_window()
        if self._uncovered:
            return left
        return [*left, self._updated(update.last_id, update.exchange_us)]

    def _add_to_history(self, history: BookHistory, update: DepthUpdate) -> None:
        if history.is_over:
            self._history = None
        else:
            history.add(update)

    def _end_history(self) -> None:
        if self._history is not None:
            self._history.end()
            self._history = None

    def _updated(self, update_id: int, exchange_us: int | None) -> BookUpdated:
        book = self._book
        return BookUpdated(self._native, update_id, exchange_us, book.bids.top, book.asks.top)

    def _wait(self, update: DepthUpdate, line: int, book_id: int) -> Sequence[Event]:
        self._ahead.append((update, line))
        if len(self._ahead) <= _MAX_BUFFERED and not self._all_past(self._ahead):
            return NOTHING
        return self._lose(f"expected update {book_id + 1}, received {update.first_id}", self._ahead)

    def _all_past(self, ahead: Sequence[Arrival]) -> bool:
        """Whether no working line is left that could deliver what is missing before these."""
        return self._lines <= {line for _, line in ahead}

    def _catch_up(self, book_id: int) -> Sequence[Event]:
        """Apply what other lines delivered too early, as far as it now follows."""
        following, self._ahead = _split(self._ahead, book_id)
        events: list[Event] = []
        for update, line in following:
            events.extend(self._apply(update, line))
            if self._id is None:
                break
        return events

    def _ask(self, limit: int, *, urgent: bool, since: Sequence[Arrival] = ()) -> Sequence[Event]:
        if self._asked:
            return NOTHING
        self._asked = True
        if self._id is None:
            self._buffer = deque(since, maxlen=_MAX_BUFFERED)
        return [SnapshotNeeded(self._native, limit, urgent)]

    def _lose(self, reason: str, kept: Sequence[Arrival]) -> Sequence[Event]:
        """Start over with the updates in `kept`, which have to follow the next snapshot."""
        lost = self._lost(reason)
        self._end_history()
        self._id, self._asked, self._buffer, self._ahead = None, True, deque(kept, maxlen=_MAX_BUFFERED), []
        self._uncovered = False
        return [*lost, SnapshotNeeded(self._native, self._first_limit, True)]

    def _lost(self, reason: str) -> list[Event]:
        return [BookLost(self._native, reason)] if self._id is not None and not self._uncovered else []

    def _check_window(self) -> Sequence[Event]:
        """Near the edge of what the last snapshot covered, ask for a small new one before the published levels reach
        beyond it, where levels may be missing. Beyond the edge of a small snapshot the book is not live; it is again
        when its published levels are all within.
        """
        bids, asks = self._book.bids, self._book.asks
        if not (bids.nears_edge or asks.nears_edge):
            self._uncovered = False
            return NOTHING
        events: list[Event] = []
        uncovered = bids.is_uncovered or asks.is_uncovered
        if not self._window_left and (bids.beyond_edge or asks.beyond_edge):
            self._window_left = True
            events.append(KnownWindowLeft(self._native, uncovered))
        if uncovered and not self._uncovered:
            events.append(BookLost(self._native, "published levels reach beyond those of a small snapshot"))
        self._uncovered = uncovered
        if not self._hurried:
            self._hurried = self._asked = True
            events.append(SnapshotNeeded(self._native, self._deep_limit if uncovered else self._first_limit, True))
        return events


class ReplaceSync:
    """Every message is a whole book; the greatest id wins, whichever line delivered it."""

    def __init__(self, native: str, depth: int, lines: set[int], topic: Topic = "book") -> None:
        self._native = native
        self._depth = depth
        self._lines = lines
        self._topic: Topic = topic
        self._id: int | None = None
        self._ids = LineIds()
        self._top: tuple[Levels, Levels] | None = None
        self._passed: tuple[tuple[Levels, Levels], ...] = ()
        """Books before the newest one that had the same id."""
        self._leader = -1
        """The line that delivered the newest book."""

    @property
    def update_id(self) -> int | None:
        return self._id

    @property
    def is_behind(self) -> bool:
        """Whether the book may be older than what came: ids fell."""
        return self._ids.falling

    def receive_update(self, update: DepthUpdate, line: int) -> Sequence[Event]:
        """Take the book unless a newer one was received before."""
        if self._ids.restarted(update.last_id, line):
            return [*self._lose(f"update ids fell to {update.last_id}"), *self.receive_update(update, line)]
        if self._id is not None and update.last_id < self._id:
            return NOTHING
        bids, asks = tuple(update.bids[: self._depth]), tuple(update.asks[: self._depth])
        if bids and asks and bids[0][0] >= asks[0][0]:
            return self._lose("bids and asks cross")
        newest, top = self._top, (bids, asks)
        if update.last_id != self._id or newest is None:
            self._passed, self._leader = (), line
        elif newest != top:
            if line != self._leader and top in self._passed:
                return NOTHING  # a faster line delivered it, and the one after it
            self._passed, self._leader = (*self._passed, newest), line
        self._id, self._top = update.last_id, top
        if newest == top:
            return [BookUnchanged(self._native, update.last_id, self._topic)]
        return [BookUpdated(self._native, update.last_id, update.exchange_us, bids, asks, self._topic)]

    def line_down(self, line: int, reason: str) -> Sequence[Event]:
        """Without another line the book is lost."""
        self._ids.forget(line)
        return NOTHING if self._lines else self._lose(reason)

    def invalidate(self, reason: str) -> Sequence[Event]:
        return self._lose(reason)

    def _lose(self, reason: str) -> Sequence[Event]:
        live, self._id, self._top = self._id is not None, None, None
        return [BookLost(self._native, reason, self._topic)] if live else NOTHING


class CounterSync:
    """A snapshot in band at any time, then changes numbered without a hole (Bybit v5, orderbook stream).

    With several lines, another line may deliver what one skipped; an update is lost when every working line is past it.
    """

    def __init__(
        self, native: str, depth: int, lines: set[int], sequence_of: Callable[[DepthUpdate], int] | None = None
    ) -> None:
        """`sequence_of` gives the id by which requested snapshots number this book; None where there are none."""
        self._native = native
        self._book = OrderBook(depth)
        self._lines = lines
        self._sequence_of = sequence_of
        self._last: DepthUpdate | None = None
        self._history: BookHistory | None = None
        self._id: int | None = None
        self._past: set[int] = set()
        self._started: set[int] = set()
        """Lines whose first snapshot came, since the start or the last loss."""

    @property
    def update_id(self) -> int | None:
        return self._id

    @property
    def is_behind(self) -> bool:
        """Whether a later change came already, and the next one may still come by another line."""
        return bool(self._past)

    def receive_update(self, update: DepthUpdate, line: int) -> Sequence[Event]:
        """Apply, ignore, leave to another line, or lose the book."""
        if update.is_whole:
            return self._receive_snapshot(update, line)
        known = self._id
        if known is None or update.last_id <= known:
            return NOTHING  # the snapshot is on its way, or another line was faster
        if update.last_id > known + 1:
            self._past.add(line)
            if not self._lines <= self._past:
                return NOTHING
            return self._lose(f"expected update {known + 1}, received {update.last_id}")
        touched = self._book.apply(update.bids, update.asks)
        self._id = update.last_id
        self._last = update
        self._past.clear()
        if self._history is not None:
            self._add_to_history(self._history, update)
        return self._events(update, changed=touched)

    def start_history(self) -> BookHistory | None:
        """Record the history of the book from now on; None while it is not synchronised, or has no such ids."""
        self._end_history()
        if self._id is None or self._last is None or self._sequence_of is None:
            return None
        if sequence := self._sequence_of(self._last):
            self._history = BookHistory(self._book, sequence, self._sequence_of)
        return self._history

    def invalidate(self, reason: str) -> Sequence[Event]:
        """A comparison showed that the book is not the exchange's."""
        return self._lose(reason)

    def _add_to_history(self, history: BookHistory, update: DepthUpdate) -> None:
        if history.is_over:
            self._history = None
        else:
            history.add(update)

    def _end_history(self) -> None:
        if self._history is not None:
            self._history.end()
            self._history = None

    def line_down(self, line: int, reason: str) -> Sequence[Event]:
        """Lose the book without another line, or if all others are past the update that this one would deliver."""
        self._started.discard(line)
        self._past.discard(line)
        if not self._lines <= self._past:
            return NOTHING
        lost = self._lose(reason)
        return lost if self._lines else lost[:1]

    def _receive_snapshot(self, update: DepthUpdate, line: int) -> Sequence[Event]:
        """The first snapshot of a further line may be older than the book."""
        known = self._id
        if known is not None and line not in self._started and _RESTARTED < update.last_id <= known:
            self._started.add(line)
            return NOTHING
        self._started.add(line)
        fell = known is not None and update.last_id < known
        lost = [BookLost(self._native, f"update ids fell to {update.last_id}")] if fell else []
        before = self._tops()
        self._end_history()
        self._book.replace(update.bids, update.asks, _MORE_THAN_ALL)
        self._id = update.last_id
        self._last = update
        self._past.clear()
        # Readers take lower ids only of a book that was lost before.
        return [*lost, *self._events(update, changed=known is None or fell or before != self._tops())]

    def _events(self, update: DepthUpdate, *, changed: bool) -> Sequence[Event]:
        if self._book.crossed:
            return self._lose("bids and asks cross")
        if not changed:
            return [BookUnchanged(self._native, update.last_id)]
        return [BookUpdated(self._native, update.last_id, update.exchange_us, *self._tops())]

    def _tops(self) -> tuple[Levels, Levels]:
        return self._book.bids.top, self._book.asks.top

    def _lose(self, reason: str) -> Sequence[Event]:
        if self._id is None:
            return NOTHING
        self._end_history()
        self._id = None
        self._past.clear()
        # Each line gets another first snapshot with its new subscription.
        self._started.clear()
        return [BookLost(self._native, reason), ResubscribeNeeded(self._native)]


def _split(arrivals: Sequence[Arrival], book_id: int) -> tuple[list[Arrival], list[Arrival]]:
    """The updates that follow `book_id` without a gap, in order, and those after a gap."""
    following: list[Arrival] = []
    beyond: list[Arrival] = []
    for arrival in sorted(arrivals, key=_first_id):
        update = arrival[0]
        if update.first_id > book_id + 1:
            beyond.append(arrival)
        elif update.last_id > book_id:
            following.append(arrival)
            book_id = update.last_id
    return following, beyond


def _first_id(arrival: Arrival) -> int:
    return arrival[0].first_id
