"""Writes books and trades to Redis: one connection a server, many commands in one write, waiting for no reply."""

import asyncio
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial

from bookbus.feeders.bus.connection import REPLY_TIMEOUT, Reply, ReplyError, RespConnection
from bookbus.feeders.bus.outbox import Outbox, PublisherCounters, TradeStream
from bookbus.feeders.bus.publish_script import (
    BookClaim,
    BookKey,
    Submission,
    load_command,
    load_trade_command,
)
from bookbus.feeders.bus.servers import RedisLink, router_of
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import HostPort, RedisAddress, RedisServer
from bookbus.schemas.trade import Trade

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 4
"""Writes without a reply; from then on the outbox keeps the newest of each book."""

RETRY_INTERVAL = 1.0

RECONNECT_KINDS = frozenset({"LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS", "NOAUTH"})
"""The server is not, or no longer, the one to write to: ask again which one is."""


class Publisher:
    """Submits the books of one feeder to the publish script, on the servers that `url` names.

    `on_connected` is called after every (re)connect, when the server may have lost its data: submit every book
    there. `before_write` is called before anything is written and may `discard()`; nothing is written while `may_write`
    returns False: call `schedule_flush` when it may again. Raises ValueError for a bad URL.
    """

    def __init__(
        self,
        url: str,
        names: RedisNames,
        feeder_id: str,
        *,
        claim: BookClaim | None = None,
        on_connected: Callable[[], None] = lambda: None,
        before_write: Callable[[], None] | None = None,
        may_write: Callable[[], bool] | None = None,
        reply_timeout: float = REPLY_TIMEOUT,
        retry_interval: float = RETRY_INTERVAL,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._router = router_of(url)
        self.counters = PublisherCounters()
        self.error_kinds: Counter[str] = Counter()
        """Error replies by their kind (`OOM`, `WRONGTYPE`, …)."""
        self._writers: dict[HostPort, ServerWriter] = {}
        self._outbox = Outbox(
            names,
            feeder_id,
            self.counters,
            self._writers,
            self._router.server_of,
            sharded=self._router.sharded,
            claim=claim,
            before_write=before_write,
            may_write=may_write,
        )
        self._make_writer = partial(
            ServerWriter,
            outbox=self._outbox,
            counters=self.counters,
            error_kinds=self.error_kinds,
            on_connected=on_connected,
            on_moved=self._moved if self._router.sharded else None,
            reply_timeout=reply_timeout,
            retry_interval=retry_interval,
            clock_us=clock_us,
            sleep=sleep,
        )
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[HostPort, asyncio.Task[None]] = {}
        # MOVED replies that are not followed yet, with the server that sent them.
        self._moves: list[tuple[HostPort, str]] = []
        self._open_servers()

        self.submit = self._outbox.submit
        self.submit_lossless = self._outbox.submit_lossless
        self.submit_trade = self._outbox.submit_trade
        self.submit_trade_lossless = self._outbox.submit_trade_lossless
        self.drain = self._outbox.drain
        self.discard = self._outbox.discard
        self.unaccepted = self._outbox.unaccepted
        self.schedule_flush = self._outbox.schedule_flush

    @property
    def connected(self) -> bool:
        return bool(self._writers) and all(writer.connected for writer in self._writers.values())

    @property
    def idle(self) -> bool:
        """Whether everything submitted has been answered."""
        return self._outbox.idle

    @property
    def healthy(self) -> bool:
        """Whether every server is connected and rejects nothing."""
        return bool(self._writers) and all(writer.healthy for writer in self._writers.values())

    async def run(self) -> None:
        """Stay connected, until cancelled; then close once everything written is sent."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._open_servers()
            await self._router.run(self._reroute, lambda: self.healthy)

    def _reroute(self) -> None:
        """Follow the router: connect to its servers, send each book to the server of its slot, leave old servers."""
        self._open_servers()
        self._outbox.reroute()
        for server in self._writers.keys() - self._router.servers - self._outbox.servers:
            logger.warning("%s serves no slot of the cluster any more", self._router.address(server).masked)
            del self._writers[server]
            self._tasks.pop(server).cancel()

    def _open_servers(self) -> None:
        for server in self._router.servers - self._writers.keys():
            self._writers[server] = self._make_writer(server, self._router.address(server))
        if self._group is not None:
            for server in self._writers.keys() - self._tasks.keys():
                self._tasks[server] = self._group.create_task(self._writers[server].run())

    def _moved(self, server: HostPort, reply: str) -> None:
        self._moves.append((server, reply))
        if len(self._moves) == 1:
            # One reply for each book: they are followed together, once the whole batch was read.
            asyncio.get_running_loop().call_soon(self._follow_moves)

    def _follow_moves(self) -> None:
        moves, self._moves = self._moves, []
        self._router.follow(moves)
        self._reroute()


@dataclass(slots=True)
class _Batch:
    """The content of one write, in its order."""

    loads: int
    """How many scripts it loads first."""
    books: list[tuple[BookKey, Submission]]
    trades: list[Trade]


class ServerWriter:
    """One server: writes what the outbox hands over, and applies the replies.

    `on_moved` is called with the server and its reply when a node of a cluster replies that another one serves a slot.
    """

    def __init__(
        self,
        server: HostPort,
        address: RedisAddress | RedisServer,
        *,
        outbox: Outbox,
        counters: PublisherCounters,
        error_kinds: Counter[str],
        on_connected: Callable[[], None],
        on_moved: Callable[[HostPort, str], None] | None,
        reply_timeout: float,
        retry_interval: float,
        clock_us: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._server = server
        self._outbox = outbox
        self._counters = counters
        self._errors = ErrorLog(address.masked, error_kinds)
        self._on_connected = on_connected
        self._on_moved = on_moved
        self._retry_interval = retry_interval
        self._clock_us = clock_us
        self._loads = load_command(sharded=on_moved is not None, database=outbox.database), load_trade_command()
        self._link = RedisLink(address, self._connected, self._lost, reply_timeout=reply_timeout, sleep=sleep)
        self._connection: RespConnection | None = None
        self._in_flight: deque[_Batch] = deque()
        # Books whose last reply was an error, with what was rejected.
        self._failing: dict[BookKey, Submission] = {}
        # Trades whose stream another node serves.
        self._moved_trades: list[Trade] = []
        self._retry: asyncio.TimerHandle | None = None
        self.must_load = False
        """Whether the next write has to load the script, even if it holds nothing else."""

    @property
    def connected(self) -> bool:
        return self._connection is not None

    @property
    def healthy(self) -> bool:
        """Whether the connection is open, and the server rejects nothing."""
        return self._connection is not None and not self._failing

    @property
    def has_room(self) -> bool:
        """Whether a write can be sent now."""
        return self._connection is not None and self._connection.writable and len(self._in_flight) < MAX_IN_FLIGHT

    @property
    def idle(self) -> bool:
        """Whether everything written has been answered and nothing waits to be retried."""
        return not (self._in_flight or self._failing or self._moved_trades)

    async def run(self) -> None:
        try:
            await self._link.run()
        finally:
            if self._retry is not None:
                self._retry.cancel()

    def write(self, books: list[tuple[BookKey, Submission]], trades: list[Trade]) -> None:
        """Send this in one write, and the script first if the server may not have it. Only while there is room."""
        loads = self._loads if self.must_load else ()
        batch = _Batch(len(loads), books, trades)
        self.must_load = False
        clock_us = self._clock_us
        parts = [key.pack(submission, clock_us()) for key, submission in books]
        parts += map(self._outbox.trades.pack, trades)
        parts[:0] = loads
        data = b"".join(parts)
        self._in_flight.append(batch)
        self._counters.batches += 1
        self._counters.written_bytes += len(data)
        if self._connection is not None:
            self._connection.send(data, len(parts), self._apply_replies)

    def requeue_moved(self, moved: Collection[str]) -> None:
        """Return to the outbox what was written or rejected under these names, which another server serves now."""
        self._requeue(self._in_flight, lambda target: target.name in moved)
        for key in [key for key in self._failing if key.name in moved]:
            del self._failing[key]

    def discard(self) -> None:
        """Retry no book; close the connection if books are unsent in its socket."""
        self._failing.clear()
        if self._connection is not None and self._connection.unsent_bytes:
            self._connection.abort("left with unsent books that became old")

    def _connected(self, connection: RespConnection) -> None:
        connection.on_writable = self._outbox.flush
        self._connection = connection
        self.must_load = True
        self._outbox.connected(self._server)
        self._on_connected()
        self._outbox.schedule_flush()

    def _lost(self) -> None:
        """Requeue what was written and not answered."""
        self._connection = None
        self._requeue(self._in_flight, self._is_here)
        self._in_flight.clear()

    def _is_here(self, target: BookKey | TradeStream) -> bool:
        """False once another server serves the name: then `requeue_moved` has returned it to the outbox."""
        return target.server == self._server

    def _requeue(self, batches: Iterable[_Batch], wanted: Callable[[BookKey | TradeStream], bool]) -> None:
        """Return to the outbox what these batches hold and what waits for its retry, of the names that are wanted."""
        outbox, stream_of = self._outbox, self._outbox.trades.stream_of
        for key, submission in [*self._failing.items(), *(book for batch in batches for book in batch.books)]:
            if wanted(key):
                outbox.requeue(key, submission)
        trades = [*self._moved_trades, *(trade for batch in batches for trade in batch.trades)]
        outbox.trades.requeue([trade for trade in trades if wanted(stream_of(trade))])
        self._moved_trades = [trade for trade in self._moved_trades if not wanted(stream_of(trade))]

    def _apply_replies(self, replies: list[Reply]) -> None:
        if self._is_wrong_server(replies):
            return
        batch = self._in_flight.popleft()
        if batch.loads:
            for reply in replies[: batch.loads]:
                if isinstance(reply, ReplyError):
                    self._count_error("the publish script", reply)
            replies = replies[batch.loads :]
        self._apply_book_replies(batch, replies[: len(batch.books)])
        if batch.trades:
            self._apply_trade_replies(batch, replies[len(batch.books) :])
        self._outbox.flush()

    def _is_wrong_server(self, replies: list[Reply]) -> bool:
        """Whether it may not be written to now: close the connection then, with the batch unanswered.

        So too when it has lost the script for trades: the next connection sends them again in their order.
        """
        batch = self._in_flight[0]
        if batch.trades and not batch.loads and any(map(_lacks_script, replies[len(batch.books) :])):
            if self._connection is not None:
                self._connection.abort("it has lost the script for trades")
            return True
        for error in [reply for reply in replies if isinstance(reply, ReplyError)]:
            if error_kind(error) in RECONNECT_KINDS:
                self._counters.errors += 1
                self._errors.by_kind[error_kind(error)] += 1
                if self._connection is not None:
                    self._connection.abort(explain(error))
                return True
        return False

    def _apply_book_replies(self, batch: _Batch, replies: list[Reply]) -> None:
        clean = self._outbox.count_replies(batch.books, replies)
        if not clean or self._failing:
            for (key, submission), reply in zip(batch.books, replies, strict=True):
                if isinstance(reply, ReplyError):
                    self._apply_error(batch, key, submission, reply)
                else:
                    self._failing.pop(key, None)
        if clean and replies and not self._failing:
            self._link.report_success()
            self._errors.healthy()

    def _apply_error(self, batch: _Batch, key: BookKey, submission: Submission, error: ReplyError) -> None:
        lacks_script = _lacks_script(error)
        if lacks_script:
            self.must_load = True
        if not self._is_here(key):
            return
        if lacks_script and not batch.loads:
            self._outbox.requeue(key, submission)
            return
        if not self._follows_move(error):
            self._count_error(key.name, error)
        if submission.kind == "new":
            key.owes_new = True
        # A confirmation holds for its own moment: it is not repeated, the feeder sends the next one soon.
        if submission.kind != "again" and key.newest is not None:
            self._failing[key] = submission
            self._retry_later()

    def _apply_trade_replies(self, batch: _Batch, replies: list[Reply]) -> None:
        trades, queue = batch.trades, self._outbox.trades
        if any(isinstance(reply, ReplyError) for reply in replies):
            answered = [pair for pair in zip(trades, replies, strict=True) if not self._keeps_moved(*pair)]
            trades, replies = [trade for trade, _ in answered], [reply for _, reply in answered]
        for name, error in queue.apply_replies(trades, replies):
            self._count_error(name, error)

    def _keeps_moved(self, trade: Trade, reply: Reply) -> bool:
        """Whether the trade belongs to another node now, and is kept until it can be sent there."""
        if not isinstance(reply, ReplyError) or not self._follows_move(reply):
            return False
        if self._is_here(self._outbox.trades.stream_of(trade)):
            self._moved_trades.append(trade)
            self._retry_later()
        return True

    def _follows_move(self, error: ReplyError) -> bool:
        """Whether another node serves the slot, which is then reported and no error."""
        if self._on_moved is None or error_kind(error) != "MOVED":
            return False
        self._on_moved(self._server, str(error))
        return True

    def _count_error(self, name: str, error: ReplyError) -> None:
        self._counters.errors += 1
        self._errors.add(name, error)

    def _retry_later(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(self._retry_interval, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        self._requeue((), self._is_here)
        self._outbox.schedule_flush()


class ErrorLog:
    """Counts the errors of one server by kind; warns once of each kind, until nothing fails any more."""

    def __init__(self, masked: str, by_kind: Counter[str] | None = None) -> None:
        """`by_kind` is where to count, for several servers together."""
        self.by_kind: Counter[str] = Counter() if by_kind is None else by_kind
        self._masked = masked
        self._reported: set[str] = set()

    def add(self, name: str, error: ReplyError) -> None:
        """Count the error reply to a command on the key `name`, and warn at the first of its kind."""
        kind = error_kind(error)
        self.by_kind[kind] += 1
        if kind not in self._reported:
            self._reported.add(kind)
            logger.warning("%s refuses %s: %s", self._masked, name, explain(error))

    def healthy(self) -> None:
        """Nothing fails any more."""
        if self._reported:
            logger.warning("%s takes everything again (was: %s)", self._masked, ", ".join(sorted(self._reported)))
            self._reported.clear()


_ADVICE = {
    "READONLY": "is a read-only replica, and feeders write to its primary: name that with --redis",
    "MOVED": "it is one node of a cluster: name it like redis+cluster://host:port",
}

# Before Redis 7, the error of a command inside a script stands in the text of another error.
_INSIDE_SCRIPT = re.compile(r" -([A-Z]{3,}) ")


def error_kind(error: ReplyError) -> str:
    """The error's first word (`OOM`, `WRONGTYPE`, …); `ERR` for those without one of their own."""
    text = str(error)
    kind = text.partition(" ")[0]
    if kind == "ERR" and (inside := _INSIDE_SCRIPT.search(text)):
        return inside[1]
    return kind if kind.isupper() else "ERR"


def _lacks_script(reply: Reply) -> bool:
    return isinstance(reply, ReplyError) and error_kind(reply) == "NOSCRIPT"


def explain(error: ReplyError) -> str:
    """What to do about an error where that is known, else the server's text."""
    return _ADVICE.get(error_kind(error), str(error))
