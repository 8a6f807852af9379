"""Whatever the order in which commands are handled and replies arrive, a reader ends with the server's books."""

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bookbus.consumers.bus.books import BusBook, BusTable
from bookbus.consumers.bus.connection import Command
from bookbus.consumers.bus.session import ANSWER_LIMIT, TICK, BusSession, SessionLostError
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.wire import HEAD, encode
from tests.support.builders import book

SYMBOLS = ("BTC-USDT", "ETH-USDT")
NAMES = RedisNames()
START = 1000.0
"""On the reader's clock, what START_US is on the server's."""
START_US = 1_700_000_000_000_000


class ModelServer:
    """As much of Redis as a session talks to: two connections, each in order, neither in step with the other."""

    def __init__(self) -> None:
        self.time_us = START_US
        self.hashes: dict[str, tuple[int, bytes, int]] = {}
        self.published_us: dict[bytes, int] = {}
        self.connect()

    def connect(self) -> None:
        self.channels: set[bytes] = set()
        self.asked: dict[str, deque[Command]] = {"stream": deque(), "query": deque()}
        self.replies: dict[str, deque[Any]] = {"stream": deque(), "query": deque()}

    def publish(self, symbol: str) -> None:
        stored = self.hashes.get(NAMES.book("binance", symbol))
        seq = stored[0] + 1 if stored else self.time_us
        message = encode(book(symbol, seq=seq, update_id=seq % 2**52))
        self.hashes[NAMES.book("binance", symbol)] = (seq, message, self.time_us)
        self.published_us[message] = self.time_us
        self.write_heartbeat(NAMES.book("binance", symbol).encode(), message)

    def write_heartbeat(self, channel: bytes, message: bytes) -> None:
        if channel in self.channels:
            self.replies["stream"].append([b"message", channel, message])

    def handle(self, connection: str) -> None:
        """Run the oldest command of a connection."""
        if not self.asked[connection]:
            return
        name, *arguments = self.asked[connection].popleft()
        replies = self.replies[connection]
        match name:
            case "SUBSCRIBE":
                for channel in arguments:
                    assert isinstance(channel, bytes)
                    self.channels.add(channel)
                    replies.append([b"subscribe", channel, len(self.channels)])
            case "PING":
                replies.append([b"pong", arguments[0]])
            case "TIME":
                replies.append([b"%d" % (self.time_us // 1_000_000), b"%d" % (self.time_us % 1_000_000)])
            case "ROLE":
                replies.append([b"master", 0, []])
            case "SMEMBERS":
                replies.append([name.encode() for name in self.hashes])
            case "HMGET":
                key, *fields = arguments
                assert isinstance(key, bytes)
                stored = self.hashes.get(key.decode())
                replies.append([self.field(stored, str(field)) for field in fields])

    def field(self, stored: tuple[int, bytes, int] | None, name: str) -> bytes | None:
        if stored is None:
            return None
        seq, message, at = stored
        return {"seq": b"%d" % seq, "book": message}.get(name, b"%d" % at)


class Reader:
    """A session against the model, and what must hold of it at any moment."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.server = ModelServer()
        self.now = START
        self.table = BusTable("binance", NAMES)
        self.names = SymbolNames("binance")
        self.first_seq: dict[str, int] = {}
        self.read_seq: dict[str, int] = {}
        self.connections = 0
        self.connect()

    def connect(self) -> None:
        self.connections += 1
        self.server.connect()
        self.session = BusSession(self.table, self.names, SYMBOLS, self.on_change, self.now)
        self.send()

    def on_change(self, symbol: str, count: int) -> None:
        newest = self.table.by_symbol[symbol].newest
        assert newest is not None
        self.first_seq.setdefault(symbol, newest.seq - count + 1)

    def send(self) -> None:
        self.server.asked["stream"].extend(self.session.stream.outgoing(self.now))
        self.server.asked["query"].extend(self.session.outgoing())

    def receive(self, connection: str, count: int) -> None:
        waiting = self.server.replies[connection]
        arrived = deque(waiting.popleft() for _ in range(min(count, len(waiting))))

        def gets() -> Any:
            return arrived.popleft() if arrived else False

        if connection == "stream":
            self.session.stream.receive(gets, self.now)
            self.session.stream.apply(self.now)
        else:
            self.session.receive(gets, self.now)
        self.send()

    def publish(self) -> None:
        self.server.publish(self.random.choice(SYMBOLS))

    def progress(self) -> None:
        """One of the two connections gets on a little, in one direction."""
        connection = self.random.choice(("stream", "query"))
        if self.random.random() < 0.5:
            self.server.handle(connection)
        else:
            self.receive(connection, self.random.randint(1, 4))

    def caught_up(self) -> None:
        """Everything that is under way arrives."""
        while any(self.server.asked.values()) or any(self.server.replies.values()):
            for connection in ("stream", "query"):
                self.server.handle(connection)
                self.receive(connection, 100)

    def pass_time(self) -> None:
        seconds = self.random.choice((0.01, 0.2, 1.0))
        self.now += seconds
        self.server.time_us += round(seconds * 1e6)

    def tick(self) -> None:
        try:
            self.session.tick(self.now)
        except SessionLostError:
            self.connect()
        self.send()

    def pass_a_second(self) -> None:
        self.pass_time()
        self.tick()

    def stand_still(self) -> None:
        """Be stopped for a while, in which others go on."""
        if self.server.asked["query"] or self.server.replies["query"]:
            return
        since = self.now
        for _ in range(self.random.randint(10, 60)):
            self.now += 1.0
            self.server.time_us += 1_000_000
            self.publish()
        self.session.stream.stalled(since, self.now)
        self.send()

    def believed_too_long(self, held: BusBook) -> float:
        """By how many seconds the time of its confirmation is later than that of its publication."""
        if held.newest is None:
            return 0.0
        published_at = START + (self.server.published_us[held.newest.data] - START_US) / 1e6
        return held.newest.confirmed_at - published_at

    def lose_data(self) -> None:
        self.pass_time()
        self.server.hashes.clear()

    def publish_foreign_bytes(self) -> None:
        data = self.random.choice((b"", b"foreign", b"\xc1" * 40, HEAD, HEAD + b"\xff" * 7))
        self.server.write_heartbeat(NAMES.book("binance", self.random.choice(SYMBOLS)).encode(), data)

    def publish_corrupted_book(self) -> None:
        seq = self.random.choice((0, START_US + self.random.randint(0, 10**7), 2**64 - 1))
        corrupted = HEAD + seq.to_bytes(8, "big") + b"corrupted"
        self.server.write_heartbeat(NAMES.book("binance", self.random.choice(SYMBOLS)).encode(), corrupted)

    def run(self, steps: int, weights: "dict[Step, int]") -> None:
        for step in self.random.choices(list(weights), list(weights.values()), k=steps):
            step(self)
            for held in self.table.by_symbol.values():
                self.read(held)

    def read(self, held: BusBook) -> int | None:
        """What is read never goes back, and is always a book of the symbol."""
        snapshot, _ = held.read()
        if snapshot is None:
            assert held.symbol not in self.read_seq
            return None
        assert snapshot.symbol == held.symbol
        assert snapshot.seq >= self.read_seq.get(held.symbol, 0)
        self.read_seq[held.symbol] = snapshot.seq
        return snapshot.seq

    def end(self, ticks: int = 1) -> None:
        """All arrives, and as many quiet seconds as the poll of quiet books needs pass."""
        self.caught_up()
        for _ in range(ticks):
            self.now += 2.5
            self.server.time_us += 2_500_000
            self.session.tick(self.now)
            self.send()
            self.caught_up()
        assert self.session.ready


Step = Callable[[Reader], None]
CALM: dict[Step, int] = {Reader.publish: 6, Reader.progress: 20, Reader.pass_time: 2, Reader.tick: 1, Reader.connect: 1}
HOSTILE: dict[Step, int] = {
    **CALM,
    Reader.lose_data: 1,
    Reader.publish_foreign_bytes: 2,
    Reader.publish_corrupted_book: 1,
}
STOPPING: dict[Step, int] = {
    Reader.publish: 6,
    Reader.progress: 30,
    Reader.pass_a_second: 1,
    Reader.stand_still: 1,
    Reader.connect: 1,
}
SCHEDULES = settings(max_examples=300, deadline=None)
Schedule = st.randoms(use_true_random=True)


@SCHEDULES
@given(Schedule)
def test_a_reader_ends_with_the_servers_books_and_knows_exactly_what_it_missed(random: Random) -> None:
    reader = Reader(random)

    reader.run(120, CALM)
    reader.end()

    for symbol, held in reader.table.by_symbol.items():
        stored = reader.server.hashes.get(NAMES.book("binance", symbol))
        assert reader.read(held) == (stored[0] if stored else None)
        if held.newest is not None:
            counts = held.counts()
            assert (counts.resets, counts.skipped) == (0, 0)
            assert counts.received + counts.missed == held.newest.seq - reader.first_seq[symbol] + 1


@SCHEDULES
@given(Schedule)
def test_neither_lost_data_nor_foreign_bytes_keep_a_reader_from_the_servers_books(random: Random) -> None:
    reader = Reader(random)

    reader.run(120, HOSTILE)
    reader.end(ticks=3)

    for symbol, held in reader.table.by_symbol.items():
        stored = reader.server.hashes.get(NAMES.book("binance", symbol))
        if stored is not None:
            assert reader.read(held) == stored[0]


@SCHEDULES
@given(Schedule)
def test_without_a_new_connection_nothing_is_missed(random: Random) -> None:
    reader = Reader(random)

    reader.run(120, {step: weight for step, weight in CALM.items() if step is not Reader.connect})
    reader.end()

    assume(reader.connections == 1)  # a tick after a long silence connects again
    assert [held.missed for held in reader.table.by_symbol.values()] == [0] * len(SYMBOLS)


@SCHEDULES
@given(Schedule)
def test_no_stall_makes_a_book_look_fresh(random: Random) -> None:
    reader = Reader(random)

    for step in random.choices(list(STOPPING), list(STOPPING.values()), k=120):
        step(reader)

        for held in reader.table.by_symbol.values():
            # No more than what the network may take before a connection counts as dead.
            assert reader.believed_too_long(held) <= ANSWER_LIMIT + 2 * TICK
