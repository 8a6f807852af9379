"""How old a reader takes a book for while the clocks of servers and feeders jump, drift and disagree."""

from collections import deque
from typing import Any

import pytest

from bookbus.consumers.bus.books import BusTable
from bookbus.consumers.bus.connection import Command
from bookbus.consumers.bus.session import TICK, BusSession
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.reading import MAX_AGE, judge
from bookbus.schemas.heartbeat import FeederHeartbeat, encode_heartbeat
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import BookStatus
from bookbus.schemas.wire import encode
from tests.support.builders import book

NAMES = RedisNames()
KEY = NAMES.book("binance", "BTC-USDT").encode()
FEEDERS = NAMES.feeders.encode()
EPOCH = 1_700_000_000.0
STEP = 0.05
CONFIRM_INTERVAL = 2.0
HEARTBEAT_INTERVAL = 1.0
UNCERTAINTY = 0.5
"""Seconds by which a reader may take a book for younger than it is: the time between two looks at it."""

Stored = tuple[int, bytes, int]
"""seq, message and confirmed_us"""


class Machine:
    """A clock that may be set and drift."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.ahead = 0.0
        self.drift = 0.0

    @property
    def us(self) -> int:
        return round((EPOCH + self._world.now * (1 + self.drift) + self.ahead) * 1e6)


class World:
    """One book: a feeder, its server, perhaps a replica, and readers. Time passes in steps."""

    def __init__(self, *, quiet: bool = True) -> None:
        self.now = 1000.0
        self.feeder, self.primary, self.replica = Machine(self), Machine(self), Machine(self)
        self.feeder_alive = True
        self.quiet = quiet
        self.lag = 0.0
        self.link = b"connected"
        self.held_up = False
        self.log: list[tuple[float, Stored, list[bytes] | None]] = []
        """What the primary stored, when, and what it published then."""
        self.confirmed_at = 0.0
        self._seq = 10
        self._written_at = self._beat_at = 0.0
        self.readers: list[Reader] = []
        self.submit()

    def submit(self, *, again: bool = False) -> None:
        if again:
            seq, message, _ = self.log[-1][1]
        else:
            self._seq += 1
            seq = self._seq
            message = encode(book(seq=seq, update_id=seq, published_us=self.feeder.us))
        self._written_at = self.confirmed_at = self.now
        published = None if again else [b"message", KEY, message]
        self.log.append((self.now, (seq, message, self.primary.us), published))

    def heartbeat(self) -> None:
        beat = FeederHeartbeat(
            feeder="A",
            exchange="binance",
            endpoint="",
            states={"BTC-USDT": "live"},
            host="",
            pid=1,
            started_us=0,
            time_us=self.feeder.us,
        )
        self._beat_at = self.now
        self.log.append((self.now, self.log[-1][1], [b"message", FEEDERS, encode_heartbeat(beat)]))

    def read(self, *, of_replica: bool) -> "Reader":
        reader = Reader(self, of_replica=of_replica)
        self.readers.append(reader)
        return reader

    def pass_time(self, seconds: float) -> None:
        """Run everything for so long, and hold that no reader takes a book for younger than it is."""
        for _ in range(round(seconds / STEP)):
            self.now += STEP
            if self.feeder_alive and self.now - self._written_at >= (CONFIRM_INTERVAL if self.quiet else 2 * STEP):
                self.submit(again=self.quiet)
            if self.feeder_alive and self.now - self._beat_at >= HEARTBEAT_INTERVAL:
                self.heartbeat()
            for reader in self.readers:
                reader.step()
                if reader.status is BookStatus.LIVE:
                    assert self.now - self.confirmed_at_of(reader) <= MAX_AGE + UNCERTAINTY

    def confirmed_at_of(self, reader: "Reader") -> float:
        """When the book that a reader has was last confirmed."""
        newest = reader.table.book("BTC-USDT").newest
        assert newest is not None
        last = next(stored for _, stored, _ in reversed(self.log) if stored[0] == newest.seq)
        return min(at for at, stored, _ in self.log if stored == last)


class Reader:
    """A session with the primary or the replica, whose replies come at once."""

    def __init__(self, world: World, *, of_replica: bool) -> None:
        self.world = world
        self.of_replica = of_replica
        self.table = BusTable("binance", NAMES)
        self.clock = world.replica if of_replica else world.primary
        self._seen = 0
        """How much of the log its server has."""
        self._due = world.now
        self.connect()

    def connect(self, server: str = "server") -> None:
        self.table.clock.connected_to(server)
        self._messages: deque[Any] = deque()
        self._follow()
        self.session = BusSession(self.table, SymbolNames("binance"), ["BTC"], lambda *_: None, self.world.now)

    @property
    def status(self) -> BookStatus:
        return judge(self._observation(), MAX_AGE)[0]

    @property
    def reason(self) -> str:
        return judge(self._observation(), MAX_AGE)[1]

    def step(self) -> None:
        now = self.world.now
        self._follow()
        if now >= self._due:
            self._due = now + TICK
            self.session.tick(now)
        if now >= self.session.probe_at:
            self.session.probe(now)
        while (asked := self.session.stream.outgoing(now)) or self._messages:
            self._messages.extend(self._reply(command) for command in asked)
            self.session.stream.receive(lambda: self._messages.popleft() if self._messages else False, now)
            self.session.stream.apply(now)
        while asked := self.session.outgoing():
            replies = deque(self._reply(command) for command in asked)
            self.session.receive(lambda replies=replies: replies.popleft() if replies else False, now)  # type: ignore[misc]

    def _observation(self) -> Any:
        return self.table.observe(self.table.book("BTC-USDT"), self.world.now, "")

    def _follow(self) -> None:
        world = self.world
        if self.of_replica and (world.held_up or world.link != b"connected"):
            return
        until = world.now - (world.lag if self.of_replica else 0.0)
        while self._seen < len(world.log) and world.log[self._seen][0] <= until:
            if (published := world.log[self._seen][2]) is not None:
                self._messages.append(published)
            self._seen += 1

    def _reply(self, command: Command) -> Any:
        match command:
            case ("SUBSCRIBE", channel):
                return [b"subscribe", channel, 1]
            case ("PING", token):
                return [b"pong", token]
            case ("TIME",):
                return [b"%d" % (self.clock.us // 1_000_000), b"%d" % (self.clock.us % 1_000_000)]
            case ("ROLE",) if self.of_replica:
                return [b"slave", b"primary", 6379, self.world.link, self._seen]
            case ("ROLE",):
                return [b"master", 0, []]
            case ("SMEMBERS", _):
                return [KEY]
            case ("HMGET", _, *fields):
                seq, message, confirmed_us = self.world.log[self._seen - 1][1]
                known = {"seq": b"%d" % seq, "book": message}
                return [known.get(str(field), b"%d" % confirmed_us) for field in fields]
        raise AssertionError(command)


JUMPS = [-600.0, -30.0, -3.0, 3.0, 30.0, 600.0]


@pytest.mark.parametrize("jump", JUMPS)
def test_a_dead_feeders_book_stays_old_when_the_servers_clock_is_set(jump: float) -> None:
    world = World()
    reader = world.read(of_replica=False)
    world.pass_time(5)
    assert reader.status is BookStatus.LIVE

    world.feeder_alive = False
    world.pass_time(3)
    world.primary.ahead = jump
    world.pass_time(5)
    statuses = set()
    for _ in range(50):
        world.pass_time(0.5)
        statuses.add(reader.status)

    assert BookStatus.LIVE not in statuses
    assert reader.table.clock_jumps == 1


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("quiet", [True, False])
def test_a_living_feeders_book_stays_live_when_the_servers_clock_is_set(jump: float, quiet: bool) -> None:
    world = World(quiet=quiet)
    reader = world.read(of_replica=False)
    world.pass_time(10)

    world.primary.ahead = jump
    for _ in range(40):
        world.pass_time(0.25)
        assert reader.status is BookStatus.LIVE, reader.reason

    assert reader.table.clock_jumps == 1


def test_each_jump_is_counted_and_the_first_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    reader = world.read(of_replica=False)
    for ahead in (-600.0, 0.0, 5.0):
        world.pass_time(3)
        world.primary.ahead = ahead
    world.pass_time(3)

    assert reader.table.clock_jumps == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == ["the server's clock was set back by 600.0 s; books stay live as their confirmations are seen"]


@pytest.mark.parametrize("drift", [-0.0005, 0.0005])
def test_a_clock_that_drifts_is_followed_and_is_no_jump(drift: float) -> None:
    world = World()
    reader = world.read(of_replica=False)
    world.primary.drift = drift
    world.pass_time(2)
    jumps = reader.table.clock_jumps
    world.pass_time(120)
    assert reader.status is BookStatus.LIVE
    world.feeder_alive = False
    world.pass_time(MAX_AGE + 2)

    assert reader.status is not BookStatus.LIVE
    assert reader.table.clock_jumps == jumps


@pytest.mark.parametrize("jump", JUMPS)
@pytest.mark.parametrize("of_replica", [False, True])
def test_a_feeders_clock_does_not_make_a_dead_feeders_book_fresh(jump: float, of_replica: bool) -> None:
    world = World(quiet=False)
    reader = world.read(of_replica=of_replica)
    world.pass_time(5)
    world.feeder.ahead = jump
    world.pass_time(5)
    world.feeder_alive = False
    world.pass_time(MAX_AGE + 1)

    assert reader.status is not BookStatus.LIVE


@pytest.mark.parametrize("jump", JUMPS)
def test_a_feeders_clock_does_not_matter_on_a_primary(jump: float) -> None:
    world = World(quiet=False)
    reader = world.read(of_replica=False)
    world.pass_time(5)
    world.feeder.ahead = jump
    world.pass_time(5)

    assert reader.status is BookStatus.LIVE
    assert reader.table.clock_jumps == 0


@pytest.mark.parametrize("ahead", [-600.0, -4.0, 0.0, 600.0])
def test_a_late_reader_never_takes_a_dead_feeders_book_for_live(ahead: float) -> None:
    world = World()
    world.pass_time(5)
    world.feeder_alive = False
    world.primary.ahead = ahead

    reader = world.read(of_replica=False)
    for _ in range(60):
        world.pass_time(0.25)
        assert reader.status is not BookStatus.LIVE

    assert world.read(of_replica=False).status is not BookStatus.LIVE


@pytest.mark.parametrize("ahead", [-600.0, 0.0, 600.0])
@pytest.mark.parametrize("quiet", [True, False])
def test_a_late_reader_of_a_living_feeder_is_live_once_it_saw_a_confirmation(ahead: float, quiet: bool) -> None:
    world = World(quiet=quiet)
    world.pass_time(5)
    world.primary.ahead = ahead
    world.pass_time(2 * CONFIRM_INTERVAL)

    reader = world.read(of_replica=False)
    world.pass_time(2.5 if quiet else 0.5)

    assert reader.status is BookStatus.LIVE, reader.reason


def test_a_new_session_does_not_make_an_old_book_fresh() -> None:
    world = World()
    reader = world.read(of_replica=False)
    world.pass_time(5)
    world.feeder_alive = False
    world.pass_time(60)
    world.primary.ahead = -60.0

    for server in ("server", "other", "server"):
        reader.connect(server)
        world.pass_time(4)
        assert reader.status is not BookStatus.LIVE


@pytest.mark.parametrize("ahead", [-30.0, -20.0, 0.0, 30.0])
@pytest.mark.parametrize("quiet", [True, False])
def test_a_replica_that_falls_behind_is_noticed_whatever_its_clock_says(ahead: float, quiet: bool) -> None:
    world = World(quiet=quiet)
    world.replica.ahead = ahead
    reader = world.read(of_replica=True)
    world.pass_time(10)

    world.lag = 20.0
    world.pass_time(8)
    for _ in range(60):
        world.pass_time(0.5)
        assert reader.status is not BookStatus.LIVE


@pytest.mark.parametrize("quiet", [True, False])
def test_a_replica_that_always_lags_is_not_live_and_says_so(quiet: bool) -> None:
    world = World(quiet=quiet)
    world.lag = 20.0
    world.pass_time(25)
    reader = world.read(of_replica=True)
    for _ in range(60):
        world.pass_time(0.5)
        assert reader.status is not BookStatus.LIVE

    assert "behind its primary or with another time: check replication and clocks (NTP)" in reader.reason


@pytest.mark.parametrize("lag", [0.0, 0.2])
@pytest.mark.parametrize("ahead", [-600.0, 0.0, 1.0])
@pytest.mark.parametrize("quiet", [True, False])
def test_a_replica_that_keeps_up_is_live(lag: float, ahead: float, quiet: bool) -> None:
    world = World(quiet=quiet)
    world.lag, world.replica.ahead, world.feeder.ahead = lag, ahead, max(ahead, 0.0)
    world.pass_time(5)
    reader = world.read(of_replica=True)
    world.pass_time(3)
    for _ in range(60):
        world.pass_time(0.5)
        assert reader.status is BookStatus.LIVE, reader.reason


@pytest.mark.parametrize("held_up", [True, False])
@pytest.mark.parametrize("ahead", [-60.0, 0.0])
@pytest.mark.parametrize("quiet", [True, False])
def test_what_a_replica_gets_after_a_silence_is_as_old_as_the_silence(held_up: bool, ahead: float, quiet: bool) -> None:
    world = World(quiet=quiet)
    world.replica.ahead = ahead
    reader = world.read(of_replica=True)
    world.pass_time(10)
    if held_up:
        world.held_up = True
    else:
        world.link = b"connect"
    world.pass_time(20)
    world.feeder_alive = False
    world.pass_time(20)

    world.held_up, world.link = False, b"connected"
    for _ in range(60):
        world.pass_time(0.25)
        assert reader.status is not BookStatus.LIVE

    world.feeder_alive = True
    world.pass_time(10)
    assert reader.status is BookStatus.LIVE, reader.reason
