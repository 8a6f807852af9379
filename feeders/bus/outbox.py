"""The unsent submissions of a feeder, for all servers: the newest submission of each book, and every trade."""

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Generic, Protocol, TypeVar

from bookbus.feeders.books.events import Topic
from bookbus.feeders.bus.connection import Reply, ReplyError
from bookbus.feeders.bus.publish_script import (
    ACCEPTED,
    CLAIMED,
    CONFIRMED,
    REFUSED,
    BookClaim,
    BookKey,
    Submission,
    TradeStreamKey,
    script_sha,
)
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import HostPort
from bookbus.schemas.trade import Trade

MAX_BATCH = 256
"""Books, and trades, in one write."""

TRADES_CAPACITY = 10_000
Key = TypeVar("Key")

ServerOf = Callable[[str], HostPort | None]
"""The server to write a Redis name to; None while that is not known."""


@dataclass(slots=True)
class PublisherCounters:
    """Counts since the start."""

    accepted: int = 0
    confirmed: int = 0
    duplicates: int = 0
    refused: int = 0
    """Submissions of books that a feeder with another claim owns."""
    conflated: int = 0
    errors: int = 0
    trades: int = 0
    trade_duplicates: int = 0
    trades_dropped: int = 0
    batches: int = 0
    written_bytes: int = 0


class Writer(Protocol):
    """The connection to one server, as the outbox uses it: see `publisher.ServerWriter`."""

    must_load: bool

    @property
    def has_room(self) -> bool: ...
    @property
    def idle(self) -> bool: ...
    def write(self, books: list[tuple[BookKey, Submission]], trades: list[Trade]) -> None: ...
    def requeue_moved(self, moved: set[str]) -> None: ...
    def discard(self) -> None: ...


class Outbox:
    """Takes what one feeder publishes, and hands it to the writers of the servers, grouped by server.

    Each name is routed once, by `server_of`, and again by `reroute`. `before_write` is called before anything is
    handed over and may `discard()`; nothing is handed over while `may_write` returns False.
    """

    def __init__(
        self,
        names: RedisNames,
        feeder_id: str,
        counters: PublisherCounters,
        writers: Mapping[HostPort, Writer],
        server_of: ServerOf,
        *,
        sharded: bool,
        claim: BookClaim | None = None,
        before_write: Callable[[], None] | None = None,
        may_write: Callable[[], bool] | None = None,
    ) -> None:
        """`writers` by server; it may grow and shrink."""
        self.database = names.database
        self._names = names
        self._feeder_id = feeder_id
        self._sha = script_sha(sharded=sharded, database=names.database)
        self._counters = counters
        self._writers = writers
        self._server_of = server_of
        self._sharded = sharded
        self._claim = claim or BookClaim()
        self._before_write = before_write
        self.unaccepted: dict[BookKey, Reply] = {}
        """The last reply for each book that was refused."""
        self._fallen: set[BookKey] = set()
        self._may_write = may_write
        self._keys: dict[tuple[Topic, str, str], BookKey] = {}
        self._books: Conflator[BookKey] = Conflator()
        self.trades = TradeQueue(names, TRADES_CAPACITY, counters, server_of)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flush_due = False
        self._taken = asyncio.Event()
        self._became_idle = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Whether everything submitted has been answered."""
        return not (self._books or self.trades) and all(writer.idle for writer in self._writers.values())

    @property
    def servers(self) -> set[HostPort | None]:
        return {target.server for target in self._targets}

    def submit(self, submission: Submission) -> None:
        """Send it as soon as this turn of the loop ends, unless a newer one of the same book comes before."""
        book = submission.book
        key = self._keys.get((submission.topic, book.exchange, book.symbol)) or self._add_key(submission)
        if submission.kind != "again":
            key.owes_new = False
        elif key.owes_new:
            submission = Submission("new", submission.topic, book)
        key.newest, replaced = self._books.put(key, submission)
        if replaced:
            self._counters.conflated += 1
        if not self._flush_due:
            self.schedule_flush()

    async def submit_lossless(self, submission: Submission) -> None:
        """Send it without replacing an unsent one: wait until that one is on its way."""
        place = submission.topic, submission.book.exchange, submission.book.symbol
        while (key := self._keys.get(place)) is not None and key in self._books:
            await _next(self._taken)
        self.submit(submission)

    def submit_trade(self, trade: Trade) -> None:
        self.trades.put(trade)
        self.schedule_flush()

    async def submit_trade_lossless(self, trade: Trade) -> None:
        """Add one trade to its stream; wait for room instead of dropping the oldest unsent one."""
        while self.trades.full:
            await _next(self._taken)
        self.submit_trade(trade)

    async def drain(self, timeout: float) -> bool:
        """Wait until everything submitted has been answered; whether that happened in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self.idle:
                    await _next(self._became_idle)
        return self.idle

    def discard(self) -> None:
        """Drop every book that is not written yet: it may be old. Trades stay."""
        self._books.clear()
        for key in self._keys.values():
            key.newest = None
            key.lost = True
        for writer in self._writers.values():
            writer.discard()
        self._wake_waiters()

    def schedule_flush(self) -> None:
        """Flush when this turn of the loop ends."""
        if not self._flush_due and self._loop is not None:
            self._flush_due = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hand to each writer what is for its server, as far as it has room."""
        self._flush_due = False
        if self._before_write is not None:
            self._before_write()
        if self._may_write is not None and not self._may_write():
            # A confirmation holds for its own moment.
            self._books.drop_confirmations()
            return
        for server, writer in self._writers.items():
            while writer.has_room and (self._books or self.trades or writer.must_load):
                books, trades = self._take(server)
                if not (books or trades or writer.must_load):
                    break
                writer.write(books, trades)
        self._wake_waiters()

    def connected(self, server: HostPort) -> None:
        """A connection to this server was opened: confirmations queued before are stale, feeders send new ones."""
        self._loop = asyncio.get_running_loop()
        self._books.drop_confirmations(lambda key: key.server == server)

    def requeue(self, key: BookKey, submission: Submission) -> None:
        """Return what was written and not accepted, unless a newer submission has replaced it."""
        if key.newest is submission:
            self._books.put(key, submission)
        elif submission.kind == "new":
            # The newer one must not be followed by this one; but if it only confirms, these levels are still missing
            # on the server.
            key.owes_new = True

    def count_replies(self, books: Sequence[tuple[BookKey, Submission]], replies: Sequence[Reply]) -> bool:
        """Count the results of `books`. Returns whether none of them is an error."""
        counters = self._counters
        accepted, confirmed, refused, claimed = map(replies.count, (ACCEPTED, CONFIRMED, REFUSED, CLAIMED))
        counters.accepted += accepted
        counters.confirmed += confirmed
        counters.duplicates += refused
        counters.refused += claimed
        if refused or claimed or self.unaccepted or self._fallen:
            for (key, submission), reply in zip(books, replies, strict=True):
                if submission.kind == "state":
                    if submission.book.state == "closed":
                        self.unaccepted.pop(key, None)
                elif reply in (REFUSED, CLAIMED):
                    self.unaccepted[key] = reply
                elif reply in (ACCEPTED, CONFIRMED):
                    self.unaccepted.pop(key, None)
                    if key in self._fallen and submission.book.update_id < key.highest:
                        # The server has the new ids: from now on they rise from here.
                        key.highest = submission.book.update_id
                        self._fallen.discard(key)
        return accepted + confirmed + refused + claimed == len(replies)

    def reroute(self) -> None:
        """Route every name again. What a moved name's old server may not have accepted is queued for the new one."""
        moved: dict[HostPort, set[str]] = defaultdict(set)
        for target in self._targets:
            server = self._server_of(target.name)
            # A name stays where it was until its slot has a server.
            if server is not None and server != target.server:
                if target.server is not None:
                    moved[target.server].add(target.name)
                target.server = server
        for old, names in moved.items():
            self._writers[old].requeue_moved(names)
            for key in self._keys.values():
                if key.name in names and key.owes_new and key.newest is not None and key.newest.kind == "again":
                    self.submit(key.newest)  # as `new`
            # An unsent confirmation may be stale, as after a new connection.
            self._books.drop_confirmations(lambda key: key.name in names)  # noqa: B023
        self.schedule_flush()

    @property
    def _targets(self) -> "list[BookKey | TradeStream]":
        return [*self._keys.values(), *self.trades.streams]

    def _take(self, server: HostPort) -> tuple[list[tuple[BookKey, Submission]], list[Trade]]:
        if not self._sharded:
            return self._books.take(MAX_BATCH), self.trades.take(MAX_BATCH)
        return (
            self._books.take(MAX_BATCH, lambda key: key.server == server),
            self.trades.take(MAX_BATCH, lambda stream: stream.server == server),
        )

    def _add_key(self, submission: Submission) -> BookKey:
        topic, exchange, symbol = submission.topic, submission.book.exchange, submission.book.symbol
        key = BookKey(
            self._names.of(topic, exchange, symbol),
            self._feeder_id,
            self._sha,
            topic=topic,
            symbol=symbol,
            claim=self._claim,
            fallen=self._fallen,
        )
        key.server = self._server_of(key.name)
        self._keys[topic, exchange, symbol] = key
        return key

    def _wake_waiters(self) -> None:
        self._taken.set()
        if self.idle:
            self._became_idle.set()


async def _next(event: asyncio.Event) -> None:
    """Wait for the next time that it is set."""
    event.clear()
    await event.wait()


class Conflator(Generic[Key]):
    """Holds one submission a key, the newest; the key that waits longest is taken first.

    If ids restart, the loss of the book is sent before the next book, which would be refused otherwise.
    """

    def __init__(self) -> None:
        self._unsent: dict[Key, Submission] = {}
        self._losses: dict[Key, Submission] = {}

    def __len__(self) -> int:
        return len(self._unsent)

    def __contains__(self, key: Key) -> bool:
        return key in self._unsent

    def put(self, key: Key, submission: Submission) -> tuple[Submission, bool]:
        """Hold `submission`. Returns what is held now, and whether it replaced an unsent one."""
        unsent = self._unsent.get(key)
        if unsent is not None and unsent.kind == "new" and submission.kind == "again":
            # Levels that were never sent cannot be confirmed.
            submission = Submission("new", submission.topic, submission.book)
        self._unsent[key] = submission
        if unsent is not None and unsent.kind == "state" and submission.book.update_id < unsent.book.update_id:
            self._losses[key] = unsent
            return submission, False
        return submission, unsent is not None

    def take(self, limit: int, ready: Callable[[Key], bool] | None = None) -> list[tuple[Key, Submission]]:
        """Remove and return the submissions of up to `limit` keys, of those that are `ready`."""
        unsent = self._unsent
        if ready is None and len(unsent) <= limit:
            self._unsent = {}
            taken = list(unsent.items())
        else:
            items = unsent.items() if ready is None else (item for item in unsent.items() if ready(item[0]))
            taken = list(islice(items, limit))
            for key, _ in taken:
                del unsent[key]
        return self._after_losses(taken) if self._losses else taken

    def drop_confirmations(self, of: Callable[[Key], bool] = lambda _: True) -> int:
        """Remove every `again` of these keys. Returns how many."""
        old = [key for key, submission in self._unsent.items() if submission.kind == "again" and of(key)]
        for key in old:
            del self._unsent[key]
        return len(old)

    def clear(self) -> None:
        self._unsent.clear()
        self._losses.clear()

    def _after_losses(self, taken: list[tuple[Key, Submission]]) -> list[tuple[Key, Submission]]:
        losses = [(key, self._losses.pop(key)) for key, _ in taken if key in self._losses]
        return losses + taken


class TradeStream:
    """The unsent trades of one symbol."""

    __slots__ = ("name", "pack", "server", "unsent")

    def __init__(self, key: TradeStreamKey, server: HostPort | None) -> None:
        self.name = key.name
        self.pack = key.pack
        self.server = server
        self.unsent: deque[Trade] = deque()


class TradeQueue:
    """Holds up to `capacity` trades; one that does not fit replaces the oldest. All are counted."""

    def __init__(self, names: RedisNames, capacity: int, counters: PublisherCounters, server_of: ServerOf) -> None:
        self._names = names
        self._capacity = capacity
        self._counters = counters
        self._server_of = server_of
        self._streams: dict[tuple[str, str], TradeStream] = {}
        # The streams with unsent trades; the one that waits longest for its turn first.
        self._waiting: dict[TradeStream, None] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def full(self) -> bool:
        """Whether the next trade replaces the oldest."""
        return self._length >= self._capacity

    @property
    def streams(self) -> Sequence[TradeStream]:
        return list(self._streams.values())

    def stream_of(self, trade: Trade) -> TradeStream:
        stream = self._streams.get((trade.exchange, trade.symbol))
        if stream is None:
            key = TradeStreamKey(self._names, trade.exchange, trade.symbol)
            stream = self._streams[trade.exchange, trade.symbol] = TradeStream(key, self._server_of(key.name))
        return stream

    def put(self, trade: Trade) -> None:
        if self.full:
            self._drop_oldest()
        stream = self.stream_of(trade)
        stream.unsent.append(trade)
        self._waiting[stream] = None
        self._length += 1

    def take(self, limit: int, ready: Callable[[TradeStream], bool] | None = None) -> list[Trade]:
        """Remove and return up to `limit` trades of the streams that are `ready`, each stream's oldest first."""
        taken: list[Trade] = []
        for stream in [stream for stream in self._waiting if ready is None or ready(stream)]:
            room = limit - len(taken)
            if not room:
                break
            # To the end: a busy stream does not hold up the others.
            del self._waiting[stream]
            taken += [stream.unsent.popleft() for _ in range(min(room, len(stream.unsent)))]
            if stream.unsent:
                self._waiting[stream] = None
        self._length -= len(taken)
        return taken

    def requeue(self, trades: Sequence[Trade]) -> None:
        """Return what was taken and not added. The server recognises what it has already."""
        room = self._capacity - self._length
        kept = trades[len(trades) - min(room, len(trades)) :]
        self._counters.trades_dropped += len(trades) - len(kept)
        for trade in reversed(kept):
            stream = self.stream_of(trade)
            stream.unsent.appendleft(trade)
            self._waiting[stream] = None
        self._length += len(kept)

    def pack(self, trade: Trade) -> bytes:
        """The command for the server."""
        return self.stream_of(trade).pack(trade)

    def apply_replies(self, trades: Sequence[Trade], replies: Sequence[object]) -> Iterator[tuple[str, ReplyError]]:
        """Count the results of `trades`. Yields each error with the name of the stream; that trade is dropped."""
        for trade, reply in zip(trades, replies, strict=True):
            if isinstance(reply, ReplyError):
                self._counters.trades_dropped += 1
                yield self.stream_of(trade).name, reply
            elif reply == REFUSED:
                # Another feeder was first, or it was sent again after a lost connection.
                self._counters.trade_duplicates += 1
            else:
                self._counters.trades += 1

    def _drop_oldest(self) -> None:
        stream = min(self._waiting, key=lambda stream: stream.unsent[0].received_us)
        stream.unsent.popleft()
        if not stream.unsent:
            del self._waiting[stream]
        self._length -= 1
        self._counters.trades_dropped += 1
