"""Books read from the bus on each call: no thread, one round trip a call."""

import os
import threading
from collections.abc import Sequence
from typing import Any

import msgspec

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.bus.books import FEEDER_LIMIT, HASH_FIELDS, BusBook, BusTable, entry_of, local_time
from bookbus.consumers.bus.connection import BusConnection, BusConnectionError, Command, ReplyError, rejected
from bookbus.consumers.bus.servers import ServerLocator
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.reading import Observation
from bookbus.schemas.wire import WireError

_LIMIT = 0.5


class BusPoller:
    """Reads hashes into a table, one caller at a time: replies of two connections would have no order."""

    def __init__(self, locator: ServerLocator, table: BusTable, symbols: SymbolNames) -> None:
        self.error = ""
        """Why the last call got no reply; empty if it got one."""
        self._locator = locator
        self._table = table
        self._symbols = symbols
        self._lock = threading.Lock()
        self._connection: BusConnection | None = None
        self._pid = 0

    def start(self) -> None:
        """Read the list of books. Raises BusConnectionError if the bus does not reply."""
        with self._lock:
            time, listed = self._ask([("TIME",), ("SMEMBERS", self._table.names.books)])
        for reply in (time, listed):
            if not str(reply).startswith("WRONGTYPE"):
                self._check(reply)
        if isinstance(listed, list):
            self._symbols.learn(self._table.listed(listed))

    def stop(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            self._close()

    def observe(self, symbols: Sequence[str]) -> list[Observation]:
        """The state of these symbols; the last one read if the bus does not reply."""
        with self._lock:
            books = [self._table.book(symbol) for symbol in symbols]
            try:
                self._read(books)
                self.error = ""
            except BusConnectionError as error:
                self.error = str(error)
            now = boottime()
            observations = [self._table.observe(book, now, self.error) for book in books]
            return self._with_feeders(observations)

    def _read(self, books: Sequence[BusBook]) -> None:
        asked = boottime()
        time, *hashes = self._ask([("TIME",), *(("HMGET", book.key, *HASH_FIELDS) for book in books)])
        now = boottime()
        self._check(time)
        self._table.clock.measure(asked, now, int(time[0]) * 1_000_000 + int(time[1]))
        for book, reply in zip(books, hashes, strict=True):
            book.await_hash()
            book.hash_read(entry_of(book, reply, self._table.clock, now))
            # There is no channel that could still bring older messages.
            book.caught_up()
        self._table.add(book for book in books if book.newest is not None or book.skipped)

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
            replies = self._ask([("HGET", self._table.names.feeder(feeder), "time_us") for feeder in feeders])
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

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        if self._pid != os.getpid():
            # After a fork the connection belongs to the parent process, which keeps it open.
            self._close()
            self._pid = os.getpid()
        try:
            if self._connection is None:
                self._connection = BusConnection(self._locator.locate(), "bookbus-poller", _LIMIT)
            return self._connection.ask(commands, _LIMIT)
        except BusConnectionError:
            self._close()
            raise

    def _check(self, reply: Any) -> None:
        """Raises BusConnectionError if this reply is an error."""
        if self._connection is not None and isinstance(reply, ReplyError):
            raise rejected(self._connection.server, str(reply))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
