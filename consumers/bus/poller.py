"""Books read from the bus on each call: no thread, and one round trip a call once a book was seen to be confirmed."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.bus.books import CONFIRMATION_WAIT, FEEDER_LIMIT, HASH_FIELDS, BusBook, BusTable, entry_of
from bookbus.consumers.bus.connection import BusConnection, BusConnectionError, Command, ReplyError, rejected
from bookbus.consumers.bus.servers import ServerLocator
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.reading import MAX_AGE, Observation
from bookbus.consumers.shared_state import Cell, ReentrantLock, fork_count
from bookbus.schemas.redis_url import RedisServer

_LIMIT = 0.5
_PROBE_INTERVAL = 0.1
_MOST_IDLE = 8


class _Pulse(NamedTuple):
    """The `time_us` of a heartbeat, the local time since which it is the same, and whether it was another before."""

    value: bytes
    since: float
    advanced: bool


class BusPoller:
    """Reads hashes into a table, with a connection for each of the calls that run at once.

    No call waits for another: a signal handler may interrupt one and make the next.
    """

    def __init__(self, locator: ServerLocator, table: BusTable, symbols: SymbolNames, max_age: float = MAX_AGE) -> None:
        self.error = ""
        """Why the last call got no reply; empty if it got one."""
        self._locator = locator
        self._table = table
        self._symbols = symbols
        self._max_age = max_age
        self._pulses: dict[str, _Pulse] = {}
        self._applying = ReentrantLock()
        self._applied_at = 0.0
        """When the last replies that were applied had arrived."""
        self._applied_from: tuple[_Pool, RedisServer] | None = None
        """Where they came from."""
        self._pool = Cell(_Pool())
        self._stops = 0

    def start(self) -> None:
        """Read the list of books. Raises BusConnectionError if the bus does not reply."""
        answer = self._ask([("TIME",), ("SMEMBERS", self._table.names.books)])
        clock, listed = answer.replies
        for reply in (clock, listed):
            if not str(reply).startswith("WRONGTYPE"):
                answer.check(reply)
        if isinstance(listed, list):
            self._symbols.learn(self._table.listed(listed))

    def stop(self) -> None:
        """Close the connections and end calls that wait for a confirmation; the next call opens another connection."""
        self._stops += 1
        self._leave(self._pool.get())

    def observe(self, symbols: Sequence[str]) -> list[Observation]:
        """The state of these symbols; the last one read if the bus does not reply.

        Waits for up to CONFIRMATION_WAIT seconds, once, for the confirmation of a book that is fresh by the server's
        clock alone: other reads remember what was seen.
        """
        table, stops, error = self._table, self._stops, ""
        books = [table.book(symbol) for symbol in symbols]
        try:
            table, books = self._read(symbols, table)
            while self._awaits(table, books) and stops == self._stops:
                time.sleep(_PROBE_INTERVAL)
                table, books = self._read(symbols, table)
        except BusConnectionError as caught:
            error = str(caught)
        self.error = error
        now = boottime()
        return self._with_feeders([table.observe(book, now, error) for book in books], error)

    def _read(self, symbols: Sequence[str], table: BusTable) -> tuple[BusTable, list[BusBook]]:
        """Reads the books into the table. Returns both, or a table of this call's own and its books.

        That is needed where this call interrupted one that changes the table, or asked a server that other calls left.
        """
        asked = boottime()
        keys = [table.book(symbol).key for symbol in symbols]
        answer = self._ask([("TIME",), ("ROLE",), *(("HMGET", key, *HASH_FIELDS) for key in keys)])
        now = boottime()
        answer.check(answer.replies[0])
        if table is not self._table:
            return table, self._apply(answer, symbols, table, asked, now, overlapping=False)
        with self._applying.hold() as first:
            alone = not first or answer.pool is not self._pool.get()
            if alone:
                table = table.copy(symbols)
            server = answer.connection.server
            if self._applied_from != (source := (answer.pool, server)):
                table.clock.connected_to((server.host, server.port, server.path))
            # Replies to two calls that ran at once have no order but that of the books.
            books = self._apply(answer, symbols, table, asked, now, overlapping=alone or asked < self._applied_at)
            if not alone:
                self._applied_from, self._applied_at = source, max(self._applied_at, now)
            return table, books

    def _apply(
        self, answer: "_Answer", symbols: Sequence[str], table: BusTable, asked: float, now: float, *, overlapping: bool
    ) -> list[BusBook]:
        server_time, role, *hashes = answer.replies
        table.clock.measure(asked, now, int(server_time[0]) * 1_000_000 + int(server_time[1]))
        table.clock.role(role, asked)
        books = [table.book(symbol) for symbol in symbols]
        for book, reply in zip(books, hashes, strict=True):
            entry = entry_of(book, reply, table.clock, answer.connection, asked, now)
            if not (overlapping and entry is not None and book.newest is not None and entry.seq < book.newest.seq):
                book.await_hash()
                book.hash_read(entry)
                # There is no channel that could still bring older messages.
                book.caught_up()
        table.add(book for book in books if book.newest is not None or book.skipped)
        return books

    def _awaits(self, table: BusTable, books: Sequence[BusBook]) -> bool:
        """Whether one of them is fresh by the server's clock alone, and a living feeder would still confirm it."""
        now, waits = boottime(), False
        for book in books:
            snapshot, entry = book.read()
            clock_age = None if snapshot is None or snapshot.state != "live" else book.clock_age(table.clock, now)
            if (
                entry is None
                or clock_age is None
                or clock_age > self._max_age
                or (entry.confirmation_seen and now - entry.confirmed_at <= self._max_age)
            ):
                book.awaited_since = None
            else:
                since = book.awaited_since  # another call may change it meanwhile
                if since is None:
                    since = book.awaited_since = now
                waits = waits or now - since < CONFIRMATION_WAIT
        return waits

    def _with_feeders(self, observations: list[Observation], error: str) -> list[Observation]:
        """The same; books that were not confirmed for a while get `feeder_alive` from the hash of their feeder."""
        feeders = {
            observation.snapshot.feeder: None
            for observation in observations
            if observation.snapshot is not None and (observation.age or 0.0) > FEEDER_LIMIT
        }
        if not feeders or error:
            return observations
        try:
            replies = self._ask([("HGET", self._table.names.feeder(feeder), "time_us") for feeder in feeders]).replies
        except BusConnectionError as caught:
            self.error = str(caught)
            return observations
        now = boottime()
        alive = {feeder: self._alive(feeder, reply, now) for feeder, reply in zip(feeders, replies, strict=True)}
        return [
            msgspec.structs.replace(observation, feeder_alive=alive.get(observation.snapshot.feeder))
            if observation.snapshot is not None
            else observation
            for observation in observations
        ]

    def _alive(self, feeder: str, reply: Any, now: float) -> bool | None:
        """Whether its heartbeat was seen to advance; None if that is not known yet."""
        if isinstance(reply, ReplyError):
            return None
        if not isinstance(reply, bytes):
            self._pulses.pop(feeder, None)
            return False
        known = self._pulses.get(feeder)
        if known is None:
            # The hash of a dead feeder lives on for some seconds, and longer if the server's clock is set back.
            known = self._pulses[feeder] = _Pulse(reply, now, advanced=False)
        elif known.value != reply:
            known = self._pulses[feeder] = _Pulse(reply, now, advanced=True)
        if now - known.since > FEEDER_LIMIT:
            return False
        return True if known.advanced else None

    def _ask(self, commands: Sequence[Command]) -> "_Answer":
        pool = self._pool.get()
        if pool.forks != fork_count():
            # After a fork the connections belong to the parent process, which keeps them open.
            self._leave(pool)
            pool = self._pool.get()
        connection = pool.take() or BusConnection(self._locator.locate(), "bookbus-poller", _LIMIT)
        try:
            replies = connection.ask(commands, _LIMIT)
        except BaseException:
            # Also where a signal handler raised: the replies would be taken for those of the next call.
            connection.close()
            # The others are as old.
            self._leave(pool)
            raise
        pool.keep(connection)
        if pool is not self._pool.get():
            pool.close()
        return _Answer(pool, connection, replies)

    def _leave(self, pool: "_Pool") -> None:
        """Close these connections; later calls use others."""
        self._pool.replace(pool, _Pool())
        pool.close()


class _Pool:
    """Connections of this process to one server, as long as none was lost: those that no call uses."""

    def __init__(self) -> None:
        self.forks = fork_count()
        self._idle: deque[BusConnection] = deque()

    def take(self) -> BusConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def keep(self, connection: BusConnection) -> None:
        if len(self._idle) < _MOST_IDLE:
            self._idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        while (connection := self.take()) is not None:
            connection.close()


class _Answer(NamedTuple):
    pool: _Pool
    connection: BusConnection
    replies: list[Any]

    def check(self, reply: Any) -> None:
        """Raises BusConnectionError if this reply is an error."""
        if isinstance(reply, ReplyError):
            raise rejected(self.connection.server, str(reply))
