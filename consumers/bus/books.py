"""The newest books of one exchange, and what their age is computed from: written by one thread, read by any."""

import copy
import logging
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.reading import Counts, Observation
from bookbus.consumers.shared_state import Cell
from bookbus.schemas import wire
from bookbus.schemas.instruments import TradingStatus, gravest, trading_status
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)

HASH_FIELDS = ("book", "confirmed_us", "published_us", "trading")

CONFIRMATION_WAIT = 2.5
"""Seconds within which a living book is confirmed again, so that a reader sees it: feeders confirm every 2 s."""

_STEADY_RATE = 50_000
_SLACK = 1_000
"""The most updates of one book a second, and a tolerance. A larger jump of `seq` is no loss: the server lost its
data, and numbering restarted at the microseconds of its clock."""


class Entry(NamedTuple):
    """One message with the local times of its receipt, of its update, and of its last confirmation.

    `confirmation_seen` is False while this reader has seen no confirmation: only the server's clock says when it was.
    """

    data: bytes
    seq: int
    received_at: float
    updated_at: float
    confirmed_at: float
    confirmation_seen: bool = True


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
            if entry.confirmation_seen:
                self.confirm(entry.confirmed_at)
            elif not newest.confirmation_seen:
                self.newest = newest._replace(confirmed_at=min(entry.confirmed_at, newest.confirmed_at))
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
        """This reader saw that a feeder confirmed the newest book at `at`."""
        newest = self.newest
        if newest is not None and (at > newest.confirmed_at or not newest.confirmation_seen):
            self.newest = newest._replace(confirmed_at=at, confirmation_seen=True)

    def _account(self, seq: int, newest: Entry, count: int, now: float) -> None:
        gap = seq - newest.seq - count
        if seq < newest.seq or gap > _SLACK + _STEADY_RATE * (now - newest.received_at):
            self.resets += 1
        elif gap > 0:
            self.missed += gap


class _Mark(NamedTuple):
    """`confirmed_us` of a hash as it was asked for at local time `asked`, in this session and period of the clock."""

    confirmed_us: int
    asked: float
    session: object
    period: object


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
        *("arrived", "arriving", "awaited_since", "behind", "channel", "corrupted", "error", "exchange", "key"),
        *("skipped", "symbol", "too_large", "trading", "_mark", "_view"),
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
        self.trading: TradingStatus = "unknown"
        """What the hash said of the market when it was last read."""
        self.too_large = False
        """Whether the hash was larger than any book when it was last read."""
        self.error = ""
        """Why the hash holds no book; empty if it does."""
        self.corrupted = False
        """The newest message could not be decoded: the hash should be read again."""
        self.behind = ""
        """Why the book is older than its arrival here: the server is behind its primary. Empty if it is not."""
        self.awaited_since: float | None = None
        """Since when a book that is fresh by the server's clock has not been seen to be confirmed; for pull mode."""
        self._mark: _Mark | None = None
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

    def confirmed(
        self, confirmed_us: int, clock: "ServerClock", session: object, asked: float, now: float
    ) -> float | None:
        """The hash says `confirmed_us`. Returns the local time of the confirmation if the reader saw it, else None.

        The reader saw it if the value advanced since it was read before: the confirmation came after that. The clocks
        only say when, within that time. A value that is read for the first time may be of any age, whatever clocks say.
        """
        mark, self._mark = self._mark, _Mark(confirmed_us, asked, session, clock.period)
        if mark is None:
            return None
        same_session, same_period = mark.session is session, mark.period is clock.period
        if not clock.primary:
            if same_session and same_period and confirmed_us < mark.confirmed_us:
                clock.primary_set_back()
            if confirmed_us <= mark.confirmed_us or not same_period:
                return None
            at = clock.replicated_at(confirmed_us, now)
            self.behind = clock.behind(now - at)
            return at
        self.behind = ""
        if same_period:
            # A restarted server may have older data.
            if confirmed_us <= mark.confirmed_us:
                return None
            return min(max(local_time(confirmed_us, clock, now), mark.asked), now)
        # The clock was set between the two, so any other value is newer. Another server may have other data.
        return mark.asked if same_session and confirmed_us != mark.confirmed_us else None

    def clock_age(self, clock: "ServerClock", now: float) -> float | None:
        """Seconds since the last confirmation that was read, by the server's clock; None if that is not known."""
        at = None if self._mark is None else clock.local(self._mark.confirmed_us)
        return None if at is None else now - at

    def copy(self) -> "BusBook":
        """The same book, which changes independently, and is read as the same snapshot until then."""
        made = copy.copy(self)
        made._view = Cell(self._view.get())  # noqa: SLF001 - of this class
        return made

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
_LATEST_US = 2**63
_CLOCK_TOLERANCE = 0.05
_USUAL_LAG = 2.5
_USUAL_SILENCE = 2.5
_FLOWING = 2
"""Replies to ROLE in a row, one a second, after which data that was held up has arrived."""

_JUMPS_CALM = 60.0
"""Seconds without a jump of a clock after which the next one is logged as a warning."""

_MOST_FEEDERS = 10_000


class ServerClock:
    """Turns the server's times into times of the local `boottime` clock, and tells how far a replica is behind.

    The server read its clock at some moment between question and reply, so the fastest of the last replies is the
    most exact one. A difference of two clocks never proves that a book is fresh; it may only show that one is old.
    """

    def __init__(self, on_jump: Callable[[float], None] | None = None) -> None:
        """`on_jump` is called with the seconds by which the server's clock was set, negative if back."""
        self.primary: bool | None = None
        """Whether the server is a primary; None if it does not say."""
        self.period: object = object()
        """Another object after each jump of the clock."""
        self.lag: float | None = None
        """Seconds by which the server is behind its primary, by the clocks of both; None if unknown."""
        self._ahead = 0.0
        """Seconds by which the clock of the primary is ahead of the replica's, at least."""
        self._replicated: object = None
        """The offset in the primary's stream in the last reply to ROLE, which changed at `_changed_at`."""
        self._changed_at = 0.0
        self._flowing = 0
        """How many of these replies showed a change since the last silence of the primary."""
        self._was_silent = False
        self._flowed_at: float | None = None
        """When the stream of the primary certainly was not held up."""
        self._on_jump = on_jump
        self._server: object = None
        self._measures: deque[tuple[float, float]] = deque(maxlen=_MEASURES)
        self._offset: float | None = None

    def copy(self) -> "ServerClock":
        """The same clock, which is measured independently, and does not report jumps."""
        made = copy.copy(self)
        made._measures, made._on_jump = self._measures.copy(), None  # noqa: SLF001 - of this class
        return made

    def connected_to(self, server: object) -> None:
        """Another server has another clock."""
        self.primary, self.lag, self._ahead = None, None, 0.0
        self._replicated, self._flowing, self._was_silent, self._flowed_at = None, 0, False, None
        if server != self._server:
            self._server, self._offset, self.period = server, None, object()
            self._measures.clear()

    def measure(self, sent: float, received: float, server_us: int) -> None:
        """The server replied `server_us` to TIME, which was sent and received at these local times."""
        uncertainty = (received - sent) / 2
        offset = server_us / 1e6 - (sent + received) / 2
        before = self._offset
        jumped = any(abs(offset - other) > uncertainty + limit + _CLOCK_TOLERANCE for limit, other in self._measures)
        if jumped:
            # The server's clock was set: earlier measures are void.
            self._measures.clear()
            self.period, self._ahead = object(), 0.0
        self._measures.append((uncertainty, offset))
        self._offset = min(self._measures)[1]
        if jumped and before is not None and self._on_jump is not None:
            self._on_jump(offset - before)

    def primary_set_back(self) -> None:
        """A replica repeats a time that is before the one that it repeated earlier: how far ahead the clock of the
        primary was no longer says anything.
        """
        self._ahead, self.period = 0.0, object()

    def local(self, server_us: int) -> float | None:
        """The local time of a server's time; None before the first measure."""
        return None if self._offset is None else server_us / 1e6 - self._offset

    def role(self, reply: Any, asked: float) -> None:
        """Take the reply to ROLE, which was asked for at this local time and may be an error.

        A replica tells its link to the primary and how much of the primary's stream it received. Feeders write every
        second, so silence means that the link is down or blocked, and what comes after it may be as old as the silence.
        """
        known = isinstance(reply, list) and bool(reply)
        self.primary = reply[0] == b"master" if known else None
        if not known or self.primary:
            return
        state, offset = (*reply[3:5], None, None)[:2]
        if self._flowed_at is None:
            self._flowed_at = self._changed_at = asked
        elif state == b"connected" and offset != self._replicated:
            self._changed_at = asked
            self._flowing += 1
            if self._flowing == _FLOWING and self._was_silent:
                # What was read so far may have been confirmed before the silence.
                self.period, self._was_silent = object(), False
            if self._flowing >= _FLOWING:
                self._flowed_at = asked
        elif state != b"connected" or asked - self._changed_at > _USUAL_SILENCE:
            self._flowing, self._was_silent = 0, True
        self._replicated = offset

    def _silent_since(self) -> float:
        """Since when nothing came from the primary but what may have been held up; infinite if its stream flows."""
        return math.inf if self.primary or self._flowed_at is None or self._flowing >= _FLOWING else self._flowed_at

    def lagged(self, confirmed_us: int, received_at: float, now: float) -> None:
        """The hash says now that the primary confirmed at `confirmed_us` a book whose message was received at this
        local time, or confirmed it again since.
        """
        self.lag = max(received_at - self.replicated_at(confirmed_us, now), 0.0)

    def replicated_at(self, confirmed_us: int, now: float) -> float:
        """The latest local time at which the primary may have confirmed what was read now from a replica.

        Nothing is confirmed in the future: a time that is shows by how much the primary's clock is ahead, at least.
        """
        at = self.local(confirmed_us)
        if at is None:
            return min(now, self._silent_since())
        self._ahead = max(self._ahead, at - now)
        return min(at - self._ahead, now, self._silent_since())

    def published_at(self, data: bytes, at: float) -> float:
        """When the primary accepted a message that a server that may be a replica published at `at`, or earlier.

        By the primary's clock, and by the feeder's where that is all or the server is a replica.
        """
        accepted_at = min(at - (self.lag or 0.0), self._silent_since())
        if self.primary is None and self.lag is not None:
            return accepted_at
        published_at = self.local(wire.published_us_of(data))
        return accepted_at if published_at is None else min(accepted_at, published_at)

    def behind(self, seconds: float) -> str:
        """The remark on a book that the primary confirmed so many seconds ago; empty if that is usual."""
        if self.primary or seconds < _USUAL_LAG:
            return ""
        server = "the server is a replica" if self.primary is False else "the server does not tell its role"
        return f"{server}, {seconds:.1f} s behind its primary or with another time: check replication and clocks (NTP)"


class FeederLife:
    """The last heartbeat of each feeder and the books that it serves. Several connections may listen to heartbeats."""

    def __init__(self) -> None:
        self._beats: dict[str, tuple[float, str, frozenset[str]]] = {}
        self._listening: dict[object, float] = {}
        self._published: dict[str, frozenset[str]] = {}
        self._trading: dict[str, TradingStatus] = {}
        """By symbol of the reader's exchange: the gravest that a living feeder says, or the last word of dead ones."""
        self._said: dict[str, Mapping[str, str]] = {}
        """What each feeder of the reader's exchange said last of the markets."""
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

    def receive_trading(self, feeder: str, trading: Mapping[str, str]) -> list[str]:
        """What the heartbeat of a feeder of the reader's exchange says of the markets; to be called after `receive`.

        Returns the symbols whose trading status changed.
        """
        ended = [name for name in self._said if name not in self._beats]
        if not ended and self._said.get(feeder) == trading:
            return []
        for name in ended:
            del self._said[name]
        self._said[feeder] = trading
        said: dict[str, TradingStatus] = {}
        for markets in self._said.values():
            for symbol, word in markets.items():
                said[symbol] = gravest((said.get(symbol, "unknown"), trading_status(word)))
        # A living feeder that says nothing of its symbol does not know it. Anything but `trading` holds all the same.
        served = set().union(*(self._beats[name][2] for name in self._said))
        known = self._trading
        self._trading = {
            symbol: "unknown" if status == "trading" and symbol in served else status
            for symbol, status in known.items()
        } | said
        return [symbol for symbol, status in self._trading.items() if known.get(symbol, "unknown") != status]

    def trading(self, symbol: str) -> TradingStatus | None:
        """The trading status of a market of the reader's exchange; None if no feeder ever said one."""
        return self._trading.get(symbol)

    def heard(self) -> list[str]:
        """Ids of the feeders whose last heartbeat is kept."""
        return list(self._beats)

    def alive(self, feeder: str, exchange: str, symbol: str, now: float) -> bool | None:
        """Whether `feeder`, or another feeder of this book, is alive; None if that is not known."""
        for name, (at, serves_exchange, serves) in self._beats.items():
            serving = name == feeder or (serves_exchange == exchange and symbol in serves)
            if serving and now - at <= FEEDER_LIMIT:
                return True
        # A copy: other threads may change it.
        since = max(list(self._listening.values()), default=now)
        return None if now - since <= FEEDER_LIMIT else False


class _Jumps(NamedTuple):
    number: int
    last_at: float


class BusTable:
    """All books of one exchange that a reader follows, and what their age is computed from."""

    def __init__(self, exchange: str, names: RedisNames) -> None:
        self.exchange = exchange
        self.names = names
        self.by_channel: dict[bytes, BusBook] = {}
        self.by_symbol: dict[str, BusBook] = {}
        self.clock = ServerClock(self.clock_jumped)
        self._jumps = Cell(_Jumps(0, -math.inf))
        self.feeders = FeederLife()

    @property
    def clock_jumps(self) -> int:
        """How often the clock of the server or of this machine was set while this reader ran."""
        return self._jumps.get().number

    def clock_jumped(self, seconds: float, whose: str = "the server's") -> None:
        """A clock was set by so many seconds, negative if back."""
        now = boottime()
        while not self._jumps.replace(before := self._jumps.get(), _Jumps(before.number + 1, now)):
            pass
        calm = now - before.last_at > _JUMPS_CALM
        logger.log(
            logging.WARNING if calm else logging.DEBUG,
            "%s clock was set %s by %.1f s; books stay live as their confirmations are seen",
            whose,
            "forward" if seconds > 0 else "back",
            abs(seconds),
        )

    def awaits_confirmation(self, max_age: float) -> bool:
        """Whether some book is fresh by the server's clock, and no confirmation of it was seen yet."""
        now = boottime()
        return any(
            newest is not None and not newest.confirmation_seen and now - newest.confirmed_at <= max_age
            for newest in [book.newest for book in list(self.by_symbol.values())]
        )

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

    def copy(self, symbols: Iterable[str]) -> "BusTable":
        """A table with these books, which changes independently."""
        made = BusTable(self.exchange, self.names)
        made.clock, made.feeders = self.clock.copy(), self.feeders
        made.add([book.copy() for symbol in symbols if (book := self.by_symbol.get(symbol))])
        return made

    def listed(self, members: Iterable[bytes]) -> list[str]:
        """The symbols of this exchange among the members of the set of books."""
        known = (member for member in members if isinstance(member, bytes))
        names = (self.names.parse_book(member.decode(errors="replace")) for member in known)
        return [name.symbol for name in names if name is not None and name.exchange == self.exchange]

    def observe(self, book: BusBook, now: float, error: str) -> Observation:
        """The state of a book; `error` is why there is no connection."""
        snapshot, entry = book.read()
        if snapshot is None or entry is None:
            return Observation(error=error or book.error, trading=self.trading(book))
        return Observation(
            snapshot,
            max(now - entry.confirmed_at, 0.0),
            max(now - entry.updated_at, 0.0),
            self.feeders.alive(snapshot.feeder, self.exchange, book.symbol, now),
            error or book.error or book.behind,
            self.trading(book),
            entry.confirmation_seen,
        )

    def trading(self, book: BusBook) -> TradingStatus:
        """What feeders say of the market, else what one wrote into the hash."""
        return self.feeders.trading(book.symbol) or book.trading


class NodeTable(BusTable):
    """The books of a table that one node of a cluster has, with that node's clock."""

    def __init__(self, whole: BusTable) -> None:
        super().__init__(whole.exchange, whole.names)
        self.clock = ServerClock(whole.clock_jumped)
        self.feeders = whole.feeders
        self._whole = whole

    def book(self, symbol: str) -> BusBook:
        """The book of a standard symbol from the whole table, or a new one."""
        return self._whole.book(symbol)

    def add(self, books: Iterable[BusBook]) -> None:
        new = list(books)
        super().add(new)
        self._whole.add(new)


def entry_of(book: BusBook, reply: Any, clock: ServerClock, session: object, asked: float, now: float) -> Entry | None:
    """The book in a reply to HMGET of `HASH_FIELDS`; None if there is none. `session` is that of the connection.

    An invalid reply is counted in `skipped`, and `error` says why it is invalid.
    """
    book.error = ""
    try:
        if isinstance(reply, Exception):
            raise wire.WireError(str(reply))
        if not isinstance(reply, list) or len(reply) != len(HASH_FIELDS):
            raise wire.WireError("not the reply to HMGET")
        data, confirmed, published, trading = reply
        book.trading = trading_status(trading)
        if data is None:
            return None
        if not isinstance(data, bytes):
            raise wire.WireError("a book is text")
        seq, confirmed_us, published_us = wire.seq_of(data), microseconds(confirmed), microseconds(published)
        confirmed_at = local_time(confirmed_us, clock, now)
        updated_at = min(local_time(published_us, clock, now), confirmed_at)
        seen_at, newest = book.confirmed(confirmed_us, clock, session, asked, now), book.newest
        if newest is not None and newest.confirmation_seen and seq >= newest.seq:
            # The same book, or a later one: it was confirmed when the one before was, or later.
            seen_at = newest.confirmed_at if seen_at is None else max(seen_at, newest.confirmed_at)
        if seen_at is None:
            return Entry(data, seq, now, updated_at, confirmed_at, confirmation_seen=False)
        return Entry(data, seq, now, min(updated_at, seen_at), seen_at)
    except wire.WireError as error:
        book.skipped += 1
        book.error = f"what is stored under {book.key.decode()} is no book: {error}"
        return None


def microseconds(value: Any) -> int:
    """A time in a hash. Raises WireError if it is invalid."""
    try:
        return min(int(value or b""), _LATEST_US)
    except (ValueError, TypeError, OverflowError):
        raise wire.WireError("its times cannot be read") from None


def local_time(time_us: int, clock: ServerClock, now: float) -> float:
    """The local time of a server's time, never in the future."""
    at = clock.local(time_us)
    return now if at is None else min(at, now)
