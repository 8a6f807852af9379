"""The thread that keeps the books of a bus current: sockets, time and connecting again around a session."""

import logging
import random
import selectors
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress

import hiredis

from bookbus.consumers.background_loop import BackgroundThread, boottime
from bookbus.consumers.bus.books import BusTable
from bookbus.consumers.bus.connection import BusConnectionError, BusLink, foreign, refused
from bookbus.consumers.bus.heartbeat import ConsumerIdentity, consumer_fields
from bookbus.consumers.bus.servers import BusServers
from bookbus.consumers.bus.session import TICK, BusSession, OnChange, SessionLostError
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.schemas.heartbeat import HEARTBEAT_TTL
from bookbus.schemas.redis_url import RedisServer

logger = logging.getLogger(__name__)

_FIRST_DELAY = 0.1
_LONGEST_DELAY = 1.0
_CHUNKS_AT_ONCE = 16
_WAKES = 64

_STANDSTILL = 0.25
"""Seconds beyond the time asked for after which a wait was none: this process was stopped, or starved."""

_LONG_STANDSTILL = 5.0


class BusReader:
    """Follows the bus from `start()` to `stop()`, each called once; connects again for as long as it takes."""

    def __init__(
        self,
        servers: BusServers,
        table: BusTable,
        symbols: SymbolNames,
        wanted: Sequence[str] | None,
        on_change: OnChange,
        *,
        part_of: ConsumerIdentity | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        """`part_of` is the reader of a cluster, of which this one follows a node and leaves the rest to it.

        `on_end` is called, by the thread, when there is nothing left for it to do.
        """
        self.ended = False
        self.lag = 0.0
        """Seconds an answer took, last time."""
        self.reconnect_count = 0
        self.trouble = "not connected"
        """Why there is no connection; empty while there is one."""
        self._servers = servers
        self._table = table
        self._symbols = symbols
        self._wanted = wanted
        self._on_change = on_change
        self._sharded = part_of is not None
        self._on_end = on_end
        self._identity = part_of or ConsumerIdentity()
        self._decided = threading.Event()
        self._was_ready = False
        # Each cause once: a server that is back and refuses the password is another trouble than one that is away.
        self._told: set[str] = set()
        self._stopping = False
        self._wake, self._woken = socket.socketpair()
        self._thread = BackgroundThread("bookbus-reader", self._run, self._interrupt)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.alive

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def wait_ready(self, timeout: float) -> None:
        """Return once every book was read or found absent. Raises BusConnectionError if that cannot be."""
        decided = self._decided.wait(timeout)
        if self._was_ready:
            return
        if self._stopping:
            raise BusConnectionError(f"stopped while connecting to {self._servers.masked}")
        if decided:
            raise BusConnectionError(self.trouble)
        raise BusConnectionError(f"{self._servers.masked} does not answer within {timeout:g} s")

    def stop(self) -> None:
        """End the thread, also in the middle of connecting."""
        self._thread.stop()

    def follow(self, symbols: Sequence[str]) -> None:
        """Follow these too; of a node only."""
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
            self._keep_following()
        finally:
            if not self.trouble:
                self.trouble = "stopped"
            self._table.feeders.lose(self._table)
            self._wake.close()
            self._woken.close()
            self.ended = True
            self._decided.set()
            self._on_end()

    def _keep_following(self) -> None:
        delay = _FIRST_DELAY
        while not self._stopping:
            try:
                self._follow(self._servers.find())
            except BusConnectionError as error:
                lost = str(error)
            else:
                return
            if not self.trouble and self._was_ready and not self._sharded:
                delay = _FIRST_DELAY
            if self._was_ready and not self._sharded and lost not in self._told:
                self._told.add(lost)
                logger.warning("%s; connecting again", lost)
            self.trouble = lost
            self._table.feeders.lose(self._table)
            if not self._was_ready or self._sharded:
                return
            self._pause(delay * random.uniform(0.5, 1.0))  # noqa: S311
            delay = min(delay * 2, _LONGEST_DELAY)

    def _pause(self, seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            selector.select(seconds)

    def _follow(self, server: RedisServer) -> None:
        """One session, until we are stopped. Raises BusConnectionError with what ends it earlier."""
        try:
            self._serve(server)
        except hiredis.ProtocolError as error:
            raise foreign(server, error) from error
        except TypeError as error:
            # How hiredis tells of a map with a key that can be none.
            if "unhashable" not in str(error):
                raise
            raise foreign(server, error) from error
        except SessionLostError as error:
            if self._sharded:
                raise BusConnectionError(f"{server.masked} answers: {error}") from error
            raise refused(server, str(error)) from error

    def _serve(self, server: RedisServer) -> None:
        name = self._identity.client_name
        with ExitStack() as stack:
            stream = stack.enter_context(closing(BusLink(server, name)))
            query = stack.enter_context(closing(BusLink(server, name)))
            selector = stack.enter_context(selectors.DefaultSelector())
            for link in (self._woken, stream, query):
                selector.register(link, selectors.EVENT_READ)
            now = boottime()
            unfit = self._servers.unfit if self._servers.may_move else None
            session = BusSession(
                self._table, self._symbols, self._wanted, self._on_change, now, unfit, sharded=self._sharded
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
                began, limit = now, 0 if unfinished else max(due - now, 0)
                events = selector.select(limit)
                now = boottime()
                if now - began - limit > _STANDSTILL:
                    _stood_still(session, began, now)
                readable = dict.fromkeys([*unfinished, *(key.fileobj for key, _ in events)])
                unfinished = [link for link in readable if link in receive and receive[link](now)]
                if self._woken in readable and not self._stopping:
                    self._woken.recv(_WAKES)
                    session.follow(self._wanted or (), now)
                if session.ready and self.trouble:
                    self._begin(server)
                if now >= due:
                    due = now + TICK
                    self._tick(session, now)
            if session.may_announce:
                query.send([("DEL", self._table.names.consumer(self._identity.id))])

    def _begin(self, server: RedisServer) -> None:
        """Every book is there."""
        if self._was_ready:
            self.reconnect_count += 1
            logger.info("connected to %s again", server.masked)
        self.trouble = ""
        self._told.clear()
        self._was_ready = True
        self._decided.set()

    def _tick(self, session: BusSession, now: float) -> None:
        session.tick(now)
        self.lag = session.stream.lag
        if not session.may_announce:
            return
        fields = consumer_fields(
            self._identity, self._table, session.stream.lag, session.stream.delay(), self.reconnect_count
        )
        session.announce(self._table.names.consumer(self._identity.id), fields.items(), HEARTBEAT_TTL, now)


def _stood_still(session: BusSession, since: float, now: float) -> None:
    session.stream.stalled(since, now)
    if now - since > _LONG_STANDSTILL:
        logger.warning("this process stood still for %.0f s", now - since)


def _receive_stream(link: BusLink, session: BusSession, now: float) -> bool:
    """Take what has arrived; whether there is more."""
    try:
        for _ in range(_CHUNKS_AT_ONCE):
            more = link.receive()
            if link.authenticated():
                session.stream.receive(link.gets, now)
            if not more:
                return False
    finally:
        session.stream.apply(now)
    return True


def _receive_query(link: BusLink, session: BusSession, now: float) -> bool:
    more = link.receive()
    if link.authenticated():
        session.receive(link.gets, now)
    return more
