"""The thread that keeps the books of a bus current: sockets, clock and reconnecting around a session."""

import logging
import os
import random
import selectors
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field

from bookbus import __version__
from bookbus.consumers.background_loop import BackgroundThread, boottime
from bookbus.consumers.bus.books import BusTable
from bookbus.consumers.bus.connection import BusConnection, BusConnectionError, ReplyTooLargeError, rejected
from bookbus.consumers.bus.servers import ServerLocator
from bookbus.consumers.bus.session import TICK, BusSession, OnChange, SessionLostError
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.shared_state import Flag
from bookbus.schemas.clock_watch import ClockWatch
from bookbus.schemas.heartbeat import CLIENT_NAME_HEAD, HEARTBEAT_TTL, ReaderRecord, reader_fields
from bookbus.schemas.redis_url import RedisServer

logger = logging.getLogger(__name__)

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 1.0
_CHUNKS_AT_ONCE = 16
_WAKES = 64

_STALL = 0.25
"""Seconds by which a wait may exceed its timeout; beyond that the process was stopped or got no CPU time."""

_LONG_STALL = 5.0


_PauseSelector = getattr(selectors, "PollSelector", selectors.SelectSelector)


@dataclass(frozen=True, slots=True)
class ConsumerIdentity:
    """The identity of a reader; `id` is unique, also within one process."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    number: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def id(self) -> str:
        return f"{self.host}-{self.pid}-{self.number}".replace(" ", "_")

    @property
    def client_name(self) -> str:
        """Name of the reader's connections in CLIENT LIST."""
        return CLIENT_NAME_HEAD + self.id


class BusReader:
    """Follows the bus from `start()` to `stop()`, each called once; reconnects without limit."""

    def __init__(
        self,
        locator: ServerLocator,
        table: BusTable,
        symbols: SymbolNames,
        wanted: Sequence[str] | None,
        on_change: OnChange,
        *,
        part_of: ConsumerIdentity | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """`part_of` is the identity of a cluster's reader: this one follows a node for it and does not reconnect.

        The thread calls `on_end` as its last step.
        """
        self.ended = False
        self.lag = 0.0
        """Seconds that the last ping took."""
        self.reconnect_count = 0
        self.error = "not connected"
        """Why there is no connection; empty while there is one."""
        self._locator = locator
        self._table = table
        self._symbols = symbols
        self._wanted = wanted
        self._on_change = on_change
        self._sharded = part_of is not None
        self._on_end = on_end
        self._identity = part_of or ConsumerIdentity()
        self._start_finished = Flag()
        self._was_ready = False
        self._clock_watch = ClockWatch(time.time(), boottime())
        # Each error is logged once until the next connection.
        self._reported: set[str] = set()
        self._stopping = False
        self._wake, self._woken = socket.socketpair()
        self._thread = BackgroundThread("bookbus-reader", self._run, self._interrupt)

    @property
    def alive(self) -> bool:
        return self._thread.alive

    @property
    def forked(self) -> bool:
        return self._thread.forked

    def start(self) -> None:
        self._thread.start()

    def wait_ready(self, timeout: float) -> None:
        """Return once every book was read or found absent. Raises BusConnectionError if that fails or takes longer."""
        finished = self._start_finished.wait(timeout)
        if self._was_ready:
            return
        if self._stopping:
            raise BusConnectionError(f"stopped while connecting to {self._locator.masked}")
        if finished:
            raise BusConnectionError(self.error)
        raise BusConnectionError(f"{self._locator.masked} does not answer within {timeout:g} s")

    def stop(self) -> None:
        """End the thread, even while it connects."""
        self._thread.stop()

    def follow(self, symbols: Sequence[str]) -> None:
        """Follow these symbols; only for a node of a cluster."""
        self._wanted = symbols
        self._interrupt_wait()

    def _interrupt(self) -> None:
        self._stopping = True
        self._interrupt_wait()

    def _interrupt_wait(self) -> None:
        with suppress(OSError):
            self._wake.send(b"\0")

    def _run(self) -> None:
        try:
            self._reconnect_until_stopped()
        finally:
            if not self.error:
                self.error = "stopped"
            self._table.feeders.stop_listening(self._table)
            self._wake.close()
            self._woken.close()
            self.ended = True
            self._start_finished.set()
            self._on_end()

    def _reconnect_until_stopped(self) -> None:
        delay = _FIRST_DELAY
        while not self._stopping:
            again = False
            try:
                self._follow(self._locator.locate())
            except ReplyTooLargeError as error:
                failure, again = str(error), True
            except BusConnectionError as error:
                failure = str(error)
            except (OSError, MemoryError) as error:
                # No file descriptor or no memory left: perhaps there is some later.
                failure = f"cannot read {self._locator.masked}: {_resource(error)}"
            else:
                return
            if not self.error and self._was_ready and not self._sharded:
                delay = _FIRST_DELAY
            if self._was_ready and not self._sharded and failure not in self._reported:
                self._reported.add(failure)
                logger.warning("%s; reconnecting", failure)
            self.error = failure
            self._table.feeders.stop_listening(self._table)
            if (not self._was_ready or self._sharded) and not again:
                return
            self._pause(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(delay * 2, _LONGEST_DELAY)

    def _pause(self, seconds: float) -> None:
        # Unlike others it needs no file descriptor, of which there may be none.
        with _PauseSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.select(seconds)

    def _follow(self, server: RedisServer) -> None:
        """One session, until stopped. Raises BusConnectionError if it ends earlier."""
        try:
            self._serve(server)
        except SessionLostError as error:
            if self._sharded:
                raise BusConnectionError(f"{server.masked} answers: {error}") from error
            raise rejected(server, str(error)) from error

    def _serve(self, server: RedisServer) -> None:
        name = self._identity.client_name
        with ExitStack() as stack:
            stream = stack.enter_context(closing(BusConnection(server, name)))
            query = stack.enter_context(closing(BusConnection(server, name)))
            selector = stack.enter_context(selectors.DefaultSelector())
            for source in (self._woken, stream, query):
                selector.register(source, selectors.EVENT_READ)
            self._table.clock.connected_to((server.host, server.port, server.path))
            now = boottime()
            wrong_role = self._locator.wrong_role if self._locator.may_move else None
            session = BusSession(
                self._table, self._symbols, self._wanted, self._on_change, now, wrong_role, sharded=self._sharded
            )
            receive: dict[object, Callable[[float], bool]] = {
                stream: lambda now: _receive_stream(stream, session, now),
                query: lambda now: _receive_query(query, session, now),
            }
            due = now + TICK
            unfinished: list[object] = []
            while not self._stopping:
                stream.send(session.stream.outgoing(now))
                query.send(session.outgoing())
                began, limit = now, 0 if unfinished else max(min(due, session.probe_at) - now, 0)
                events = selector.select(limit)
                now = boottime()
                if now - began - limit > _STALL:
                    _report_stall(session, began, now)
                readable = dict.fromkeys([*unfinished, *(key.fileobj for key, _ in events)])
                unfinished = [source for source in readable if source in receive and receive[source](now)]
                if self._woken in readable and not self._stopping:
                    self._woken.recv(_WAKES)
                    session.follow(self._wanted or (), now)
                if session.ready and self.error:
                    self._connected_to(server)
                if now >= session.probe_at:
                    session.probe(now)
                if now >= due:
                    due = now + TICK
                    self._tick(session, now)
            if session.may_write_heartbeat:
                query.send([("DEL", self._table.names.consumer(self._identity.id))])

    def _connected_to(self, server: RedisServer) -> None:
        if self._was_ready:
            self.reconnect_count += 1
            logger.info("reconnected to %s", server.masked)
        self.error = ""
        self._reported.clear()
        self._was_ready = True
        self._start_finished.set()

    def _tick(self, session: BusSession, now: float) -> None:
        session.tick(now)
        if seconds := self._clock_watch.check(time.time(), now):
            self._table.clock_jumped(seconds, "this machine's")
        self.lag = session.stream.lag
        if not session.may_write_heartbeat:
            return
        fields = consumer_fields(
            self._identity, self._table, session.stream.lag, session.stream.delay(), self.reconnect_count
        )
        session.write_heartbeat(self._table.names.consumer(self._identity.id), fields.items(), HEARTBEAT_TTL, now)


def _resource(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


def consumer_fields(
    identity: ConsumerIdentity, table: BusTable, lag: float, delay: float | None, reconnects: int
) -> dict[str, str]:
    counts = [book.counts() for book in list(table.by_symbol.values())]
    return reader_fields(
        ReaderRecord(
            client=identity.client_name,
            exchange=table.exchange,
            symbols=tuple(table.by_symbol),
            lag=lag,
            delay=delay,
            received=sum(count.received for count in counts),
            conflated=sum(count.conflated for count in counts),
            missed=sum(count.missed for count in counts),
            reconnects=reconnects,
            host=identity.host,
            pid=identity.pid,
            version=__version__,
        )
    )


def _report_stall(session: BusSession, since: float, now: float) -> None:
    session.stream.stalled(since, now)
    if now - since > _LONG_STALL:
        logger.warning("this process did not run for %.0f s", now - since)


def _receive_query(connection: BusConnection, session: BusSession, now: float) -> bool:
    try:
        return connection.read(session.receive, now)
    except ReplyTooLargeError as error:
        if session.reply_too_large():
            raise
        raise BusConnectionError(str(error)) from error


def _receive_stream(connection: BusConnection, session: BusSession, now: float) -> bool:
    """Apply what has arrived. Returns whether there is more."""
    try:
        for _ in range(_CHUNKS_AT_ONCE):
            if not connection.read(session.stream.receive, now):
                return False
    finally:
        session.stream.apply(now)
    return True
