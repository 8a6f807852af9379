"""The books of one exchange as the bus last told them: written by one thread, read by any."""

import threading
from collections.abc import Iterable
from typing import NamedTuple

from bookbus.consumers.bus.book_cursor import BookCursor, Entry
from bookbus.consumers.bus.liveness import FeederLife, ServerClock
from bookbus.consumers.reading import Counts, Observation
from bookbus.schemas import wire
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot


class _View(NamedTuple):
    """What reading gives while `data` is the newest message; both others are None if nothing can be decoded."""

    data: bytes
    entry: Entry | None
    snapshot: OrderBookSnapshot | None


_NO_VIEW = _View(b"", None, None)


class BusBook(BookCursor):
    """One book: the bytes of its newest messages, decoded when somebody reads them."""

    __slots__ = (
        *("arrived", "arriving", "exchange", "key", "skipped", "spoiled", "symbol", "trouble"),
        *("_lock", "_reads", "_undecodable", "_view"),
    )

    def __init__(self, key: str, exchange: str, symbol: str) -> None:
        super().__init__()
        self.key = key.encode()
        self.exchange = exchange
        self.symbol = symbol
        self.arriving = b""
        """The last message of the batch under way, and in `arrived` how many of its book the batch has."""
        self.arrived = 0
        self.skipped = 0
        self.trouble = ""
        """Why the hash gives no book, if it gives none."""
        self.spoiled = False
        """The newest message turned out to be no book: the hash should be read again."""
        self._lock = threading.Lock()
        self._reads = 0
        self._undecodable = 0
        self._view = _NO_VIEW

    def read(self) -> tuple[OrderBookSnapshot | None, Entry | None]:
        """The newest book that can be decoded, and the message it came in."""
        newest = self.newest
        if newest is None:
            return None, None
        view = self._view
        if view.data is not newest.data:
            view = self._decode_newest(newest)
        # A confirmation replaces the entry and keeps its bytes.
        own = view.entry is not None and view.entry.data is newest.data
        return view.snapshot, newest if own else view.entry

    def counts(self) -> Counts:
        """What happened to the updates of this book so far."""
        newest = self.newest
        unread = int(newest is not None and self._view.data is not newest.data)
        conflated = max(self.received - self._reads - unread, 0)
        return Counts(self.received, conflated, self.missed, self.resets, self.skipped + self._undecodable)

    def decode(self, data: bytes) -> OrderBookSnapshot:
        """The book in these bytes. Raises WireError unless it is one of this symbol."""
        snapshot = wire.decode(data)
        if (snapshot.exchange, snapshot.symbol) != (self.exchange, self.symbol):
            raise wire.WireError(f"a book of {snapshot.exchange} {snapshot.symbol} under the name {self.key.decode()}")
        return snapshot

    def _decode_newest(self, newest: Entry) -> _View:
        with self._lock:
            view = self._view
            if view.data is newest.data:
                return view
            previous = self.previous
            try:
                view = _View(newest.data, newest, self.decode(newest.data))
            except wire.WireError:
                self._undecodable += 1
                self.spoiled = True
                view = self._decode_previous(newest, previous) or _View(newest.data, view.entry, view.snapshot)
            self._reads += 1
            self._view = view
            return view

    def _decode_previous(self, newest: Entry, previous: Entry | None) -> _View | None:
        if previous is None:
            return None
        try:
            return _View(newest.data, previous, self.decode(previous.data))
        except wire.WireError:
            return None


class BusTable:
    """All books of one exchange that a reader follows, and what their freshness is judged by."""

    def __init__(self, exchange: str, names: RedisNames) -> None:
        self.exchange = exchange
        self.names = names
        self.by_key: dict[bytes, BusBook] = {}
        self.by_symbol: dict[str, BusBook] = {}
        self.clock = ServerClock()
        self.feeders = FeederLife()
        self._lock = threading.Lock()

    def book(self, symbol: str) -> BusBook:
        """The book of a standard symbol; a new one belongs to the table only after `add`."""
        return self.by_symbol.get(symbol) or BusBook(self.names.book(self.exchange, symbol), self.exchange, symbol)

    def add(self, books: Iterable[BusBook]) -> None:
        """These books are followed."""
        new = {book.symbol: book for book in books}
        self.by_key.update((book.key, book) for book in new.values())
        with self._lock:
            # Replaced, not changed: other threads may be walking it.
            self.by_symbol = {**self.by_symbol, **new}

    def listed(self, members: Iterable[bytes]) -> list[str]:
        """The symbols of this exchange among the members of the set of books."""
        known = (member for member in members if isinstance(member, bytes))
        names = (self.names.parse_book(member.decode(errors="replace")) for member in known)
        return [name.symbol for name in names if name is not None and name.exchange == self.exchange]

    def observe(self, book: BusBook, now: float, trouble: str) -> Observation:
        """What is known of a book; `trouble` is what ails the connection."""
        snapshot, entry = book.read()
        if snapshot is None or entry is None:
            return Observation(trouble=trouble or book.trouble)
        return Observation(
            snapshot,
            max(now - entry.confirmed_at, 0.0),
            max(now - entry.updated_at, 0.0),
            self.feeders.alive(snapshot.feeder, self.exchange, book.symbol, now),
            trouble or book.trouble,
        )


class NodeTable(BusTable):
    """Those of a table's books that one node of a cluster has, with that node's clock."""

    def __init__(self, whole: BusTable) -> None:
        super().__init__(whole.exchange, whole.names)
        self.feeders = whole.feeders
        self._whole = whole

    def book(self, symbol: str) -> BusBook:
        """The book of a standard symbol, known to the whole table or new."""
        return self._whole.book(symbol)

    def add(self, books: Iterable[BusBook]) -> None:
        """These books are followed here."""
        new = list(books)
        super().add(new)
        self._whole.add(new)
