"""Calls in pull mode that run at once: one waits or applies its replies while a signal handler makes another."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.bus import poller as poller_module
from bookbus.consumers.bus.books import CONFIRMATION_WAIT, BusTable, ServerClock
from bookbus.consumers.bus.connection import BusConnectionError, Command
from bookbus.consumers.bus.poller import BusPoller
from bookbus.consumers.bus.servers import ServerLocator
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.reading import MAX_AGE, Observation, judge
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import RedisServer
from bookbus.schemas.snapshot import BookStatus
from bookbus.schemas.wire import encode
from tests.support.builders import book

EPOCH = 1_700_000_000.0
LOCATOR = ServerLocator("redis://here:6379/0")
SYMBOLS = ["BTC-USDT"]


def server_us() -> int:
    return round((EPOCH + boottime()) * 1e6)


class Server:
    """One book; its connections run `on_asked` between their question and the reply to it."""

    def __init__(self) -> None:
        self.seq = 1
        self.confirmed_us = server_us()
        self.role: list[object] = [b"master", 0, []]
        self.open = 0
        self.made = 0
        self.lost = False
        self.on_asked: list[Callable[[], object]] = []
        self.on_replied: list[Callable[[], object]] = []

    def confirm(self) -> None:
        self.confirmed_us = max(server_us(), self.confirmed_us + 1)

    def update(self) -> None:
        self.seq += 1
        self.confirm()

    def reply(self, command: Command) -> object:
        if command[0] == "TIME":
            return [b"%d" % part for part in divmod(server_us(), 1_000_000)]
        if command[0] == "ROLE":
            return self.role
        if command[0] == "HGET":
            return b"%d" % server_us()
        times = b"%d" % self.confirmed_us
        return [encode(book(seq=self.seq, update_id=self.seq)), times, times, None]


class Connection:
    def __init__(self, world: Server, server: RedisServer) -> None:
        self._world = world
        self.server = server
        self._open = True
        world.open += 1
        world.made += 1

    def ask(self, commands: Sequence[Command], _: float) -> list[Any]:
        if self._world.on_asked:
            self._world.on_asked.pop()()
        if self._world.lost:
            raise BusConnectionError("lost")
        replies = [self._world.reply(command) for command in commands]
        if self._world.on_replied:
            self._world.on_replied.pop()()
        return replies

    def close(self) -> None:
        self._world.open -= self._open
        self._open = False


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(poller_module, "BusConnection", lambda where, *_: Connection(server, where))
    return server


@pytest.fixture
def table() -> BusTable:
    return BusTable("binance", RedisNames())


@pytest.fixture
def poller(server: Server, table: BusTable) -> Iterator[BusPoller]:
    poller = BusPoller(LOCATOR, table, SymbolNames("binance"))
    yield poller
    poller.stop()
    assert server.open == 0


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """What happens in the pauses of a call that waits, the last one first; without more, time passes."""
    planned: list[Callable[[], object]] = []
    pause = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: planned.pop()() if planned else pause(seconds))
    return planned


def status_of(observation: Observation) -> tuple[BookStatus, int]:
    assert observation.snapshot is not None
    return judge(observation, MAX_AGE)[0], observation.snapshot.seq


def test_a_call_between_two_looks_of_one_that_waits_sees_the_confirmation_with_it(
    server: Server, poller: BusPoller, pauses: list[Callable[[], object]]
) -> None:
    between: list[Observation] = []
    # The one in between finds the value that was read before, waits as well, and sees another.
    pauses += [server.confirm, lambda: between.extend(poller.observe(SYMBOLS))]

    (seen,) = poller.observe(SYMBOLS)

    assert status_of(seen) == status_of(between[0]) == (BookStatus.LIVE, 1)
    assert seen.snapshot is between[0].snapshot
    assert pauses == []


def test_a_call_that_waits_ends_when_the_poller_is_stopped(
    server: Server, poller: BusPoller, pauses: list[Callable[[], object]]
) -> None:
    pauses.append(poller.stop)
    began = time.monotonic()

    (unseen,) = poller.observe(SYMBOLS)

    assert status_of(unseen) == (BookStatus.STALE, 1)
    assert time.monotonic() - began < CONFIRMATION_WAIT


@pytest.mark.parametrize("moment", ["measure", "role"])
def test_a_call_that_interrupts_one_which_applies_its_replies_has_its_own(
    server: Server,
    table: BusTable,
    poller: BusPoller,
    pauses: list[Callable[[], object]],
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    pauses.append(server.confirm)
    poller.observe(SYMBOLS)
    inner: list[Observation] = []
    original = getattr(ServerClock, moment)

    def interrupted(clock: ServerClock, *arguments: Any) -> None:
        monkeypatch.setattr(ServerClock, moment, original)
        server.update()
        inner.extend(poller.observe(SYMBOLS))
        original(clock, *arguments)

    monkeypatch.setattr(ServerClock, moment, interrupted)
    (outer,) = poller.observe(SYMBOLS)
    (after,) = poller.observe(SYMBOLS)

    assert status_of(inner[0]) == (BookStatus.LIVE, 2)
    assert status_of(outer) == (BookStatus.LIVE, 1)
    assert status_of(after) == (BookStatus.LIVE, 2)
    assert table.clock_jumps == 0


def test_a_call_that_interrupts_the_first_one_waits_for_a_confirmation_of_its_own(
    server: Server, poller: BusPoller, pauses: list[Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    inner: list[Observation] = []
    original = ServerClock.measure

    def interrupted(clock: ServerClock, *arguments: Any) -> None:
        monkeypatch.setattr(ServerClock, "measure", original)
        pauses.append(server.confirm)
        inner.extend(poller.observe(SYMBOLS))
        pauses.append(server.confirm)
        original(clock, *arguments)

    monkeypatch.setattr(ServerClock, "measure", interrupted)
    (outer,) = poller.observe(SYMBOLS)

    assert status_of(inner[0]) == status_of(outer) == (BookStatus.LIVE, 1)
    assert pauses == []


def test_replies_that_come_late_change_no_newer_book(
    server: Server, poller: BusPoller, pauses: list[Callable[[], object]]
) -> None:
    pauses.append(server.confirm)
    poller.observe(SYMBOLS)
    newer: list[Observation] = []

    def read_newer() -> None:
        server.update()
        newer.extend(poller.observe(SYMBOLS))

    server.on_replied.append(read_newer)
    (late,) = poller.observe(SYMBOLS)

    assert status_of(newer[0])[1] == 2
    assert status_of(late)[1] == 2, "an older book after a newer one"


def test_replies_of_a_server_that_other_calls_left_are_those_of_their_call_alone(
    server: Server, table: BusTable, poller: BusPoller, pauses: list[Callable[[], object]]
) -> None:
    pauses.append(server.confirm)
    poller.observe(SYMBOLS)
    inner: list[Observation] = []

    def lose() -> None:
        server.lost = True
        inner.extend(poller.observe(SYMBOLS))
        server.lost = False

    server.on_replied.append(lose)
    server.update()
    (outer,) = poller.observe(SYMBOLS)

    assert inner[0].error == "lost"
    assert status_of(outer) == (BookStatus.LIVE, 2)
    kept = table.by_symbol["BTC-USDT"].newest
    assert kept is not None
    assert kept.seq == 1
    assert status_of(poller.observe(SYMBOLS)[0]) == (BookStatus.LIVE, 2)


def test_calls_one_after_the_other_use_one_connection(
    server: Server, poller: BusPoller, pauses: list[Callable[[], object]]
) -> None:
    pauses.append(server.confirm)

    for _ in range(5):
        server.confirm()
        poller.observe(SYMBOLS)

    assert (server.made, server.open) == (1, 1)
