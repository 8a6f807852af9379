"""Writes books and trades to Redis over one connection: many in one write, waiting for none."""

import asyncio
import contextlib
import logging
import re
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import hiredis

from bookbus.feeders.books.events import Topic
from bookbus.feeders.bus.connection import REPLY_TIMEOUT, RedisConnectionError, Reply, RespConnection
from bookbus.feeders.bus.outbox import Conflator, PublisherCounters, TradeQueue
from bookbus.feeders.bus.publish_script import (
    ACCEPTED,
    CONFIRMED,
    REFUSED,
    BookKey,
    Submission,
    load_command,
    script_sha,
)
from bookbus.feeders.bus.servers import RedisLink, ask_slots, check_certificates, locator
from bookbus.schemas.redis_cluster import SlotMap
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import HostPort, RedisServer, RedisUrl, parse_redis_url
from bookbus.schemas.trade import Trade

logger = logging.getLogger(__name__)

RECONNECT_KINDS = frozenset({"LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS", "NOAUTH"})
"""The server is not, or no longer, the one to write to: ask again who is."""

_ADVICE = {
    "READONLY": "is a read-only replica, and feeders write to its primary: name that with --redis",
    "MOVED": "it is one node of a cluster: name it like redis+cluster://host:port",
}

# Servers before Redis 7 put what a command inside a script answered behind a text of their own.
_INSIDE_SCRIPT = re.compile(r" -([A-Z]{3,}) ")


def error_kind(error: hiredis.ReplyError) -> str:
    """The error's first word (`OOM`, `WRONGTYPE`, …); `ERR` for those without one of their own."""
    text = str(error)
    kind = text.partition(" ")[0]
    if kind == "ERR" and (inside := _INSIDE_SCRIPT.search(text)):
        return inside[1]
    return kind if kind.isupper() else "ERR"


def explain(error: hiredis.ReplyError) -> str:
    """What people are told of an error: what to do about it where that is known, else the server's words."""
    return _ADVICE.get(error_kind(error), str(error))


class ErrorLog:
    """Counts errors by kind; warns of a kind once, until all is well again."""

    def __init__(self, masked: str) -> None:
        self.by_kind: Counter[str] = Counter()
        self._masked = masked
        self._told: set[str] = set()

    def add(self, name: str, error: hiredis.ReplyError) -> str:
        """Count the error that `name` met with. Returns its kind."""
        kind = error_kind(error)
        self.by_kind[kind] += 1
        if kind not in self._told:
            self._told.add(kind)
            logger.warning("%s refuses %s: %s", self._masked, name, explain(error))
        return kind

    def well(self) -> None:
        """Nothing fails any more."""
        if self._told:
            logger.warning("%s takes everything again (was: %s)", self._masked, ", ".join(sorted(self._told)))
            self._told.clear()


MAX_IN_FLIGHT = 4
"""Writes without an answer; from then on the conflator keeps the newest of each book."""

MAX_BATCH = 256
"""Books, and trades, in one write."""

TRADES_CAPACITY = 10_000
RETRY_INTERVAL = 1.0


@dataclass(slots=True)
class _Batch:
    """What one write held, in its order."""

    loads: bool
    books: list[tuple[BookKey, Submission]] = field(default_factory=list)
    trades: list[Trade] = field(default_factory=list)


class Publisher:
    """Submits the books of one feeder to the publish script.

    `on_connected` is called after every (re)connect, when the server may have lost its data: submit every book
    there. `before_write` is called before anything is written and may `discard()`. Raises ValueError for a bad URL.
    Of a node in a cluster, `on_moved` takes what the server says of a key that another node has now.
    """

    def __init__(
        self,
        url: str | RedisUrl | RedisServer,
        names: RedisNames,
        feeder_id: str,
        *,
        on_connected: Callable[[], None] | None = None,
        before_write: Callable[[], None] | None = None,
        on_moved: Callable[[str], None] | None = None,
        counters: PublisherCounters | None = None,
        reply_timeout: float = REPLY_TIMEOUT,
        retry_interval: float = RETRY_INTERVAL,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        address = parse_redis_url(url) if isinstance(url, str) else url
        self._link = RedisLink(
            locator(address), address.masked, self._connected, self._lost, reply_timeout=reply_timeout, sleep=sleep
        )
        self._names = names
        self._feeder_id = feeder_id
        self._on_connected = on_connected
        self._before_write = before_write
        self._on_moved = on_moved
        sharded = on_moved is not None
        self._sha = script_sha(sharded=sharded)
        self._load = load_command(sharded=sharded)
        self._retry_interval = retry_interval
        self._clock_us = clock_us

        self._keys: dict[tuple[str, str, str], BookKey] = {}
        self._unsent: Conflator[BookKey] = Conflator()
        self.counters = counters or PublisherCounters()
        self.errors = ErrorLog(address.masked)
        self._trades = TradeQueue(names, TRADES_CAPACITY, self.counters)
        self._in_flight: deque[_Batch] = deque()
        # Books whose last answer was an error, with what was refused.
        self._failing: dict[BookKey, Submission] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._must_load = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: RespConnection | None = None
        self._flush_due = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._taken = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a connection to the server is open."""
        return self._connection is not None

    @property
    def well(self) -> bool:
        """Whether there is a connection, and nothing that the server refuses."""
        return self._connection is not None and not self._failing

    def submit(self, submission: Submission) -> None:
        """Send it as soon as this turn of the loop ends, unless a newer one of the same book comes before."""
        key = self._key_of(submission)
        if submission.kind != "again":
            key.owes_new = False
        elif key.owes_new:
            submission = Submission("new", submission.topic, submission.book)
        key.newest, replaced = self._unsent.put(key, submission)
        if replaced:
            self.counters.conflated += 1
        self._schedule()

    async def submit_lossless(self, submission: Submission) -> None:
        """Send it without replacing an unsent one: wait until that one is on its way."""
        key = self._key_of(submission)
        while key in self._unsent:
            await self._next_write()
        self.submit(submission)

    def submit_trade(self, trade: Trade) -> None:
        """Add one trade to its stream."""
        self._trades.put(trade)
        self._schedule()

    async def submit_trade_lossless(self, trade: Trade) -> None:
        """Add one trade to its stream; wait for room instead of dropping the oldest that waits."""
        while self._trades.full:
            await self._next_write()
        self.submit_trade(trade)

    async def drain(self, timeout: float) -> bool:
        """Wait until everything submitted has been answered; whether that happened in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        return self._idle.is_set()

    def discard(self) -> None:
        """Forget every book that is not written yet: it may be old, and nothing of it may be told any more."""
        self._unsent.clear()
        self._failing.clear()
        for key in self._keys.values():
            key.newest = None
        if self._connection is not None and self._connection.unsent_bytes:
            self._connection.abort("left with unsent books that became old")
        self._settle()

    def evict(self, topic: Topic, exchange: str, symbol: str) -> Submission | None:
        """Forget a book that is another server's now. Returns what that one has to be told of it, if anything."""
        key = self._keys.pop((topic, exchange, symbol), None)
        if key is None or key.newest is None:
            return None
        newest, key.newest = key.newest, None
        waiting = (self._unsent.remove(key), self._failing.pop(key, None))
        written = (submission for batch in self._in_flight for owner, submission in batch.books if owner is key)
        kinds = {submission.kind for submission in (*waiting, *written) if submission is not None}
        self._settle()
        if newest.kind == "again" and (key.owes_new or "new" in kinds):
            return Submission("new", newest.topic, newest.book)
        # What only confirms speaks of its own moment.
        return newest if kinds - {"again"} and newest.kind != "again" else None

    def take_out_trades(self, exchange: str, symbol: str) -> list[Trade]:
        """The unsent trades of a symbol that are another server's now."""
        return self._trades.evict(exchange, symbol)

    async def run(self) -> None:
        """Keep connected, until cancelled; then leave once everything written is sent."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._link.run()
        finally:
            if self._retry is not None:
                self._retry.cancel()

    def _connected(self, connection: RespConnection) -> None:
        connection.on_writable = self._flush
        self._connection = connection
        self._must_load = True
        # They spoke of moments before this connection; who still stands behind a book says so again.
        self._unsent.drop_confirmations()
        if self._on_connected is not None:
            self._on_connected()
        self._schedule()

    def _lost(self) -> None:
        """What the connection left unanswered is unsent again."""
        self._connection = None
        for key, submission in self._failing.items():
            self._put_back(key, submission)
        for batch in self._in_flight:
            for key, submission in batch.books:
                self._put_back(key, submission)
        self._trades.requeue([trade for batch in self._in_flight for trade in batch.trades])
        self._in_flight.clear()

    async def _next_write(self) -> None:
        self._taken.clear()
        await self._taken.wait()

    def _key_of(self, submission: Submission) -> BookKey:
        book = submission.book
        place = (submission.topic, book.exchange, book.symbol)
        key = self._keys.get(place)
        if key is None:
            name_of = self._names.quote if submission.topic == "quote" else self._names.book
            key = self._keys[place] = BookKey(name_of(book.exchange, book.symbol), self._feeder_id, self._sha)
        return key

    def _schedule(self) -> None:
        self._idle.clear()
        if not self._flush_due and self._connection is not None and self._loop is not None:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._before_write is not None:
            self._before_write()
        connection = self._connection
        while (
            connection is not None
            and connection.writable
            and len(self._in_flight) < MAX_IN_FLIGHT
            and (self._unsent or self._trades or self._must_load)
        ):
            self._write_batch(connection)
        self._settle()

    def _write_batch(self, connection: RespConnection) -> None:
        batch = _Batch(self._must_load, self._unsent.take(MAX_BATCH), self._trades.take(MAX_BATCH))
        self._must_load = False
        clock_us = self._clock_us
        parts = [key.pack(submission, clock_us()) for key, submission in batch.books]
        parts += map(self._trades.pack, batch.trades)
        if batch.loads:
            parts.insert(0, self._load)
        data = b"".join(parts)
        self._in_flight.append(batch)
        self.counters.batches += 1
        self.counters.written_bytes += len(data)
        self._taken.set()
        connection.send(data, len(parts), self._on_replies)

    def _on_replies(self, replies: list[Reply]) -> None:
        if self._is_wrong_server(replies):
            return
        batch = self._in_flight.popleft()
        if batch.loads:
            load_reply, *replies = replies
            if isinstance(load_reply, hiredis.ReplyError):
                self._count_error("the publish script", load_reply)
        self._book_replies(batch, replies[: len(batch.books)])
        for name, error in self._trades.settle(batch.trades, replies[len(batch.books) :]):
            self._count_error(name, error)
        self._flush()

    def _book_replies(self, batch: _Batch, replies: list[Reply]) -> None:
        accepted, confirmed, refused = map(replies.count, (ACCEPTED, CONFIRMED, REFUSED))
        self.counters.accepted += accepted
        self.counters.confirmed += confirmed
        self.counters.duplicates += refused
        clean = accepted + confirmed + refused == len(replies)
        if not clean or self._failing:
            for (key, submission), reply in zip(batch.books, replies, strict=True):
                if isinstance(reply, hiredis.ReplyError):
                    self._book_refused(batch, key, submission, reply)
                else:
                    self._failing.pop(key, None)
        if clean and replies and not self._failing:
            self._link.well()
            self.errors.well()

    def _book_refused(self, batch: _Batch, key: BookKey, submission: Submission, error: hiredis.ReplyError) -> None:
        if str(error).startswith("NOSCRIPT"):
            self._must_load = True
            if not batch.loads:
                self._put_back(key, submission)
                return
        if self._on_moved is not None and error_kind(error) == "MOVED":
            if self._loop is not None:
                # Once the whole batch has been looked at.
                self._loop.call_soon(self._on_moved, str(error))
        else:
            self._count_error(key.name, error)
        if submission.kind == "new":
            key.owes_new = True
        # A confirmation speaks of its own moment: it is not repeated, the next one comes soon.
        if submission.kind == "again" or key.newest is None:
            return
        self._failing[key] = submission
        if self._retry is None and self._loop is not None:
            self._retry = self._loop.call_later(self._retry_interval, self._retry_failing)

    def _is_wrong_server(self, replies: list[Reply]) -> bool:
        """Whether it may not be written to now: leave it then, with the batch unanswered."""
        for reply in replies:
            if isinstance(reply, hiredis.ReplyError) and error_kind(reply) in RECONNECT_KINDS:
                self.counters.errors += 1
                self.errors.by_kind[error_kind(reply)] += 1
                if self._connection is not None:
                    self._connection.abort(explain(reply))
                return True
        return False

    def _count_error(self, name: str, error: hiredis.ReplyError) -> None:
        self.counters.errors += 1
        self.errors.add(name, error)

    def _retry_failing(self) -> None:
        self._retry = None
        for key, submission in self._failing.items():
            self._put_back(key, submission)
        self._schedule()

    def _put_back(self, key: BookKey, submission: Submission) -> None:
        if key.newest is submission:
            self._unsent.put(key, submission)
        elif submission.kind == "new":
            # A newer one is unsent or on its way, and must not be followed by this one; but if all it does is to
            # confirm, then the levels of this one are not on the server yet.
            key.owes_new = True

    def _settle(self) -> None:
        if not (self._unsent or self._trades or self._in_flight or self._failing):
            self._idle.set()


BookPlace = tuple[Topic, str, str]
"""Topic, exchange and symbol."""

_CALM = 5.0
_DOUBT = 0.2
"""Seconds from one look at the slots to the next, while all is well and while it is not."""


class ClusterPublisher:
    """One publisher for each node that has slots; the same from outside."""

    def __init__(
        self,
        url: str | RedisUrl,
        names: RedisNames,
        feeder_id: str,
        *,
        on_connected: Callable[[], None] | None = None,
        before_write: Callable[[], None] | None = None,
    ) -> None:
        self._url = parse_redis_url(url) if isinstance(url, str) else url
        check_certificates(self._url)
        self._names = names
        self._feeder_id = feeder_id
        self._on_connected = on_connected
        self._before_write = before_write
        self.counters = PublisherCounters()
        self._slots = SlotMap()
        self._nodes: dict[HostPort, Publisher] = {}
        self._tasks: dict[HostPort, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._books: dict[BookPlace, Publisher] = {}
        self._streams: dict[tuple[str, str], Publisher] = {}
        # What belongs to slots that nobody is known to have.
        self._unrouted: dict[BookPlace, Submission] = {}
        self._homeless_trades: deque[Trade] = deque(maxlen=TRADES_CAPACITY)
        self._look = asyncio.Event()
        self._housed = asyncio.Event()
        self._away = False
        self._moves: list[tuple[HostPort, str]] = []
        """What nodes said of slots that others have now, not followed yet."""

    @property
    def connected(self) -> bool:
        """Whether every node that has slots is connected."""
        return bool(self._nodes) and all(node.connected for node in self._nodes.values())

    @property
    def well(self) -> bool:
        """Whether every node that has slots is connected and refuses nothing."""
        return bool(self._nodes) and all(node.well for node in self._nodes.values())

    def submit(self, submission: Submission) -> None:
        """Send it as soon as this turn of the loop ends, unless a newer one of the same book comes before."""
        place = _place_of(submission)
        node = self._books.get(place) or self._house(place)
        if node is None:
            self._unrouted[place] = submission
        else:
            node.submit(submission)

    async def submit_lossless(self, submission: Submission) -> None:
        """Send it without replacing an unsent one: wait until that one is on its way."""
        place = _place_of(submission)
        while (node := self._books.get(place) or self._house(place)) is None and place in self._unrouted:
            await self._wait_housed()
        if node is None:
            self.submit(submission)
        else:
            await node.submit_lossless(submission)

    def submit_trade(self, trade: Trade) -> None:
        """Add one trade to its stream."""
        node = self._stream_node(trade)
        if node is not None:
            node.submit_trade(trade)
            return
        self.counters.trades_dropped += len(self._homeless_trades) == TRADES_CAPACITY
        self._homeless_trades.append(trade)

    async def submit_trade_lossless(self, trade: Trade) -> None:
        """Add one trade to its stream; wait for room instead of dropping the oldest that waits."""
        while (node := self._stream_node(trade)) is None:
            await self._wait_housed()
        await node.submit_trade_lossless(trade)

    async def drain(self, timeout: float) -> bool:
        """Wait until everything submitted has been answered; whether that happened in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._unrouted or self._homeless_trades:
                    await self._wait_housed()
                await asyncio.gather(*(node.drain(timeout) for node in self._nodes.values()))
                return True
        return False

    def discard(self) -> None:
        """Forget every book that is not written yet: it may be old, and nothing of it may be told any more."""
        self._unrouted.clear()
        for node in self._nodes.values():
            node.discard()

    async def run(self) -> None:
        """Keep connected to every node, until cancelled; then leave once everything written is sent."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:
                await self._refresh()
                calm = self._slots.places and all(node.well for node in self._nodes.values())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CALM if calm else _DOUBT):
                        await self._look.wait()
                self._look.clear()

    async def _refresh(self) -> None:
        try:
            slots = await ask_slots(self._url, self._nodes)
        except RedisConnectionError as error:
            if not self._away:
                logger.warning("%s; trying again until one does", error)
            self._away = True
            return
        if self._away:
            logger.warning("%s answers again", self._url.masked)
            self._away = False
        self._use(slots)

    def _use(self, slots: SlotMap) -> None:
        """Bring every book to the node that has its slot now."""
        self._slots, places = slots, slots.places
        for place in places - self._nodes.keys():
            self._open(place)
        for book, node in list(self._books.items()):
            owner = self._owner(self._names.of(*book))
            # Where it was is as good as anywhere until its slot has a node.
            if owner is not None and owner is not node:
                self._move(book, node, owner)
        for stream, node in list(self._streams.items()):
            owner = self._owner(self._names.trades(*stream))
            if owner is not None and owner is not node:
                self._streams[stream] = owner
                for trade in node.take_out_trades(*stream):
                    owner.submit_trade(trade)
        used = {*self._books.values(), *self._streams.values()}
        for place in [place for place, node in self._nodes.items() if place not in places and node not in used]:
            logger.warning("%s:%d has no slots of the cluster any more", *place)
            del self._nodes[place]
            self._tasks.pop(place).cancel()
        self._house_all()

    def _open(self, place: HostPort) -> None:
        node = self._nodes[place] = Publisher(
            self._url.server(place),
            self._names,
            self._feeder_id,
            on_connected=self._on_connected,
            before_write=self._before_write,
            on_moved=partial(self._moved, place),
            counters=self.counters,
        )
        if self._group is not None:
            self._tasks[place] = self._group.create_task(node.run())

    def _move(self, book: BookPlace, node: Publisher, owner: Publisher) -> None:
        self._books[book] = owner
        if (rest := node.evict(*book)) is not None:
            owner.submit(rest)

    def _moved(self, asked: HostPort, error: str) -> None:
        """A node said that another one has a slot now; the other nodes may not all know yet."""
        self._moves.append((asked, error))
        if len(self._moves) == 1:
            # It says so of each of its books, one by one: followed together once all of it was heard.
            asyncio.get_running_loop().call_soon(self._follow_moves)
        self._look.set()

    def _follow_moves(self) -> None:
        moves, self._moves = self._moves, []
        slots = self._slots
        for asked, error in moves:
            with contextlib.suppress(ValueError):
                slots = slots.moved(error, asked)
        self._use(slots)

    def _house_all(self) -> None:
        unrouted, self._unrouted = self._unrouted, {}
        for submission in unrouted.values():
            self.submit(submission)
        trades, self._homeless_trades = self._homeless_trades, deque(maxlen=TRADES_CAPACITY)
        for trade in trades:
            self.submit_trade(trade)
        self._housed.set()

    async def _wait_housed(self) -> None:
        self._housed.clear()
        await self._housed.wait()

    def _house(self, book: BookPlace) -> Publisher | None:
        node = self._owner(self._names.of(*book))
        if node is not None:
            self._books[book] = node
        return node

    def _stream_node(self, trade: Trade) -> Publisher | None:
        stream = trade.exchange, trade.symbol
        node = self._streams.get(stream)
        if node is None and (node := self._owner(self._names.trades(*stream))) is not None:
            self._streams[stream] = node
        return node

    def _owner(self, name: str) -> Publisher | None:
        place = self._slots.place(name.encode())
        return None if place is None else self._nodes.get(place)


def _place_of(submission: Submission) -> BookPlace:
    return submission.topic, submission.book.exchange, submission.book.symbol


def publisher_of(
    url: str,
    names: RedisNames,
    feeder_id: str,
    *,
    on_connected: Callable[[], None] | None = None,
    before_write: Callable[[], None] | None = None,
) -> Publisher | ClusterPublisher:
    """The publisher for the servers that this URL names. Raises ValueError for a bad URL."""
    address = parse_redis_url(url)
    kind = ClusterPublisher if address.kind == "cluster" else Publisher
    return kind(address, names, feeder_id, on_connected=on_connected, before_write=before_write)
