"""Which snapshot request goes out when, and what becomes of its answer."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import bookbus.feeders.snapshot_fetcher
from bookbus.feeders.books.events import SnapshotNeeded
from bookbus.feeders.errors import RestBlockedError, RestError, RestRefusedError, WebSocketProtocolError
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.snapshot_fetcher import SnapshotFetcher
from tests.support.fake_venue import Collected, FakeVenue, updated
from tests.support.waiting import await_for


class Clock:
    """Monotonic time that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        return 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(bookbus.feeders.snapshot_fetcher, "time", clock)
    return clock


class World:
    """A fetcher at work for one feed of a venue whose answers the test gives."""

    def __init__(self, parallel: int) -> None:
        self.venue = FakeVenue()
        self.kept: list[tuple[str, bytes]] = []
        rest = RestClient(self.venue.rest_url, WeightBudget(6000))
        self.fetcher = SnapshotFetcher(
            self.venue.snapshots, rest, lambda url, body: self.kept.append((url, body)), parallel
        )
        self.told = Collected()
        self.feed = self.told.feed
        self.wakes = 0

    def ask(self, native: str, *, urgent: bool = True) -> None:
        self.fetcher.ask(SnapshotNeeded(native, 100, urgent), self.feed)

    async def asked(self, *natives: str) -> None:
        """Wait until exactly these requests are on their way."""
        await await_for(lambda: self.venue.running == list(natives), what=f"requests for {natives}")

    async def wake(self) -> None:
        """Have it look for what is due by now."""
        self.wakes += 1
        self.ask(f"WAKE{self.wakes}")
        await await_for(lambda: f"WAKE{self.wakes}" in self.venue.running, what="the fetcher to wake")
        self.venue.answer(f"WAKE{self.wakes}")
        await self.settle()

    async def settle(self) -> None:
        """Let everything happen that can happen now."""
        for _ in range(10):
            await asyncio.sleep(0)

    @property
    def taken(self) -> list[str]:
        """Symbols whose answers reached the protocol."""
        return [native for native, _, _ in self.told.book_set.taken]


@asynccontextmanager
async def running(parallel: int = 4) -> AsyncIterator[World]:
    world = World(parallel)
    task = asyncio.create_task(world.fetcher.run())
    try:
        yield world
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_an_answer_reaches_the_protocol_and_the_recording() -> None:
    async with running() as world:
        world.told.book_set.answers.append([updated(update_id=7)])
        world.ask("BTCUSDT")
        assert world.fetcher.is_pending("BTCUSDT")
        await world.asked("BTCUSDT")

        world.venue.answer("BTCUSDT", b"levels")
        await await_for(lambda: world.told.published == [(7, "live")])

        assert world.told.book_set.taken == [("BTCUSDT", 100, b"levels")]
        assert world.kept == [("http://venue/BTCUSDT", b"levels")]
        assert not world.fetcher.is_pending("BTCUSDT")


async def test_urgent_requests_go_first() -> None:
    async with running(parallel=2) as world:
        world.ask("AUSDT", urgent=False)
        world.ask("BUSDT", urgent=False)
        world.ask("CUSDT")

        await world.asked("CUSDT")
        world.venue.answer("CUSDT")
        await world.asked("AUSDT")


async def test_so_many_requests_run_at_once_and_no_more() -> None:
    async with running(parallel=2) as world:
        for native in ("AUSDT", "BUSDT", "CUSDT"):
            world.ask(native)
        await world.asked("AUSDT", "BUSDT")
        await world.settle()
        assert world.venue.running == ["AUSDT", "BUSDT"]

        world.venue.answer("BUSDT")

        await world.asked("AUSDT", "CUSDT")


async def test_background_requests_take_half_the_places() -> None:
    async with running(parallel=4) as world:
        for native in ("AUSDT", "BUSDT", "CUSDT"):
            world.ask(native, urgent=False)
        await world.asked("AUSDT", "BUSDT")
        await world.settle()
        assert world.venue.running == ["AUSDT", "BUSDT"]

        world.ask("DUSDT")
        world.ask("EUSDT")

        await world.asked("AUSDT", "BUSDT", "DUSDT", "EUSDT")


async def test_a_background_request_does_not_take_the_place_of_an_urgent_one(clock: Clock) -> None:
    async with running() as world:
        world.ask("BTCUSDT")
        world.ask("BTCUSDT", urgent=False)
        await world.asked("BTCUSDT")

        assert [need.urgent for need, _ in world.venue.requests] == [True]


async def test_an_urgent_request_does_not_wait_behind_a_background_one_of_its_symbol(clock: Clock) -> None:
    async with running() as world:
        world.ask("BTCUSDT", urgent=False)
        await world.asked("BTCUSDT")
        world.ask("BTCUSDT")
        clock.now += 1.0
        await world.wake()

        assert [need.urgent for need, _ in world.venue.requests if need.native == "BTCUSDT"] == [False, True]
        assert world.venue.requests[0][1].cancelled()
        world.venue.answer("BTCUSDT", b"levels")
        await await_for(lambda: ("BTCUSDT", 100, b"levels") in world.told.book_set.taken)
        assert not world.fetcher.is_pending("BTCUSDT")


async def test_the_protocol_is_told_when_a_request_leaves() -> None:
    async with running(parallel=1) as world:
        world.ask("AUSDT")
        world.ask("BUSDT")
        await world.asked("AUSDT")
        assert world.told.book_set.expected == ["AUSDT"]

        world.venue.answer("AUSDT")
        await world.asked("BUSDT")
        assert world.told.book_set.expected == ["AUSDT", "BUSDT"]


async def test_asking_while_a_request_is_under_way_asks_once_more_only_if_urgent(clock: Clock) -> None:
    async with running() as world:
        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")
        world.ask("BTCUSDT", urgent=False)
        world.venue.answer("BTCUSDT")
        await world.settle()

        assert len(world.venue.requests) == 1
        assert not world.fetcher.is_pending("BTCUSDT")


async def test_repetitions_are_paced_and_the_pace_recovers(clock: Clock) -> None:
    async with running() as world:
        for wait in (0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0):
            world.ask("BTCUSDT")
            if wait:
                clock.now += wait - 0.05
                await world.wake()
                assert world.venue.running == []
                clock.now += 0.1
                await world.wake()
            await world.asked("BTCUSDT")
            world.venue.answer("BTCUSDT")
            await await_for(lambda: not world.fetcher.is_pending("BTCUSDT"))

        clock.now += 3.5
        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")


async def test_a_background_request_is_no_reason_for_the_next_urgent_one_to_wait(clock: Clock) -> None:
    async with running() as world:
        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")
        world.venue.answer("BTCUSDT")
        await world.settle()
        clock.now += 3.1
        world.ask("BTCUSDT", urgent=False)
        await world.asked("BTCUSDT")
        world.venue.answer("BTCUSDT")
        await world.settle()

        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")


async def test_asking_again_for_what_still_waits_does_not_put_it_off(clock: Clock) -> None:
    async with running() as world:
        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")
        world.venue.answer("BTCUSDT")
        await await_for(lambda: not world.fetcher.is_pending("BTCUSDT"))

        world.ask("BTCUSDT")
        clock.now += 0.15
        world.ask("BTCUSDT")
        clock.now += 0.1
        await world.wake()

        await world.asked("BTCUSDT")


async def test_an_urgent_request_does_not_inherit_the_turn_of_a_background_one(clock: Clock) -> None:
    async with running() as world:
        for _ in range(4):
            world.ask("BTCUSDT", urgent=False)
            clock.now += 1.0
            await world.wake()
            await world.asked("BTCUSDT")
            world.venue.answer("BTCUSDT")
            await world.settle()
        world.ask("BTCUSDT", urgent=False)
        assert world.venue.running == []

        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")


async def test_a_failed_request_is_repeated_and_the_feed_is_told_not_to_wait(clock: Clock) -> None:
    async with running() as world:
        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")
        assert world.fetcher.answers_soon("BTCUSDT")

        world.venue.fail("BTCUSDT", RestError("HTTP 503"))
        await await_for(lambda: world.fetcher.failures == 1)

        assert world.fetcher.is_pending("BTCUSDT")
        assert not world.fetcher.answers_soon("BTCUSDT")
        clock.now += 1.0
        await world.wake()
        await world.asked("BTCUSDT")
        world.venue.answer("BTCUSDT")
        await await_for(lambda: "BTCUSDT" in world.taken)
        world.ask("BTCUSDT")
        assert world.fetcher.answers_soon("BTCUSDT")


async def test_an_answer_that_makes_no_sense_is_asked_for_again(clock: Clock) -> None:
    async with running() as world:
        world.told.book_set.answers.append(WebSocketProtocolError("no depth"))
        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")

        world.venue.answer("BTCUSDT", b"<html>")
        await await_for(lambda: world.fetcher.failures == 1)

        assert world.fetcher.is_pending("BTCUSDT")


async def test_a_refused_request_is_told_once_and_repeated_rarely_while_the_others_go_on(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with running() as world:
        world.ask("BTCUSDT")
        world.ask("ETHUSDT")
        await world.asked("BTCUSDT", "ETHUSDT")

        world.venue.fail("BTCUSDT", RestRefusedError("HTTP 400: Invalid symbol."))
        world.venue.answer("ETHUSDT")
        await await_for(lambda: world.taken == ["ETHUSDT"])
        assert world.fetcher.is_pending("BTCUSDT")
        assert not world.fetcher.answers_soon("BTCUSDT")
        clock.now += 59.0
        await world.wake()
        assert world.venue.running == []

        clock.now += 2.0
        await world.wake()
        await world.asked("BTCUSDT")
        world.venue.fail("BTCUSDT", RestRefusedError("HTTP 400: Invalid symbol."))
        await await_for(lambda: world.venue.running == [])
        await world.settle()

        assert caplog.text.count("BTCUSDT has no snapshot, asking every 60 s: HTTP 400: Invalid symbol.") == 1


async def test_nothing_more_is_asked_for_a_dropped_symbol(clock: Clock) -> None:
    async with running() as world:
        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")
        world.venue.fail("BTCUSDT", RestRefusedError("HTTP 400: Invalid symbol."))
        await await_for(lambda: world.fetcher.failures == 1)

        world.feed.drop("BTCUSDT")
        clock.now += 61.0
        await world.wake()

        assert not world.fetcher.is_pending("BTCUSDT")
        assert world.venue.running == []


async def test_a_block_stops_everything_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with running(parallel=2) as world:
        for native in ("AUSDT", "BUSDT", "CUSDT"):
            world.ask(native)
        await world.asked("AUSDT", "BUSDT")

        world.venue.fail("AUSDT", RestBlockedError("HTTP 451"))
        world.venue.fail("BUSDT", RestBlockedError("HTTP 451"))
        await await_for(lambda: world.venue.running == [])
        await world.settle()
        world.ask("DUSDT")
        await world.settle()

        assert world.fetcher.blocked == "HTTP 451"
        assert len(world.venue.requests) == 2
        assert not any(map(world.fetcher.is_pending, ("AUSDT", "BUSDT", "CUSDT", "DUSDT")))
        assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == ["HTTP 451"]


async def test_an_answer_from_before_a_lost_connection_is_asked_for_again(clock: Clock) -> None:
    async with running() as world:
        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")

        world.feed.line_down(0, "reset", 1)
        world.venue.answer("BTCUSDT", b"old")
        await await_for(lambda: world.venue.running == [])
        await world.settle()
        clock.now += 1.0
        await world.wake()
        await world.asked("BTCUSDT")
        world.venue.answer("BTCUSDT", b"new")
        await await_for(lambda: "BTCUSDT" in world.taken)

        assert ("BTCUSDT", 100, b"new") in world.told.book_set.taken
        assert ("BTCUSDT", 100, b"old") not in world.told.book_set.taken


async def test_an_answer_from_before_a_stall_is_asked_for_again(clock: Clock) -> None:
    """The connections of that time are ended, but their end is told a little later."""
    async with running() as world:
        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")

        world.feed.forget()
        world.venue.answer("BTCUSDT", b"old")
        await await_for(lambda: world.venue.running == [])
        await world.settle()

        assert world.taken == []
        assert world.fetcher.is_pending("BTCUSDT")


async def test_the_end_of_one_of_two_lines_makes_no_answer_obsolete() -> None:
    async with running() as world:
        world.feed.line_up(0)
        world.feed.line_up(1)
        world.ask("BTCUSDT")
        await world.asked("BTCUSDT")

        world.feed.line_down(0, "reset", 1)
        world.venue.answer("BTCUSDT", b"whole")
        await world.settle()

        assert world.told.book_set.taken == [("BTCUSDT", 100, b"whole")]
        assert not world.fetcher.is_pending("BTCUSDT")


async def test_a_bug_in_a_request_ends_the_fetcher() -> None:
    world = World(parallel=4)
    task = asyncio.create_task(world.fetcher.run())
    world.ask("BTCUSDT")
    await world.asked("BTCUSDT")

    world.venue.fail("BTCUSDT", KeyError("a bug"))

    with pytest.raises(ExceptionGroup) as raised:
        await asyncio.wait_for(task, 5)
    assert raised.group_contains(KeyError)


@pytest.mark.parametrize("turns", range(5))
async def test_it_ends_when_cancelled_just_as_something_is_asked_for(turns: int) -> None:
    world = World(parallel=4)
    task = asyncio.create_task(world.fetcher.run())
    world.ask("ETHUSDT")
    await world.asked("ETHUSDT")
    world.venue.answer("ETHUSDT")
    await world.settle()
    world.ask("ETHUSDT")  # not due yet: it now waits with a limit
    await world.settle()

    world.ask("BTCUSDT")
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()

    await asyncio.wait([task], timeout=5)
    assert task.cancelled()
