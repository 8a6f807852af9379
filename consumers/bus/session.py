"""One session on the bus without its sockets: subscriptions, questions and their replies."""

import logging
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from bookbus.consumers.bus.books import (
    CONFIRMATION_WAIT,
    FEEDER_LIMIT,
    HASH_FIELDS,
    BusBook,
    BusTable,
    entry_of,
    microseconds,
)
from bookbus.consumers.bus.connection import LARGEST_REPLY, Command, Gets, ReplyError
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.schemas import wire
from bookbus.schemas.heartbeat import HeartbeatError, decode_heartbeat

logger = logging.getLogger(__name__)

TICK = 1.0
ANSWER_LIMIT = 5.0
"""Seconds without a reply after which the connection is given up."""

MOVING_LIMIT = 2.0
"""The same where another server may have taken over."""

_QUIET = 2.0
"""Seconds without a message after which the confirmation of a book is read; feeders confirm as often."""

_PROBE_INTERVAL = 0.25
"""Seconds between the reads of a confirmation that was not seen yet in a new session."""

_DISCOVERY_INTERVAL = 2.0
_TIME_LIMIT_US = 2**62
"""Microseconds that no clock reaches."""

WrongRole = Callable[[Any], str]
"""Takes the reply to ROLE. Returns why the server is the wrong one to read from, or an empty text."""

_Handler = Callable[[Any, float, float], None]
"""Takes a reply, the time of its question, and now."""

OnChange = Callable[[str, int], None]
"""Called with a standard symbol and the number of its updates that arrived; 0 where its trading status changed."""

OnSubscribed = Callable[[BusBook, float], None]
"""Called with a book whose subscription is confirmed, and the time."""

_HEAD_AND_SEQ = len(wire.HEAD) + 8
_SLOW_ANSWER = 0.1
_SUBSCRIBE_CHUNK = 500


class SessionLostError(Exception):
    """The session cannot go on; the message is the server's, or says what the server failed to do."""


class BusStream:
    """Messages of books and heartbeats of feeders; pings measure how far behind they are.

    The reply to a ping arrives after everything published before the ping was sent. So it ends the time in which a
    channel may repeat the book of a hash, and it limits how old a message may be that arrives.
    """

    def __init__(
        self,
        table: BusTable,
        on_change: OnChange,
        on_subscribed: OnSubscribed,
        now: float,
        *,
        sharded: bool = False,
    ) -> None:
        """`sharded` for a node of a cluster, where books have sharded channels."""
        self.lag = 0.0
        """Seconds that the last ping took."""
        self.latest_book: BusBook | None = None
        """The book of the last message."""
        self._table = table
        self._on_change = on_change
        self._on_subscribed = on_subscribed
        self._commands: list[Command] = []
        self._pings: deque[tuple[bytes, float, list[BusBook]]] = deque()
        self._ping_count = 0
        self._catching_up: list[BusBook] = []
        self._touched: list[BusBook] = []
        self._latest: tuple[bytes, float] | None = None
        self._unsubscribed: dict[bytes, float] = {}
        self._stalled_since: float | None = None
        self._stall_ping = b""
        """The ping whose reply follows all that arrived during a stall; empty once it has come."""
        self._heartbeats = table.names.feeders.encode()
        self._sharded = sharded
        self._message = b"smessage" if sharded else b"message"
        self._subscribe("SUBSCRIBE", [self._heartbeats], now)
        self._ping([], now)

    def subscribe(self, books: Iterable[BusBook], now: float) -> None:
        self._subscribe("SSUBSCRIBE" if self._sharded else "SUBSCRIBE", [book.channel for book in books], now)

    def catch_up(self, book: BusBook) -> None:
        """The hash of this book was just read: ping, and mark it as caught up when the reply comes."""
        self._catching_up.append(book)

    def keep_alive(self, now: float) -> None:
        """Ping, unless a reply is still due."""
        if not self._pings:
            self._ping([], now)

    def delay(self) -> float | None:
        """Seconds from publication to receipt of the last message, by the feeder's clock and the server's."""
        if self._latest is None:
            return None
        data, received_at = self._latest
        try:
            published_at = self._table.clock.local(wire.decode(data).published_us)
        except wire.WireError:
            return None
        return None if published_at is None else received_at - published_at

    def stalled(self, since: float, now: float) -> None:
        """Nothing was read from `since` until now, so messages may be that old until the reply to a new ping."""
        self._ping([], now)
        self._stall_ping = self._pings[-1][0]
        self._stalled_since = since if self._stalled_since is None else self._stalled_since
        if now - since > FEEDER_LIMIT / 2:
            # The heartbeats of that time are still unread.
            self._table.feeders.listen(now, self._table)

    def waiting_since(self, now: float) -> float:
        """The time since which a reply is due; `now` if none is."""
        sent = self._pings[0][1] if self._pings else now
        return min(sent, next(iter(self._unsubscribed.values()), now))

    def outgoing(self, now: float) -> list[Command]:
        if self._catching_up:
            self._ping(self._catching_up, now)
            self._catching_up = []
        commands, self._commands = self._commands, []
        return commands

    def receive(self, gets: Gets, now: float) -> None:
        """Take every complete reply; `apply` must follow. Raises SessionLostError for a reply that ends the session."""
        books, head, touched, message = self._table.by_channel, wire.HEAD, self._touched, self._message
        while (reply := gets()) is not False:
            if type(reply) is not list or not reply or reply[0] != message:
                self._receive_control(reply, now)
                continue
            try:
                _, channel, data = reply
                book, is_whole = books.get(channel), data.startswith(head) and len(data) > _HEAD_AND_SEQ
            except (ValueError, TypeError, AttributeError):
                raise SessionLostError("it sends an invalid message") from None
            if book is None:
                self._receive_heartbeat(channel, data, now)
            elif not book.steady:
                self._offer(book, data, now)
            elif is_whole or self._is_book(book, data):
                book.arriving = data
                if not book.arrived:
                    touched.append(book)
                book.arrived += 1

    def apply(self, now: float) -> None:
        """Make the last message of each book its newest, all that arrived together in one step."""
        arrived_at = now - self._behind(now)
        clock = self._table.clock
        for book in self._touched:
            count, book.arrived = book.arrived, 0
            at = arrived_at if clock.primary else self._accepted_at(book, book.arriving, arrived_at)
            book.take(book.arriving, wire.seq_of(book.arriving), count, now, at)
            self._on_change(book.symbol, count)
        if self._touched:
            self.latest_book = self._touched[-1]
            self._latest = self._touched[-1].arriving, now
            self._touched.clear()
        if not self._stall_ping:
            # Only now: messages before the reply may be as old as the stall is long.
            self._stalled_since = None

    def _ping(self, books: list[BusBook], now: float) -> None:
        self._ping_count += 1
        token = b"%d" % self._ping_count
        self._commands.append(("PING", token))
        self._pings.append((token, now, books))

    def _subscribe(self, command: str, channels: list[bytes], now: float) -> None:
        # A cluster takes only channels of one slot in one command.
        chunk = 1 if self._sharded else _SUBSCRIBE_CHUNK
        for start in range(0, len(channels), chunk):
            self._commands.append((command, *channels[start : start + chunk]))
        self._unsubscribed.update(dict.fromkeys(channels, now))

    def _behind(self, now: float) -> float:
        """Seconds since a message that arrives now may have been published, at most."""
        since = self._pings[0][1] if self._pings else now
        if self._stalled_since is not None:
            since = min(since, self._stalled_since)
        return max(self.lag, now - since)

    def _accepted_at(self, book: BusBook, data: bytes, arrived_at: float) -> float:
        """When the primary accepted a message that this server, perhaps a replica, published at `arrived_at`."""
        try:
            at = self._table.clock.published_at(data, arrived_at)
        except wire.WireError:
            return arrived_at
        book.behind = self._table.clock.behind(arrived_at - at)
        return at

    def _offer(self, book: BusBook, data: bytes, now: float) -> None:
        # Decoded at once: an invalid message must not replace the book of the hash.
        try:
            seq = book.decode(data).seq
        except wire.WireError:
            book.skipped += 1
        else:
            at = now - self._behind(now)
            if not self._table.clock.primary:
                at = self._accepted_at(book, data, at)
            if book.offer(data, seq, now, at):
                self._on_change(book.symbol, 1)

    def _is_book(self, book: BusBook, data: bytes) -> bool:
        try:
            wire.seq_of(data)
        except wire.WireError:
            book.skipped += 1
            return False
        return True

    def _receive_heartbeat(self, channel: bytes, data: bytes, now: float) -> None:
        if channel == self._heartbeats:
            try:
                beat = decode_heartbeat(data)
            except HeartbeatError:
                return
            if beat.exchange == self._table.exchange:
                self._table.feeders.publish(
                    beat.exchange, (symbol for symbol, state in beat.states.items() if state != "syncing")
                )
            reconnects = beat.counters.get("reconnects")
            self._table.feeders.receive(
                beat.feeder, beat.exchange, beat.states, now, None if reconnects is None else int(reconnects)
            )
            if beat.exchange == self._table.exchange:
                for symbol in self._table.feeders.receive_trading(beat.feeder, beat.trading):
                    self._on_change(symbol, 0)

    def _receive_control(self, reply: Any, now: float) -> None:
        match reply:
            case [b"pong", token]:
                self._on_pong(token, now)
            case [b"subscribe" | b"ssubscribe", bytes() as channel, _]:
                self._on_acknowledged(channel, now)
            case [b"message", bytes() as channel, bytes() as data]:
                self._receive_heartbeat(channel, data, now)
            case [b"sunsubscribe", bytes() as channel, _]:
                raise SessionLostError(f"{channel.decode(errors='replace')} is served by another node now")
            case ReplyError():
                raise SessionLostError(str(reply))

    def _on_pong(self, token: bytes, now: float) -> None:
        if not self._pings or self._pings[0][0] != token:
            raise SessionLostError("it sends the reply to a ping that was not sent")
        _, sent, books = self._pings.popleft()
        self.lag = now - sent
        for book in books:
            book.caught_up()
        if token == self._stall_ping:
            self._stall_ping = b""
        if self.lag > _SLOW_ANSWER and not self._pings:
            # Ping again at once, so that one slow reply does not make books look old for a second.
            self._ping([], now)

    def _on_acknowledged(self, channel: bytes, now: float) -> None:
        self._unsubscribed.pop(channel, None)
        if channel == self._heartbeats:
            self._table.feeders.listen(now, self._table)
        elif book := self._table.by_channel.get(channel):
            self._on_subscribed(book, now)


class BusSession:
    """Follows books over two connections: `stream` receives messages, the other one replies to questions.

    The caller sends `stream.outgoing` and `outgoing`, passes the replies to both `receive`, and calls `tick` each
    second and `probe` at `probe_at`. `wanted` is None for every book that the bus lists. `wrong_role` is for a server
    that others may replace. `sharded` is for a node of a cluster, where only the books in `wanted` and `follow` are
    followed.
    """

    def __init__(
        self,
        table: BusTable,
        symbols: SymbolNames,
        wanted: Sequence[str] | None,
        on_change: OnChange,
        now: float,
        wrong_role: WrongRole | None = None,
        *,
        sharded: bool = False,
    ) -> None:
        self.ready = False
        """Whether every book known at the beginning was read or found absent."""
        self.probe_at = math.inf
        """When to call `probe`."""
        self.stream = BusStream(table, on_change, self._read_hash, now, sharded=sharded)
        self._table = table
        self._symbols = symbols
        self._wanted = wanted
        self._on_change = on_change
        self._wrong_role = wrong_role
        self._answer_limit = MOVING_LIMIT if wrong_role else ANSWER_LIMIT
        self._commands: list[Command] = []
        self._questions: deque[tuple[_Handler, float]] = deque()
        self._followed: set[BusBook] = set()
        self._unread: set[BusBook] = set()
        self._began = now
        self._probed: set[BusBook] = set()
        """Books whose confirmation was not seen yet in this session, until `_probe_until`."""
        self._probe_until = now
        self._listed_at: float | None = None
        self.may_write_heartbeat = not sharded
        self._ask(("TIME",), self._on_time, now)
        # Asked first: what a replica sends is judged by other rules.
        self._ask(("ROLE",), self._on_role, now)
        if sharded:
            self.follow(wanted or (), now)
        else:
            self._ask(("SMEMBERS", table.names.books), self._on_listed, now)

    def outgoing(self) -> list[Command]:
        commands, self._commands = self._commands, []
        return commands

    def receive(self, gets: Gets, now: float) -> None:
        """Take every complete reply. Raises SessionLostError for an error reply that ends the session."""
        while (reply := gets()) is not False:
            if not self._questions:
                raise SessionLostError("it sends a reply to no question")
            handler, asked = self._questions.popleft()
            if isinstance(reply, ReplyError) and str(reply).startswith("MOVED"):
                raise SessionLostError(str(reply))
            handler(reply, asked, now)

    def tick(self, now: float) -> None:
        """Ask what is due each second. Raises SessionLostError if the server no longer replies."""
        asked = self._questions[0][1] if self._questions else now
        if now - min(asked, self.stream.waiting_since(now)) > self._answer_limit:
            raise SessionLostError(f"no answer for {self._answer_limit:g} s")
        self._ask(("TIME",), self._on_time, now)
        self._ask(("ROLE",), self._on_role, now)
        self._measure_lag(now)
        self.stream.keep_alive(now)
        if self._listed_at is not None and self._wanted is None and now - self._listed_at >= _DISCOVERY_INTERVAL:
            self._listed_at = now
            self._ask(("SMEMBERS", self._table.names.books), self._on_listed, now)
        if self._wanted is None:
            self._follow_published(now)
        for book in self._followed:
            if book.steady:
                self._check_book(book, now)

    def probe(self, now: float) -> None:
        """Read the confirmations that were not seen yet in this session: a quiet book is confirmed every 2 s."""
        self._probed = {book for book in self._probed if self._is_unseen(book)}
        if not self._probed or now > self._probe_until:
            self._probed.clear()
            self.probe_at = math.inf
            return
        self.probe_at = now + _PROBE_INTERVAL
        self._ask(("TIME",), self._on_time, now)
        for book in self._probed:
            if book.steady:
                self._ask_confirmation(book, now)

    def reply_too_large(self) -> bool:
        """The reply to the oldest question ended this session. Returns whether another session can do without it.

        That asks for the size of a hash before it reads it again.
        """
        handler = self._questions[0][0] if self._questions else None
        if isinstance(handler, partial) and isinstance(book := next(iter(handler.args), None), BusBook):
            book.too_large = True
            return True
        return False

    def follow(self, symbols: Iterable[str], now: float) -> None:
        books = [self._table.book(symbol) for symbol in dict.fromkeys(symbols)]
        new = [book for book in books if book not in self._followed]
        for book in new:
            book.await_hash()
        self._table.add(new)
        self._followed.update(new)
        self._unread.update(new)
        self._probed.update(new)
        self._probe_until = now + CONFIRMATION_WAIT + _PROBE_INTERVAL
        self.probe_at = min(self.probe_at, now + _PROBE_INTERVAL)
        self.stream.subscribe(new, now)

    def write_heartbeat(self, key: str, fields: Iterable[tuple[str, str]], seconds: int, now: float) -> None:
        """Write the reader's hash, unless its user may not."""
        if self.may_write_heartbeat:
            self._ask(("HSET", key, *(text for field in fields for text in field)), self._on_heartbeat_written, now)
            self._ask(("EXPIRE", key, seconds), self._on_heartbeat_written, now)

    def _follow_published(self, now: float) -> None:
        """Follow the books that feeders publish and the server does not list, as one that evicts keys."""
        unlisted = self._table.feeders.published(self._table.exchange) - self._symbols.listed
        if unlisted:
            self._symbols.learn(unlisted)
            self.follow(sorted(unlisted), now)

    def _check_book(self, book: BusBook, now: float) -> None:
        newest = book.newest
        if book.corrupted:
            book.corrupted = False
            self._read_hash(book, now)
        elif (
            newest is None
            or not newest.confirmation_seen
            or now - max(newest.received_at, newest.confirmed_at) >= _QUIET
        ):
            self._ask_confirmation(book, now)

    def _is_unseen(self, book: BusBook) -> bool:
        newest = book.newest
        return newest is not None and (not newest.confirmation_seen or newest.confirmed_at < self._began)

    def _ask_confirmation(self, book: BusBook, now: float) -> None:
        self._ask(("HMGET", book.key, "seq", "confirmed_us"), partial(self._on_confirmation, book), now)

    def _measure_lag(self, now: float) -> None:
        """Ask when the primary accepted the last message, by its clock, unless this server is the primary."""
        book = self.stream.latest_book
        if self._table.clock.primary or book is None or book.newest is None:
            return
        handler = partial(self._on_accepted, book.newest.received_at)
        self._ask(("HMGET", book.key, "confirmed_us"), handler, now)

    def _ask(self, command: Command, handler: _Handler, now: float) -> None:
        self._commands.append(command)
        self._questions.append((handler, now))

    def _read_hash(self, book: BusBook, now: float) -> None:
        if book.steady:
            book.await_hash()
        if book.too_large:
            sizes: list[Any] = []
            for field in HASH_FIELDS:
                self._ask(("HSTRLEN", book.key, field), partial(self._on_size, book, sizes), now)
            return
        self._ask(("HMGET", book.key, *HASH_FIELDS), partial(self._on_hash, book), now)

    def _on_size(self, book: BusBook, sizes: list[Any], reply: Any, asked: float, now: float) -> None:
        sizes.append(reply)
        if len(sizes) < len(HASH_FIELDS):
            return
        if all(isinstance(size, int) for size in sizes) and sum(sizes) < LARGEST_REPLY:
            book.too_large = False
            self._read_hash(book, now)
        else:
            self._on_hash(book, ValueError("it is too large"), asked, now)

    def _on_hash(self, book: BusBook, reply: Any, asked: float, now: float) -> None:
        changed = book.hash_read(entry_of(book, reply, self._table.clock, self, asked, now))
        if not book.steady:
            self.stream.catch_up(book)
        if changed:
            self._on_change(book.symbol, 1)
        self._unread.discard(book)
        self.ready = self.ready or not self._unread

    def _on_confirmation(self, book: BusBook, reply: Any, asked: float, now: float) -> None:
        newest = book.newest
        if not book.steady:
            return  # The hash is being read anyway.
        seq, confirmed_us = reply if isinstance(reply, list) and len(reply) == 2 else (b"", None)
        if newest is not None and seq == b"%d" % newest.seq:
            book.error = ""
            try:
                at = book.confirmed(microseconds(confirmed_us), self._table.clock, self, asked, now)
            except wire.WireError as error:
                book.error = str(error)
            else:
                if at is not None:
                    book.confirm(at)
        elif seq is not None:
            # The hash holds another book, so a message was lost, or it is invalid, which `_on_hash` reports.
            self._read_hash(book, now)

    def _on_time(self, reply: Any, asked: float, now: float) -> None:
        if isinstance(reply, ReplyError):
            raise SessionLostError(str(reply))
        try:
            seconds, microseconds = reply
            time_us = int(seconds) * 1_000_000 + int(microseconds)
        except (ValueError, TypeError):
            raise SessionLostError("its reply to TIME is invalid") from None
        if not 0 <= time_us < _TIME_LIMIT_US:
            raise SessionLostError("its reply to TIME is invalid")
        self._table.clock.measure(asked, now, time_us)

    def _on_accepted(self, received_at: float, reply: Any, _asked: float, now: float) -> None:
        with suppress(wire.WireError):
            confirmed_us = microseconds(reply[0] if isinstance(reply, list) and reply else None)
            self._table.clock.lagged(confirmed_us, received_at, now)

    def _on_role(self, reply: Any, asked: float, _now: float) -> None:
        self._table.clock.role(reply, asked)
        if self._wrong_role is not None and (reason := self._wrong_role(reply)):
            raise SessionLostError(reason)

    def _on_heartbeat_written(self, reply: Any, _asked: float, _now: float) -> None:
        # Any other error, like being out of memory, may be over in a second.
        if self.may_write_heartbeat and isinstance(reply, ReplyError) and str(reply).startswith("NOPERM"):
            self.may_write_heartbeat = False
            logger.debug("this user may not write the heartbeat of the reader: %s", reply)

    def _on_listed(self, reply: Any, _asked: float, now: float) -> None:
        if isinstance(reply, ReplyError):
            if self._wanted is None or str(reply).startswith("NOPERM"):
                raise SessionLostError(str(reply))
            reply = []
        if not isinstance(reply, list):
            raise SessionLostError("its reply to SMEMBERS is invalid")
        listed = self._table.listed(reply)
        self._symbols.learn(listed)
        self.follow(listed if self._wanted is None else map(self._symbols.standard, self._wanted), now)
        self._listed_at = now
        self.ready = self.ready or not self._unread
