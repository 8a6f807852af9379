"""Books read from the bus on each call: no thread, one round trip a call."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.bus.books import FEEDER_LIMIT, HASH_FIELDS, BusBook, BusTable, entry_of, local_time
from bookbus.consumers.bus.connection import BusConnection, BusConnectionError, Command, ReplyError, rejected
from bookbus.consumers.bus.servers import ServerLocator
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.reading import Observation
from bookbus.consumers.shared_state import ReentrantLock, fork_count
from bookbus.schemas.redis_url import RedisServer
from bookbus.schemas.wire import WireError

_LIMIT = 0.5
_MOST_IDLE = 8


class BusPoller:
    """Reads hashes into a table, with a connection for each of the calls that run at once.

    No call waits for another: a signal handler may interrupt one and make the next.
    """

    def __init__(self, locator: ServerLocator, table: BusTable, symbols: SymbolNames) -> None:
        self.error = ""
        """Why the last call got no reply; empty if it got one."""
        self._locator = locator
        self._table = table
        self._symbols = symbols
        self._applying = ReentrantLock()
        self._applied_at = 0.0
        """When the last replies that were applied had arrived."""
        self._idle = _Idle()

    def start(self) -> None:
        """Read the list of books. Raises BusConnectionError if the bus does not reply."""
        server, (time, listed) = self._ask([("TIME",), ("SMEMBERS", self._table.names.books)])
        for reply in (time, listed):
            if not str(reply).startswith("WRONGTYPE"):
                _check(server, reply)
        if isinstance(listed, list):
            self._symbols.learn(self._table.listed(listed))

    def stop(self) -> None:
        """Close the connections; the next call opens another."""
        idle, self._idle = self._idle, _Idle()
        idle.close()

    def observe(self, symbols: Sequence[str]) -> list[Observation]:
        """The state of these symbols; the last one read if the bus does not reply."""
        try:
            observations = self._read(symbols)
            self.error = ""
        except BusConnectionError as error:
            self.error = str(error)
            now = boottime()
            observations = [self._table.observe(self._table.book(symbol), now, self.error) for symbol in symbols]
        return self._with_feeders(observations)

    def _read(self, symbols: Sequence[str]) -> list[Observation]:
        asked = boottime()
        keys = [self._table.book(symbol).key for symbol in symbols]
        server, (time, *hashes) = self._ask([("TIME",), *(("HMGET", key, *HASH_FIELDS) for key in keys)])
        now = boottime()
        _check(server, time)
        with self._applying.hold() as first:
            if not first:
                # This call interrupted one that applies replies: these are newer than those.
                return self._observed_alone(symbols, hashes, now)
            self._table.clock.measure(asked, now, int(time[0]) * 1_000_000 + int(time[1]))
            # Replies to two calls that ran at once have no order but that of the books.
            overlapping = asked < self._applied_at
            for symbol, reply in zip(symbols, hashes, strict=True):
                self._apply(self._table.book(symbol), reply, now, overlapping)
            self._applied_at = max(self._applied_at, now)
            return [self._table.observe(self._table.book(symbol), now, "") for symbol in symbols]

    def _apply(self, book: BusBook, reply: Any, now: float, overlapping: bool) -> None:
        entry = entry_of(book, reply, self._table.clock, now)
        if not (overlapping and entry is not None and book.newest is not None and entry.seq < book.newest.seq):
            book.await_hash()
            book.hash_read(entry)
            # There is no channel that could still bring older messages.
            book.caught_up()
        if book.newest is not None or book.skipped:
            self._table.add([book])

    def _observed_alone(self, symbols: Sequence[str], hashes: Sequence[Any], now: float) -> list[Observation]:
        """From these replies, without the table's books, which some call is changing."""
        table = BusTable(self._table.exchange, self._table.names)
        table.clock, table.feeders = self._table.clock, self._table.feeders
        for symbol, reply in zip(symbols, hashes, strict=True):
            book = table.book(symbol)
            book.hash_read(entry_of(book, reply, table.clock, now))
            table.add([book])
        return [table.observe(table.book(symbol), now, "") for symbol in symbols]

    def _with_feeders(self, observations: list[Observation]) -> list[Observation]:
        """The same; books that were not confirmed for a while get `feeder_alive` from the hash of their feeder."""
        feeders = {
            observation.snapshot.feeder: None
            for observation in observations
            if observation.snapshot is not None and (observation.age or 0.0) > FEEDER_LIMIT
        }
        if not feeders or self.error:
            return observations
        try:
            _, replies = self._ask([("HGET", self._table.names.feeder(feeder), "time_us") for feeder in feeders])
        except BusConnectionError as error:
            self.error = str(error)
            return observations
        alive = {feeder: self._alive(reply) for feeder, reply in zip(feeders, replies, strict=True)}
        return [
            msgspec.structs.replace(observation, feeder_alive=alive.get(observation.snapshot.feeder))
            if observation.snapshot is not None
            else observation
            for observation in observations
        ]

    def _alive(self, reply: Any) -> bool | None:
        if isinstance(reply, ReplyError):
            return None
        now = boottime()
        try:
            return now - local_time(reply, self._table.clock, now) <= FEEDER_LIMIT
        except WireError:
            return False

    def _ask(self, commands: Sequence[Command]) -> tuple[RedisServer, list[Any]]:
        """The replies, and the server that sent them."""
        idle = self._idle
        if idle.forks != fork_count():
            # After a fork the connections belong to the parent process, which keeps them open.
            self.stop()
            idle = self._idle
        connection = idle.take() or BusConnection(self._locator.locate(), "bookbus-poller", _LIMIT)
        try:
            replies = connection.ask(commands, _LIMIT)
        except BaseException:
            # Also where a signal handler raised: the replies would be taken for those of the next call.
            connection.close()
            # The others are as old.
            idle.close()
            raise
        idle.keep(connection)
        if idle is not self._idle:
            idle.close()
        return connection.server, replies


class _Idle:
    """Connections of this process that no call uses."""

    def __init__(self) -> None:
        self.forks = fork_count()
        self._connections: deque[BusConnection] = deque()

    def take(self) -> BusConnection | None:
        try:
            return self._connections.pop()
        except IndexError:
            return None

    def keep(self, connection: BusConnection) -> None:
        if len(self._connections) < _MOST_IDLE:
            self._connections.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        while (connection := self.take()) is not None:
            connection.close()


def _check(server: RedisServer, reply: Any) -> None:
    """Raises BusConnectionError if this reply is an error."""
    if isinstance(reply, ReplyError):
        raise rejected(server, str(reply))
