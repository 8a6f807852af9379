"""Synchronisation strategies: when a book is the exchange's, and when that is no longer known."""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from feeders.events import BookLost, BookUnchanged, BookUpdated, Event, KnownWindowLeft, SnapshotNeeded, Topic
from feeders.order_book import DepthChange, OrderBook

NOTHING: tuple[Event, ...] = ()

_MAX_BUFFERED = 300
"""Updates kept while a snapshot is awaited: 30 s of a 100 ms stream. Older ones only ask for a newer snapshot."""

_MAX_IGNORED = 20
"""Old updates in a row after which the exchange must have started its ids again."""

_NEAR_EDGE = 0.75
"""Share of a snapshot's levels at which the published levels are near the end of what is known."""


class DepthSnapshot(Protocol):
    """A whole book, or the best part of it, at one id."""

    @property
    def last_id(self) -> int:
        """The id the book was at."""

    @property
    def bids(self) -> Sequence[DepthChange]:
        """Best first in a snapshot."""

    @property
    def asks(self) -> Sequence[DepthChange]:
        """Best first in a snapshot."""


class DepthUpdate(DepthSnapshot, Protocol):
    """Changes of one book, ids first to last, both included; a venue without ranges gives one id twice."""

    @property
    def first_id(self) -> int:
        """The first id these changes cover."""

    @property
    def exchange_us(self) -> int | None:
        """The exchange's time of the update, microseconds since 1970."""


class BookSync(Protocol):
    """One symbol's strategy. `line` numbers the connection an update came by; `lines` holds the working ones."""

    @property
    def update_id(self) -> int | None:
        """The id the book is at; None while there is none to trust."""

    def receive_update(self, update: DepthUpdate, line: int) -> Sequence[Event]:
        """Changes of the book, or a whole book where the venue sends those."""

    def lose_line(self, line: int, reason: str) -> Sequence[Event]:
        """The connection is gone; `lines` no longer holds it."""


class RangeSync:
    """Snapshot by request plus updates that carry the range of ids they cover.

    Binance spot, "How to manage a local order book correctly" (web-socket-streams.md, rule of 2025-11-12): drop
    what ends at or before the book's id, stop when an update starts after the next id, else set the absolute
    quantities. The text adds that the first update should contain the snapshot's id in its range, which real
    traffic does not do; being contiguous with it is what counts.

    Updates may come by several lines, each in order: what one line lacks another may bring. Only when every
    working line is past the missing update is it lost.
    """

    def __init__(self, native: str, depth: int, lines: set[int], first_limit: int, deep_limit: int) -> None:
        self._native = native
        self._book = OrderBook(depth)
        self._depth = depth
        self._lines = lines
        self._first_limit = first_limit
        self._deep_limit = deep_limit
        self._id: int | None = None
        self._buffer: deque[DepthUpdate] | None = None
        self._ahead: dict[int, list[DepthUpdate]] = {}
        self._ignored = 0
        self._window_left = False
        # Published levels beyond the near mark ask for a deeper snapshot, beyond the edge they may have holes.
        self._near = self._edge = (0.0, float("inf"))

    @property
    def book(self) -> OrderBook:
        """The levels, meaningful while `update_id` is not None."""
        return self._book

    @property
    def update_id(self) -> int | None:
        """The id the book is at; None while there is none to trust."""
        return self._id

    def start(self) -> Sequence[Event]:
        """The subscription works: ask for the first snapshot. A quiet symbol may send no update for minutes."""
        return NOTHING if self._id is not None else self._ask(self._first_limit, urgent=True)

    def receive_update(self, update: DepthUpdate, line: int) -> Sequence[Event]:
        """Apply, ignore, keep for later, or lose the book."""
        if self._buffer is not None:
            self._buffer.append(update)
        book_id = self._id
        if book_id is None:
            return self._ask(self._first_limit, urgent=True, since=update)
        if update.last_id <= book_id:
            return self._ignore(update)
        if update.first_id > book_id + 1:
            return self._wait(update, line)
        events = self._apply(update)
        return [*events, *self._catch_up()] if self._ahead else events

    def receive_snapshot(self, snapshot: DepthSnapshot, limit: int) -> Sequence[Event]:
        """Bridge from the snapshot to now by the buffered updates; `limit` is the levels asked for."""
        buffer, was_live = self._buffer, self._id is not None
        if buffer is None:
            return NOTHING  # an answer to a question that a lost connection made obsolete
        self._buffer = None
        updates = sorted(buffer, key=lambda update: update.first_id)
        oldest_usable = updates[0].first_id - 1 if updates else (self._id or 0)
        if snapshot.last_id < oldest_usable:
            return self._ask_again(buffer, limit)
        before = (self._book.bids.top, self._book.asks.top)
        self._id = snapshot.last_id
        self._book.replace(snapshot.bids, snapshot.asks)
        exchange_us = None
        for update in updates:
            if update.last_id <= self._id:
                continue
            if update.first_id > self._id + 1:
                return self._lose(f"updates {self._id + 1} to {update.first_id - 1} are missing", was_live, buffer)
            self._book.apply(update.bids, update.asks)
            self._id = update.last_id
            exchange_us = update.exchange_us
        if self._book.crossed:
            return self._lose("bids and asks cross", was_live)
        self._know(snapshot, limit)
        deepen = self._ask(self._deep_limit, urgent=False) if limit < self._deep_limit else NOTHING
        if was_live and before == (self._book.bids.top, self._book.asks.top):
            return [BookUnchanged(self._native, self._id), *deepen]
        return [self._updated(exchange_us), *self._catch_up(), *deepen]

    def lose_line(self, line: int, reason: str) -> Sequence[Event]:
        """Without another line nothing more is known; a line's end also ends waiting for what it lacked."""
        self._ahead.pop(line, None)
        if self._lines and not self._ahead:
            return NOTHING
        if self._lines:
            return self._lose(reason, self._id is not None)
        was_live, self._id, self._buffer = self._id is not None, None, None
        self._ahead.clear()
        return [BookLost(self._native, reason)] if was_live else NOTHING

    def _apply(self, update: DepthUpdate) -> Sequence[Event]:
        touched = self._book.apply(update.bids, update.asks)
        self._id = update.last_id
        self._ignored = 0
        if not touched:
            return [BookUnchanged(self._native, update.last_id)]
        if self._book.crossed:
            return self._lose("bids and asks cross", True)
        return [self._updated(update.exchange_us), *self._check_window()]

    def _updated(self, exchange_us: int | None) -> BookUpdated:
        book = self._book
        return BookUpdated(self._native, self._id or 0, exchange_us, book.bids.top, book.asks.top)

    def _ignore(self, update: DepthUpdate) -> Sequence[Event]:
        self._ignored += 1
        if self._ignored <= _MAX_IGNORED:
            return NOTHING
        return self._lose(f"update ids fell from {self._id} to {update.last_id}", True)

    def _wait(self, update: DepthUpdate, line: int) -> Sequence[Event]:
        self._ahead.setdefault(line, []).append(update)
        if len(self._ahead[line]) <= _MAX_BUFFERED and not self._lines <= self._ahead.keys():
            return NOTHING
        waiting = [update for updates in self._ahead.values() for update in updates]
        return self._lose(f"expected update {(self._id or 0) + 1}, received {update.first_id}", True, waiting)

    def _catch_up(self) -> Sequence[Event]:
        """Apply what other lines brought too early, as far as it now follows."""
        waiting = sorted((update for updates in self._ahead.values() for update in updates), key=_first_id)
        self._ahead.clear()
        events: list[Event] = []
        for update in waiting:
            if self._id is not None and self._id < update.last_id and update.first_id <= self._id + 1:
                events.extend(self._apply(update))
        return events

    def _ask(self, limit: int, *, urgent: bool, since: DepthUpdate | None = None) -> Sequence[Event]:
        if self._buffer is not None:
            return NOTHING
        self._buffer = deque(() if since is None else (since,), maxlen=_MAX_BUFFERED)
        return [SnapshotNeeded(self._native, limit, urgent)]

    def _ask_again(self, buffer: deque[DepthUpdate], limit: int) -> Sequence[Event]:
        self._buffer = buffer
        return [SnapshotNeeded(self._native, limit, self._id is None)]

    def _lose(self, reason: str, was_live: bool, kept: Sequence[DepthUpdate] = ()) -> Sequence[Event]:
        self._id = None
        self._ahead.clear()
        self._ignored = 0
        self._buffer = deque(kept, maxlen=_MAX_BUFFERED)
        lost = [BookLost(self._native, reason)] if was_live else []
        return [*lost, SnapshotNeeded(self._native, self._first_limit, True)]

    def _know(self, snapshot: DepthSnapshot, limit: int) -> None:
        """Remember how far from the touch the snapshot reached; a side shorter than asked for is whole."""
        bids, asks = snapshot.bids, snapshot.asks
        near = int(limit * _NEAR_EDGE)
        self._near = (bids[near][0] if len(bids) >= limit else 0.0, asks[near][0] if len(asks) >= limit else _INFINITE)
        self._edge = (bids[-1][0] if len(bids) >= limit else 0.0, asks[-1][0] if len(asks) >= limit else _INFINITE)
        self._window_left = False

    def _check_window(self) -> Sequence[Event]:
        bids, asks = self._book.bids.top, self._book.asks.top
        worst_bid, worst_ask = bids[-1][0] if bids else _INFINITE, asks[-1][0] if asks else 0.0
        if worst_bid >= self._near[0] and worst_ask <= self._near[1]:
            return NOTHING
        needed = self._ask(self._deep_limit, urgent=False)
        if self._window_left or (worst_bid >= self._edge[0] and worst_ask <= self._edge[1]):
            return needed
        self._window_left = True
        return [KnownWindowLeft(self._native), *needed]


_INFINITE = float("inf")


def _first_id(update: DepthUpdate) -> int:
    return update.first_id


class ReplaceSync:
    """Every message is a whole book; the greatest id wins, whichever line brought it."""

    def __init__(self, native: str, depth: int, lines: set[int], topic: Topic = "book") -> None:
        self._native = native
        self._depth = depth
        self._lines = lines
        self._topic: Topic = topic
        self._id: int | None = None
        self._older = 0
        self._top: tuple[Sequence[DepthChange], Sequence[DepthChange]] | None = None

    @property
    def update_id(self) -> int | None:
        """The id of the newest book; None while there is none to trust."""
        return self._id

    def receive_update(self, update: DepthUpdate, line: int) -> Sequence[Event]:
        """Take the book unless a newer one is here already."""
        if self._id is not None and update.last_id < self._id:
            self._older += 1
            if self._older <= _MAX_IGNORED:
                return NOTHING
        bids, asks = tuple(update.bids[: self._depth]), tuple(update.asks[: self._depth])
        if bids and asks and bids[0][0] >= asks[0][0]:
            return self._lose("bids and asks cross")
        unchanged = self._top == (bids, asks) and self._id is not None
        self._id, self._older, self._top = update.last_id, 0, (bids, asks)
        if unchanged:
            return [BookUnchanged(self._native, update.last_id, self._topic)]
        return [BookUpdated(self._native, update.last_id, update.exchange_us, bids, asks, self._topic)]

    def lose_line(self, line: int, reason: str) -> Sequence[Event]:
        """Without another line nothing more is known."""
        return NOTHING if self._lines else self._lose(reason)

    def _lose(self, reason: str) -> Sequence[Event]:
        was_live, self._id, self._top, self._older = self._id is not None, None, None, 0
        return [BookLost(self._native, reason, self._topic)] if was_live else NOTHING
