"""The subscribed connection without its socket: what to send, and what its replies mean."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import hiredis

from bookbus.consumers.bus.books import BusBook, BusTable
from bookbus.consumers.bus.connection import Command
from bookbus.consumers.bus.liveness import FEEDER_LIMIT
from bookbus.schemas import wire
from bookbus.schemas.heartbeat import HeartbeatError, decode_heartbeat

Gets = Callable[[], Any]
"""The next reply as `hiredis.Reader.gets` gives it: False when there is none."""

OnChange = Callable[[str, int], None]
"""Takes a standard symbol and how many updates of it came."""

OnSubscribed = Callable[[BusBook, float], None]
"""Takes a book whose messages come from now on, and now."""

_HEAD_AND_SEQ = len(wire.HEAD) + 8
_SLOW_ANSWER = 0.1
_SUBSCRIBE_CHUNK = 500


class SessionLostError(Exception):
    """The session cannot go on; the message is the server's, or says what the server failed to do."""


class BusStream:
    """Messages of books and heartbeats of feeders; pings tell how far behind they are.

    An answer to a ping comes behind everything published before the ping was sent: it marks the point up to which
    a channel may repeat what a hash has told already, and it bounds how old a message may be that just arrived.
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
        """`sharded` for a node of a cluster, where books have channels that only their own node serves."""
        self.lag = 0.0
        """Seconds the last ping took."""
        self._table = table
        self._on_change = on_change
        self._on_subscribed = on_subscribed
        self._commands: list[Command] = []
        self._pings: deque[tuple[bytes, float, list[BusBook]]] = deque()
        self._ping_count = 0
        self._fenced: list[BusBook] = []
        self._touched: list[BusBook] = []
        self._latest: tuple[bytes, float] | None = None
        self._unsubscribed: dict[bytes, float] = {}
        self._still_since: float | None = None
        self._still_ping = b""
        """The ping whose answer comes behind all that waited during the standstill; empty once it has come."""
        self._heartbeats = table.names.feeders.encode()
        self._sharded = sharded
        self._message = b"smessage" if sharded else b"message"
        self._subscribe("SUBSCRIBE", [self._heartbeats], now)
        self._ping([], now)

    def subscribe(self, books: Iterable[BusBook], now: float) -> None:
        """Have the messages of these books sent."""
        self._subscribe("SSUBSCRIBE" if self._sharded else "SUBSCRIBE", [book.key for book in books], now)

    def settle_later(self, book: BusBook) -> None:
        """The hash of this book was just read: settle it when everything published before has come."""
        self._fenced.append(book)

    def keep_alive(self, now: float) -> None:
        """Ping, unless an answer is still due."""
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

    def stood_still(self, since: float, now: float) -> None:
        """Nothing was read from `since` until now: what arrives next may be that old, until all of it has come."""
        self._ping([], now)
        self._still_ping = self._pings[-1][0]
        self._still_since = since if self._still_since is None else self._still_since
        if now - since > FEEDER_LIMIT / 2:
            # The heartbeats of that time have yet to be read.
            self._table.feeders.listen(now, self._table)

    def waiting_since(self, now: float) -> float:
        """Since when an answer is due; now if none is."""
        sent = self._pings[0][1] if self._pings else now
        return min(sent, next(iter(self._unsubscribed.values()), now))

    def outgoing(self, now: float) -> list[Command]:
        """The commands to send."""
        if self._fenced:
            self._ping(self._fenced, now)
            self._fenced = []
        commands, self._commands = self._commands, []
        return commands

    def receive(self, gets: Gets, now: float) -> None:
        """Take every reply there is; `apply` must follow. Raises SessionLostError if the server refuses."""
        books, head, touched, message = self._table.by_key, wire.HEAD, self._touched, self._message
        while (reply := gets()) is not False:
            if type(reply) is not list or not reply or reply[0] != message:
                self._receive_control(reply, now)
                continue
            try:
                _, channel, data = reply
                book, is_whole = books.get(channel), data.startswith(head) and len(data) > _HEAD_AND_SEQ
            except (ValueError, TypeError, AttributeError):
                raise SessionLostError("a message came that is none") from None
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
        """Make the last message of each book its newest. The order is looked at once for all that came together."""
        at = now - self._behind(now)
        for book in self._touched:
            count, book.arrived = book.arrived, 0
            book.take(book.arriving, wire.seq_of(book.arriving), count, now, at)
            self._on_change(book.symbol, count)
        if self._touched:
            self._latest = self._touched[-1].arriving, now
            self._touched.clear()
        if not self._still_ping:
            # Not before: what came in front of the answer may be as old as the standstill.
            self._still_since = None

    def _ping(self, fenced: list[BusBook], now: float) -> None:
        self._ping_count += 1
        token = b"%d" % self._ping_count
        self._commands.append(("PING", token))
        self._pings.append((token, now, fenced))

    def _subscribe(self, command: str, channels: list[bytes], now: float) -> None:
        # A cluster takes only channels of one slot in one command.
        chunk = 1 if self._sharded else _SUBSCRIBE_CHUNK
        for start in range(0, len(channels), chunk):
            self._commands.append((command, *channels[start : start + chunk]))
        self._unsubscribed.update(dict.fromkeys(channels, now))

    def _behind(self, now: float) -> float:
        """How long ago a message that arrives now may have been published."""
        since = self._pings[0][1] if self._pings else now
        if self._still_since is not None:
            since = min(since, self._still_since)
        return max(self.lag, now - since)

    def _offer(self, book: BusBook, data: bytes, now: float) -> None:
        # Decoded at once: what is no book must not be weighed against the hash.
        try:
            seq = book.decode(data).seq
        except wire.WireError:
            book.skipped += 1
        else:
            if book.offer(data, seq, now, now - self._behind(now)):
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
            self._table.feeders.hear(beat.feeder, beat.exchange, beat.states, now)

    def _receive_control(self, reply: Any, now: float) -> None:
        match reply:
            case [b"pong", token]:
                self._on_pong(token, now)
            case [b"subscribe" | b"ssubscribe", bytes() as channel, _]:
                self._on_acknowledged(channel, now)
            case [b"message", bytes() as channel, bytes() as data]:
                self._receive_heartbeat(channel, data, now)
            case [b"sunsubscribe", bytes() as channel, _]:
                raise SessionLostError(f"{channel.decode(errors='replace')} is another node's now")
            case hiredis.ReplyError():
                raise SessionLostError(str(reply))

    def _on_pong(self, token: bytes, now: float) -> None:
        if not self._pings or self._pings[0][0] != token:
            raise SessionLostError("a pong came that nobody asked for")
        _, sent, fenced = self._pings.popleft()
        self.lag = now - sent
        for book in fenced:
            book.settle()
        if token == self._still_ping:
            self._still_ping = b""
        if self.lag > _SLOW_ANSWER and not self._pings:
            # Ask again at once, so that what was slow once does not make books look old for a second.
            self._ping([], now)

    def _on_acknowledged(self, channel: bytes, now: float) -> None:
        self._unsubscribed.pop(channel, None)
        if channel == self._heartbeats:
            self._table.feeders.listen(now, self._table)
        elif book := self._table.by_key.get(channel):
            self._on_subscribed(book, now)
