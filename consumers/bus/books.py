"""The books of one exchange as the bus last told them: written by one thread, read by any."""

import threading
from collections.abc import Iterable
from typing import Any, NamedTuple

from bookbus.consumers.bus.liveness import FeederLife, ServerClock
from bookbus.consumers.reading import Counts, Observation
from bookbus.schemas import wire
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot

_STEADY_RATE = 50_000
_SLACK = 1_000
"""No server numbers more updates of one book a second, this much aside. A greater jump of `seq` is therefore no
loss: the server lost its data, and numbering began anew at its clock's microseconds."""


class Entry(NamedTuple):
    """One message with the local times of its receipt, of the update it tells, and of its last confirmation."""

    data: bytes
    seq: int
    received_at: float
    updated_at: float
    confirmed_at: float


class BookCursor:
    """Puts the messages of a channel and the hash of the same name into one order.

    The channel is subscribed first and the hash read second, so what the hash tells may come again on the channel.
    Between `hash_read` and `settle` (everything that was under way has come) such messages are dropped. Apart from
    that, what comes later is newer: a lower `seq` then means that the server began anew.
    """

    __slots__ = (
        "_fence",
        "_seen",
        "_skipped",
        "missed",
        "newest",
        "previous",
        "received",
        "resets",
        "steady",
    )

    def __init__(self) -> None:
        self.newest: Entry | None = None
        self.previous: Entry | None = None
        """What `newest` replaced, in case that cannot be decoded."""
        self.steady = True
        """Whether the order of messages is all there is to know: no hash is awaited, none was just read."""
        self.received = 0
        self.missed = 0
        self.resets = 0
        self._fence: int | None = None
        self._seen = False
        self._skipped = 0

    def await_hash(self) -> None:
        """The hash is about to be read; messages published from now on will come."""
        self.settle()
        self.steady = self._seen = False

    def take(self, data: bytes, seq: int, count: int, now: float, at: float) -> None:
        """`data`, published at `at`, is the last of `count` messages that came together."""
        newest = self.newest
        if newest is not None and seq != newest.seq + count:
            self._account(seq, newest, count, now)
        self.previous, self.newest = newest, Entry(data, seq, now, at, at)
        self.received += count

    def offer(self, data: bytes, seq: int, now: float, at: float) -> bool:
        """One message while not steady: taken unless the hash has told it. It must be known to be a book."""
        fence = self._fence
        if fence is None or seq > fence:
            self.take(data, seq, 1, now, at)
            self._seen = True
            return True
        if self._skipped and seq < fence:
            # It came after all, only later than the hash that it led to.
            self.received += 1
            self._skipped -= 1
        return False

    def hash_read(self, entry: Entry | None) -> bool:
        """What the hash holds; None if nothing usable. True if it replaces what was held; steady after `settle`."""
        newest = self.newest
        if entry is None or (newest is not None and self._seen and newest.seq > entry.seq):
            self.steady = True
            return False
        if newest is not None and newest.data == entry.data:
            self.confirm(entry.confirmed_at)
            self.steady = True
            return False
        self._fence = entry.seq
        if newest is not None:
            missed = self.missed
            self._account(entry.seq, newest, 1, entry.received_at)
            self._skipped, self.missed = self.missed - missed, missed
        self.previous, self.newest = newest, entry
        self.received += 1
        return True

    def settle(self) -> None:
        """Everything published before the hash was read has come."""
        self.missed += self._skipped
        self._skipped = 0
        self._fence = None
        self.steady = True

    def confirm(self, at: float) -> None:
        """Somebody vouched for the newest book at `at`."""
        if self.newest is not None and at > self.newest.confirmed_at:
            self.newest = self.newest._replace(confirmed_at=at)

    def _account(self, seq: int, newest: Entry, count: int, now: float) -> None:
        gap = seq - newest.seq - count
        if seq < newest.seq or gap > _SLACK + _STEADY_RATE * (now - newest.received_at):
            self.resets += 1
        elif gap > 0:
            self.missed += gap


class _View(NamedTuple):
    """What reading gives while `data` is the newest message; both others are None if nothing can be decoded."""

    data: bytes
    entry: Entry | None
    snapshot: OrderBookSnapshot | None


_NO_VIEW = _View(b"", None, None)


class BusBook(BookCursor):
    """One book: the bytes of its newest messages, decoded when somebody reads them."""

    __slots__ = (
        *("arrived", "arriving", "exchange", "key", "skipped", "corrupted", "symbol", "trouble"),
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
        self.corrupted = False
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
                self.corrupted = True
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
            return Observation(error=trouble or book.trouble)
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


HASH_FIELDS = ("book", "confirmed_us", "published_us")


def entry_of(book: BusBook, reply: Any, clock: ServerClock, now: float) -> Entry | None:
    """The message in a reply to HMGET; None if there is none.

    A reply that should hold one and does not is counted, and `trouble` says why.
    """
    book.trouble = ""
    try:
        if isinstance(reply, Exception):
            raise wire.WireError(str(reply))
        if not isinstance(reply, list) or len(reply) != len(HASH_FIELDS):
            raise wire.WireError("no answer to what was asked")
        data, confirmed, published = reply
        if data is None:
            return None
        if not isinstance(data, bytes):
            raise wire.WireError("a book is text")
        confirmed_at = local_time(confirmed, clock, now)
        updated_at = min(local_time(published, clock, now), confirmed_at)
        return Entry(data, wire.seq_of(data), now, updated_at, confirmed_at)
    except wire.WireError as error:
        book.skipped += 1
        book.trouble = f"what is stored under {book.key.decode()} is no book: {error}"
        return None


def local_time(microseconds: bytes | None, clock: ServerClock, now: float) -> float:
    """The local time of one of the hash's times, never in the future. Raises WireError if it is none."""
    try:
        at = clock.local(int(microseconds or b""))
    except (ValueError, TypeError, OverflowError):
        raise wire.WireError("its times cannot be read") from None
    return now if at is None else min(at, now)
