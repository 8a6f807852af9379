"""Books read from the bus on each call: no thread, and one round trip a call once a book was seen to be confirmed."""

import os
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.bus.books import CONFIRMATION_WAIT, FEEDER_LIMIT, HASH_FIELDS, BusBook, BusTable, entry_of
from bookbus.consumers.bus.connection import BusConnection, BusConnectionError, Command, ReplyError, rejected
from bookbus.consumers.bus.servers import ServerLocator
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.reading import MAX_AGE, Observation

_LIMIT = 0.5
_PROBE_INTERVAL = 0.1


class _Pulse(NamedTuple):
    """The `time_us` of a heartbeat, the local time since which it is the same, and whether it was another before."""

    value: bytes
    since: float
    advanced: bool


class BusPoller:
    """Reads hashes into a table, one caller at a time: replies of two connections would have no order."""

    def __init__(self, locator: ServerLocator, table: BusTable, symbols: SymbolNames, max_age: float = MAX_AGE) -> None:
        self.error = ""
        """Why the last call got no reply; empty if it got one."""
        self._locator = locator
        self._table = table
        self._symbols = symbols
        self._max_age = max_age
        self._pulses: dict[str, _Pulse] = {}
        self._lock = threading.Lock()
        self._connection: BusConnection | None = None
        self._pid = 0

    def start(self) -> None:
        """Read the list of books. Raises BusConnectionError if the bus does not reply."""
        with self._lock:
            clock, listed = self._ask([("TIME",), ("SMEMBERS", self._table.names.books)])
        for reply in (clock, listed):
            if not str(reply).startswith("WRONGTYPE"):
                self._check(reply)
        if isinstance(listed, list):
            self._symbols.learn(self._table.listed(listed))

    def stop(self) -> None:
        """Close the connection; the next call opens another."""
        with self._lock:
            self._close()

    def observe(self, symbols: Sequence[str]) -> list[Observation]:
        """The state of these symbols; the last one read if the bus does not reply.

        Waits for up to CONFIRMATION_WAIT seconds, once, for the confirmation of a book that is fresh by the server's
        clock alone: other reads remember what was seen.
        """
        with self._lock:
            books = [self._table.book(symbol) for symbol in symbols]
            try:
                self._read(books)
                while self._awaits(books):
                    time.sleep(_PROBE_INTERVAL)
                    self._read(books)
                self.error = ""
            except BusConnectionError as error:
                self.error = str(error)
            now = boottime()
            observations = [self._table.observe(book, now, self.error) for book in books]
            return self._with_feeders(observations)

    def _read(self, books: Sequence[BusBook]) -> None:
        asked, clock = boottime(), self._table.clock
        questions = [("TIME",), ("ROLE",), *(("HMGET", book.key, *HASH_FIELDS) for book in books)]
        server_time, role, *hashes = self._ask(questions)
        now = boottime()
        self._check(server_time)
        clock.measure(asked, now, int(server_time[0]) * 1_000_000 + int(server_time[1]))
        clock.role(role, asked)
        for book, reply in zip(books, hashes, strict=True):
            book.await_hash()
            book.hash_read(entry_of(book, reply, clock, self._connection, asked, now))
            # There is no channel that could still bring older messages.
            book.caught_up()
        self._table.add(book for book in books if book.newest is not None or book.skipped)

    def _awaits(self, books: Sequence[BusBook]) -> bool:
        """Whether one of them is fresh by the server's clock alone, and a living feeder would still confirm it."""
        now, waits = boottime(), False
        for book in books:
            snapshot, entry = book.read()
            clock_age = None if snapshot is None or snapshot.state != "live" else book.clock_age(self._table.clock, now)
            if (
                entry is None
                or clock_age is None
                or clock_age > self._max_age
                or (entry.confirmation_seen and now - entry.confirmed_at <= self._max_age)
            ):
                book.awaited_since = None
            else:
                book.awaited_since = now if book.awaited_since is None else book.awaited_since
                waits = waits or now - book.awaited_since < CONFIRMATION_WAIT
        return waits

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

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        if self._pid != os.getpid():
            # After a fork the connection belongs to the parent process, which keeps it open.
            self._close()
            self._pid = os.getpid()
        try:
            if self._connection is None:
                server = self._locator.locate()
                self._connection = BusConnection(server, "bookbus-poller", _LIMIT)
                self._table.clock.connected_to((server.host, server.port, server.path))
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
