"""The newest books of one exchange, and what their age is computed from: written by one thread, read by any."""

from collections import deque
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from bookbus.consumers.reading import Counts, Observation
from bookbus.consumers.shared_state import Cell
from bookbus.schemas import wire
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot

HASH_FIELDS = ("book", "confirmed_us", "published_us")

_STEADY_RATE = 50_000
_SLACK = 1_000
"""The most updates of one book a second, and a tolerance. A larger jump of `seq` is no loss: the server lost its
data, and numbering restarted at the microseconds of its clock."""


class Entry(NamedTuple):
    """One message with the local times of its receipt, of its update, and of its last confirmation."""

    data: bytes
    seq: int
    received_at: float
    updated_at: float
    confirmed_at: float


class BookCursor:
    """Merges the messages of a channel and the hash of the same book into one order.

    The channel is subscribed first and the hash read second, so the book in the hash may also arrive on the channel.
    Between `hash_read` and `caught_up` such messages are dropped. Apart from that, a later message is newer: a lower
    `seq` then means that the server lost its data.
    """

    __slots__ = (
        "_hash_seq",
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
        """The entry before `newest`, in case that cannot be decoded."""
        self.steady = True
        """Whether messages are newer than everything before: no hash is being read, none was just read."""
        self.received = 0
        self.missed = 0
        self.resets = 0
        self._hash_seq: int | None = None
        self._seen = False
        self._skipped = 0

    def await_hash(self) -> None:
        """The hash is about to be read; every message published from now on will arrive."""
        self.caught_up()
        self.steady = self._seen = False

    def take(self, data: bytes, seq: int, count: int, now: float, at: float) -> None:
        """`data`, published at `at`, is the last of `count` messages that arrived together."""
        newest = self.newest
        if newest is not None and seq != newest.seq + count:
            self._account(seq, newest, count, now)
        self.previous, self.newest = newest, Entry(data, seq, now, at, at)
        self.received += count

    def offer(self, data: bytes, seq: int, now: float, at: float) -> bool:
        """One decodable message while not steady. Returns False if the hash held it or a newer one."""
        hash_seq = self._hash_seq
        if hash_seq is None or seq > hash_seq:
            self.take(data, seq, 1, now, at)
            self._seen = True
            return True
        if self._skipped and seq < hash_seq:
            # Counted as skipped by the hash, and received now.
            self.received += 1
            self._skipped -= 1
        return False

    def hash_read(self, entry: Entry | None) -> bool:
        """The hash holds `entry`, or no book. Returns whether it replaces `newest`; if so, not yet steady."""
        newest = self.newest
        if entry is None or (newest is not None and self._seen and newest.seq > entry.seq):
            self.steady = True
            return False
        if newest is not None and newest.data == entry.data:
            self.confirm(entry.confirmed_at)
            self.steady = True
            return False
        self._hash_seq = entry.seq
        if newest is not None:
            missed = self.missed
            self._account(entry.seq, newest, 1, entry.received_at)
            self._skipped, self.missed = self.missed - missed, missed
        self.previous, self.newest = newest, entry
        self.received += 1
        return True

    def caught_up(self) -> None:
        """Every message published before the hash was read has arrived."""
        self.missed += self._skipped
        self._skipped = 0
        self._hash_seq = None
        self.steady = True

    def confirm(self, at: float) -> None:
        """A feeder confirmed the newest book at `at`."""
        if self.newest is not None and at > self.newest.confirmed_at:
            self.newest = self.newest._replace(confirmed_at=at)

    def _account(self, seq: int, newest: Entry, count: int, now: float) -> None:
        gap = seq - newest.seq - count
        if seq < newest.seq or gap > _SLACK + _STEADY_RATE * (now - newest.received_at):
            self.resets += 1
        elif gap > 0:
            self.missed += gap


class _View(NamedTuple):
    """The result of reading while `data` is the newest message; None where nothing could be decoded."""

    data: bytes
    entry: Entry | None
    snapshot: OrderBookSnapshot | None
    reads: int
    """Messages decoded so far."""
    undecodable: int


_NO_VIEW = _View(b"", None, None, 0, 0)


class BusBook(BookCursor):
    """One book: the bytes of its newest messages, decoded on reading."""

    __slots__ = (
        *("arrived", "arriving", "channel", "exchange", "key", "skipped", "corrupted", "symbol", "error", "too_large"),
        "_view",
    )

    def __init__(self, key: str, channel: str, exchange: str, symbol: str) -> None:
        super().__init__()
        self.key = key.encode()
        self.channel = channel.encode()
        self.exchange = exchange
        self.symbol = symbol
        self.arriving = b""
        """The last message of this book in the current batch; `arrived` counts them."""
        self.arrived = 0
        self.skipped = 0
        self.too_large = False
        """Whether the hash was larger than any book when it was last read."""
        self.error = ""
        """Why the hash holds no book; empty if it does."""
        self.corrupted = False
        """The newest message could not be decoded: the hash should be read again."""
        self._view = Cell(_NO_VIEW)

    def read(self) -> tuple[OrderBookSnapshot | None, Entry | None]:
        """The newest book that can be decoded, and its entry."""
        newest = self.newest
        if newest is None:
            return None, None
        view = self._view.recent
        if view.data is not newest.data:
            newest, view = self._decode_newest(newest)
        # A confirmation replaces the entry and keeps its bytes.
        own = view.entry is not None and view.entry.data is newest.data
        return view.snapshot, newest if own else view.entry

    def counts(self) -> Counts:
        newest, view = self.newest, self._view.get()
        unread = int(newest is not None and view.data is not newest.data)
        conflated = max(self.received - view.reads - unread, 0)
        return Counts(self.received, conflated, self.missed, self.resets, self.skipped + view.undecodable)

    def decode(self, data: bytes) -> OrderBookSnapshot:
        """The book in these bytes. Raises WireError unless it is one of this symbol."""
        snapshot = wire.decode(data)
        if (snapshot.exchange, snapshot.symbol) != (self.exchange, self.symbol):
            raise wire.WireError(f"a book of {snapshot.exchange} {snapshot.symbol} under the name {self.key.decode()}")
        return snapshot

    def _decode_newest(self, newest: Entry) -> tuple[Entry, _View]:
        """The newest entry and its view. Every reader of the same message gets the same snapshot."""
        while True:
            view = self._view.get()
            # Read after the view, so that no view follows a newer one.
            newest = self.newest or newest
            if view.data is newest.data:
                return newest, view
            previous, undecodable = self.previous, view.undecodable
            try:
                made = _View(newest.data, newest, self.decode(newest.data), view.reads + 1, undecodable)
            except wire.WireError:
                self.corrupted = True
                entry, snapshot = self._decode_previous(previous) or view[1:3]
                made = _View(newest.data, entry, snapshot, view.reads + 1, undecodable + 1)
            if self._view.replace(view, made):
                return newest, made

    def _decode_previous(self, previous: Entry | None) -> tuple[Entry, OrderBookSnapshot] | None:
        if previous is None:
            return None
        try:
            return previous, self.decode(previous.data)
        except wire.WireError:
            return None


FEEDER_LIMIT = 3.0
"""Seconds without a heartbeat after which a feeder counts as down."""

_MEASURES = 10
_MOST_FEEDERS = 10_000


class ServerClock:
    """Turns the server's times into times of the local `boottime` clock.

    The server read its clock at some moment between question and reply, so the fastest of the last replies is the
    most exact one.
    """

    def __init__(self) -> None:
        self._measures: deque[tuple[float, float]] = deque(maxlen=_MEASURES)
        self._offset: float | None = None

    def measure(self, sent: float, received: float, server_us: int) -> None:
        """The server replied `server_us` to TIME, which was sent and received at these local times."""
        uncertainty = (received - sent) / 2
        offset = server_us / 1e6 - (sent + received) / 2
        if any(abs(offset - other) > uncertainty + limit + 0.05 for limit, other in self._measures):
            # The server's clock was set: earlier measures are void.
            self._measures.clear()
        self._measures.append((uncertainty, offset))
        self._offset = min(self._measures)[1]

    def local(self, server_us: int) -> float | None:
        """The local time of a server's time; None before the first measure."""
        return None if self._offset is None else server_us / 1e6 - self._offset


class FeederLife:
    """The last heartbeat of each feeder and the books that it serves. Several connections may listen to heartbeats."""

    def __init__(self) -> None:
        self._beats: dict[str, tuple[float, str, frozenset[str]]] = {}
        self._listening: dict[object, float] = {}
        self._published: dict[str, frozenset[str]] = {}
        self._reconnects: dict[tuple[str, str], tuple[int, int]] = {}
        """By exchange and feeder: the first count and the highest one."""

    def publish(self, exchange: str, symbols: Iterable[str]) -> None:
        """A heartbeat says that these books of an exchange are published."""
        known = self._published.get(exchange, frozenset())
        if not known.issuperset(new := frozenset(symbols)):
            self._published[exchange] = known | new

    def published(self, exchange: str) -> frozenset[str]:
        """The books of an exchange that heartbeats named so far; a server that evicts keys may no longer list them."""
        return self._published.get(exchange, frozenset())

    def listen(self, now: float, listener: object = None) -> None:
        """A connection receives heartbeats from now on."""
        self._listening[listener] = now

    def stop_listening(self, listener: object = None) -> None:
        """A connection no longer receives heartbeats."""
        self._listening.pop(listener, None)

    def reconnects(self, exchange: str) -> int:
        """How often feeders of this exchange lost a connection to it since their first heartbeats here."""
        counts = list(self._reconnects.items())  # a copy: other threads may change it
        return sum(last - first for (served, _), (first, last) in counts if served == exchange)

    def receive(
        self, feeder: str, exchange: str, symbols: Collection[str], now: float, reconnects: int | None = None
    ) -> None:
        """A heartbeat; `reconnects` is the feeder's own count since its start."""
        if reconnects is not None and ((exchange, feeder) in self._reconnects or len(self._reconnects) < _MOST_FEEDERS):
            first, last = self._reconnects.get((exchange, feeder), (reconnects, reconnects))
            self._reconnects[exchange, feeder] = first, max(last, reconnects)
        heard = {other: beat for other, beat in self._beats.items() if now - beat[0] <= FEEDER_LIMIT}
        heard[feeder] = (now, exchange, frozenset(symbols))
        # Replaced, not changed: other threads may be iterating over it.
        self._beats = heard

    def alive(self, feeder: str, exchange: str, symbol: str, now: float) -> bool | None:
        """Whether `feeder`, or another feeder of this book, is alive; None if that is not known."""
        for name, (at, serves_exchange, serves) in self._beats.items():
            serving = name == feeder or (serves_exchange == exchange and symbol in serves)
            if serving and now - at <= FEEDER_LIMIT:
                return True
        # A copy: other threads may change it.
        since = max(list(self._listening.values()), default=now)
        return None if now - since <= FEEDER_LIMIT else False


class BusTable:
    """All books of one exchange that a reader follows, and what their age is computed from."""

    def __init__(self, exchange: str, names: RedisNames) -> None:
        self.exchange = exchange
        self.names = names
        self.by_channel: dict[bytes, BusBook] = {}
        self.by_symbol: dict[str, BusBook] = {}
        self.clock = ServerClock()
        self.feeders = FeederLife()

    def book(self, symbol: str) -> BusBook:
        """The book of a standard symbol; a new one is part of the table only after `add`."""
        if book := self.by_symbol.get(symbol):
            return book
        name = self.names.book(self.exchange, symbol)
        return BusBook(name, self.names.channel(name), self.exchange, symbol)

    def add(self, books: Iterable[BusBook]) -> None:
        new = {book.symbol: book for book in books}
        self.by_channel.update((book.channel, book) for book in new.values())
        # One step of the interpreter, as is `list` of it; who iterates over it makes such a copy.
        self.by_symbol.update(new)

    def listed(self, members: Iterable[bytes]) -> list[str]:
        """The symbols of this exchange among the members of the set of books."""
        known = (member for member in members if isinstance(member, bytes))
        names = (self.names.parse_book(member.decode(errors="replace")) for member in known)
        return [name.symbol for name in names if name is not None and name.exchange == self.exchange]

    def observe(self, book: BusBook, now: float, error: str) -> Observation:
        """The state of a book; `error` is why there is no connection."""
        snapshot, entry = book.read()
        if snapshot is None or entry is None:
            return Observation(error=error or book.error)
        return Observation(
            snapshot,
            max(now - entry.confirmed_at, 0.0),
            max(now - entry.updated_at, 0.0),
            self.feeders.alive(snapshot.feeder, self.exchange, book.symbol, now),
            error or book.error,
        )


class NodeTable(BusTable):
    """The books of a table that one node of a cluster has, with that node's clock."""

    def __init__(self, whole: BusTable) -> None:
        super().__init__(whole.exchange, whole.names)
        self.feeders = whole.feeders
        self._whole = whole

    def book(self, symbol: str) -> BusBook:
        """The book of a standard symbol from the whole table, or a new one."""
        return self._whole.book(symbol)

    def add(self, books: Iterable[BusBook]) -> None:
        new = list(books)
        super().add(new)
        self._whole.add(new)


def entry_of(book: BusBook, reply: Any, clock: ServerClock, now: float) -> Entry | None:
    """The book in a reply to HMGET of `HASH_FIELDS`; None if there is none.

    An invalid reply is counted in `skipped`, and `error` says why it is invalid.
    """
    book.error = ""
    try:
        if isinstance(reply, Exception):
            raise wire.WireError(str(reply))
        if not isinstance(reply, list) or len(reply) != len(HASH_FIELDS):
            raise wire.WireError("not the reply to HMGET")
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
        book.error = f"what is stored under {book.key.decode()} is no book: {error}"
        return None


def local_time(microseconds: bytes | None, clock: ServerClock, now: float) -> float:
    """The local time of a time in the hash, never in the future. Raises WireError if it is invalid."""
    try:
        at = clock.local(int(microseconds or b""))
    except (ValueError, TypeError, OverflowError):
        raise wire.WireError("its times cannot be read") from None
    return now if at is None else min(at, now)
