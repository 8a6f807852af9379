"""Several lines to the same symbols: who is silent, and what the end of one says of the books."""

import logging
import time
from collections.abc import Sequence

import pytest

from bookbus.feeders.books.arbitration import LineArbiter
from bookbus.feeders.books.book_set import BookSet
from bookbus.feeders.exchange_feed import ExchangeFeed, LineGroup, OnLost, line_reports
from bookbus.feeders.exchanges.adapter import FeedAdapter
from bookbus.feeders.exchanges.binance_protocol import BinanceProtocol
from bookbus.feeders.reconnect import ReconnectPolicy
from bookbus.feeders.stall_detector import StallDetector
from bookbus.feeders.venue import FeedOptions, venue_of
from bookbus.feeders.wall_clock import WallClock
from bookbus.schemas.heartbeat import LineReport
from tests.support.fake_venue import Collected, FakeVenue

SECOND = 2
"""Looks in a second."""


class World:
    """Lines without sockets; the test says what they bring and when somebody looks."""

    def __init__(self, lines: int = 2) -> None:
        told = Collected("BTCUSDT")
        self.book_set = told.book_set
        self.book_set.arbiter = LineArbiter(lines) if lines > 1 else None
        self.abandoned: list[tuple[int, str]] = []
        self.sent: list[str] = []
        world = self

        class Adapter(FeedAdapter):
            is_connected = False

            def abandon(self, reason: str) -> None:
                world.abandoned.append((self.slot, reason))

            def send_soon(self, texts: Sequence[str]) -> None:
                world.sent.extend(texts)

        def make(slot: int, on_lost: OnLost | None) -> FeedAdapter:
            stall = StallDetector(lambda _: None)
            return Adapter(FakeVenue(), told.feed, "ws://nowhere", stall, slot=slot, on_lost=on_lost)

        self.group = LineGroup(told.feed, lines, ReconnectPolicy(), make, WallClock())
        self.lines = [connection.line for connection in self.group.connections]
        self.now = 100.0
        self.update_id = 1
        self.group.look(self.now)

    def open(self, slot: int, ready_at: float = 1.0, last_frame: float = 2.0) -> None:
        line = self.lines[slot]
        type(line).is_connected = True  # type: ignore[method-assign, assignment]
        line.ready.set()
        line.ready_at, line.last_frame = ready_at, last_frame

    def pass_time(self, seconds: float, *bringing: int, late: bool = False) -> None:
        """Look twice a second, while these lines bring updates; `late` ones that came before."""
        arbiter = self.book_set.arbiter
        assert arbiter is not None
        for _ in range(round(seconds * SECOND)):
            self.now += 1 / SECOND
            self.update_id += not late
            for slot in bringing:
                arbiter.record("BTCUSDT", self.update_id, slot, 0)
            self.group.look(self.now)


def test_all_lines_share_the_books() -> None:
    world = World(3)

    assert [line.slot for line in world.lines] == [0, 1, 2]
    assert {id(line.feed) for line in world.lines} == {id(world.group.feed)}


def test_a_single_line_is_compared_with_none() -> None:
    world = World(1)

    assert BookSet(BinanceProtocol(["BTCUSDT"], FeedOptions())).arbiter is None
    assert line_reports([world.group]) == []


def test_a_line_that_brings_nothing_while_another_does_is_told_once_and_replaced(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()
    world.open(0)
    world.pass_time(3, 0)
    assert world.group.silent == [False, False]

    world.pass_time(1, 0)
    world.pass_time(20, 0)

    assert world.group.silent == [False, True]
    assert caplog.messages == ["binance: line 2 delivers nothing while another delivers updates"]
    assert [line.replace_wanted.is_set() for line in world.lines] == [False, True]


def test_a_silent_line_that_cannot_connect_is_told_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.group.connections[1].failure = "connection refused"

    world.pass_time(4, 0)

    assert caplog.messages == ["binance: line 2 delivers nothing while another delivers updates: connection refused"]
    assert not world.lines[1].replace_wanted.is_set()


def test_a_silent_line_that_brings_updates_again_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    world.pass_time(4, 1)
    caplog.clear()

    world.pass_time(4, 0, 1)

    assert world.group.silent == [False, False]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("INFO", "binance: line 1 delivers updates again")
    ]


def test_a_quiet_market_is_no_silence() -> None:
    world = World()
    for _ in range(5):
        world.pass_time(0.5, 0)
        world.pass_time(0.5, 1, late=True)
        world.pass_time(20)

    assert world.group.silent == [False, False]


def test_a_single_update_that_one_line_lacks_is_told_after_the_same_time() -> None:
    world = World()
    world.pass_time(0.5, 0)

    world.pass_time(3)

    assert world.group.silent == [False, True]


def test_a_process_that_stalled_draws_no_conclusion() -> None:
    world = World()
    world.pass_time(1, 0)
    world.now += 60

    world.pass_time(2, 0)

    assert world.group.silent == [False, False]


def test_the_end_of_a_line_leaves_the_books_to_one_that_was_open_while_it_lived() -> None:
    world = World()
    world.open(0, ready_at=1.0, last_frame=50.0)
    world.open(1, ready_at=49.0, last_frame=50.0)

    world.lines[0]._on_lost(world.lines[0])  # type: ignore[misc]

    assert world.abandoned == []


def test_books_do_not_live_on_by_a_line_that_opened_after_the_other_had_gone_silent() -> None:
    world = World()
    world.open(0, ready_at=1.0, last_frame=50.0)
    world.open(1, ready_at=51.0, last_frame=52.0)

    world.lines[0]._on_lost(world.lines[0])  # type: ignore[misc]

    assert [slot for slot, _ in world.abandoned] == [1]


def test_books_do_not_live_on_by_a_line_that_never_brought_one_of_them() -> None:
    world = World()
    now = time.monotonic()
    world.open(0, ready_at=now - 60, last_frame=now)
    world.open(1, ready_at=now - 50, last_frame=now)
    arbiter = world.book_set.arbiter
    assert arbiter is not None
    arbiter.record("BTCUSDT", 7, 0, time.time_ns() // 1000 - 20_000_000)

    world.lines[0]._on_lost(world.lines[0])  # type: ignore[misc]

    assert world.abandoned == [(1, "never delivered BTCUSDT as the other line did")]


@pytest.mark.parametrize("seconds_ago", [0.1, 55.0])
def test_an_update_on_its_way_or_from_before_a_line_opened_is_not_lacking(seconds_ago: float) -> None:
    world = World()
    now = time.monotonic()
    world.open(0, ready_at=now - 60, last_frame=now)
    world.open(1, ready_at=now - 50, last_frame=now)
    arbiter = world.book_set.arbiter
    assert arbiter is not None
    arbiter.record("BTCUSDT", 7, 0, time.time_ns() // 1000 - round(seconds_ago * 1e6))

    world.lines[0]._on_lost(world.lines[0])  # type: ignore[misc]

    assert world.abandoned == []


def test_a_line_that_remains_asks_at_once_for_books_that_went_with_the_other() -> None:
    world = World()
    world.open(0, last_frame=50.0)
    world.open(1, last_frame=50.0)

    world.lines[0]._on_lost(world.lines[0])  # type: ignore[misc]
    world.lines[1].check(50.5)

    assert world.book_set.asked == [["BTCUSDT"]]
    assert world.sent == ["subscribe"]


def test_after_a_stall_no_connection_goes_on_not_the_one_about_to_take_over_either() -> None:
    world = World()
    world.group.connections[0]._next = world.lines[0].successor()

    world.group.discard(7.0)

    assert [slot for slot, _ in world.abandoned] == [0, 0, 1]


def test_books_are_alive_only_by_a_line_that_brings_every_update() -> None:
    world = World()
    world.open(0, last_frame=50.0)
    world.open(1, last_frame=60.0)
    world.lines[1].ready.clear()

    assert world.group.last_sign_of_life == 50.0


@pytest.mark.parametrize("exchange", ["binance", "bybit", "upbit"])
def test_trades_alone_have_no_state_of_a_book(exchange: str) -> None:
    venue = venue_of(exchange)
    options = FeedOptions(venue.modes[0], topics=frozenset({"trades"}))

    feed = ExchangeFeed(venue, ["KRW-BTC" if exchange == "upbit" else "BTCUSDT"], lambda *_: None, options=options)

    assert feed.states() == {}


def test_reports_say_what_each_line_did() -> None:
    world = World()
    world.open(0)
    world.group.connections[1].reconnects = 2
    world.pass_time(5, 0)

    assert line_reports([world.group]) == [
        LineReport(line=1, connections=1, open=1, reconnects=0, updates=10, first=10),
        LineReport(line=2, connections=1, open=1, reconnects=2, updates=0, first=0, silent=True),
    ]


def test_a_line_does_not_stand_in_for_another_just_after_the_clock_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    for slot in (0, 1):
        world.open(slot)
    wall = time.time
    monkeypatch.setattr(time, "time", lambda: wall() - 600)

    world.group._lost(world.lines[0])

    assert [slot for slot, _ in world.abandoned] == [1]
    assert "clock was just set" in world.abandoned[0][1]
