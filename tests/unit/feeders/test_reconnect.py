"""The loop that opens exchange connections again, and the next one before the current one ends."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import bookbus.feeders.reconnect
from bookbus.feeders.errors import (
    GaveUpError,
    WebSocketConnectionError,
    WebSocketTimeoutError,
    WebSocketUnavailableError,
)
from bookbus.feeders.reconnect import ReconnectingConnection, ReconnectPolicy
from tests.support.waiting import await_for

LIMIT = 5.0


@pytest.mark.parametrize(
    ("failures", "full"), [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0), (6, 30.0), (7, 30.0), (100_000, 30.0)]
)
def test_the_delay_doubles_up_to_its_maximum(failures: int, full: float) -> None:
    assert ReconnectPolicy().delay(failures, chance=1.0) == full


def test_chance_spreads_the_delay_over_its_upper_half() -> None:
    policy = ReconnectPolicy(initial=8.0)

    assert [policy.delay(1, chance) for chance in (0.0, 0.5, 0.99)] == pytest.approx([4.0, 6.0, 7.96])


class World:
    """Every fake line a connection opens, in order, and every delay it waited."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.happened: list[str] = []
        self.slept: list[float] = []
        self.refusals: list[str | WebSocketUnavailableError] = []
        self.connection: ReconnectingConnection[Line] = ReconnectingConnection(
            Line(self), ReconnectPolicy(), self.sleep, chance=lambda: 1.0
        )
        self.task: asyncio.Task[None] | None = None

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    def start(self, policy: ReconnectPolicy | None = None) -> "asyncio.Task[None]":
        self.connection.policy = policy or ReconnectPolicy(initial=0.01)
        self.task = asyncio.create_task(self.connection.run())
        return self.task

    async def reads(self, number: int) -> "Line":
        """Wait until the line with this number is open and read from."""
        await await_for(lambda: len(self.lines) > number and self.lines[number].reading, what=f"line {number}")
        return self.lines[number]

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        await asyncio.wait((self.task,), timeout=LIMIT)
        assert self.task.done()


class Line:
    """A connection to nothing: the test says when it is ready and how it ends."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.number = len(world.lines)
        world.lines.append(self)
        self.replace_wanted = asyncio.Event()
        self.ready = asyncio.Event()
        self.has_valid_data = False
        self.connects = 0
        self.end: asyncio.Future[None] | None = None

    @property
    def reading(self) -> bool:
        return self.end is not None

    async def connect(self) -> None:
        self.connects += 1
        self.has_valid_data = False
        if self.world.refusals:
            refusal = self.world.refusals.pop(0)
            raise WebSocketConnectionError(refusal) if isinstance(refusal, str) else refusal
        self.world.happened.append(f"open {self.number}")

    async def subscribe(self) -> None: ...

    async def receive_loop(self) -> None:
        self.end = asyncio.get_running_loop().create_future()
        try:
            await self.end
        finally:
            self.end = None
            self.world.happened.append(f"left {self.number}")

    async def close(self) -> None: ...

    def successor(self) -> "Line":
        return Line(self.world)

    def lose(self, error: Exception | None = None) -> None:
        assert self.end is not None
        self.end.set_exception(error or WebSocketConnectionError("reset"))


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(bookbus.feeders.reconnect, "HANDOVER_GRACE", 0.0)
    world = World()
    yield world
    if world.task is not None:
        await world.stop()


async def test_failures_in_a_row_are_waited_out_ever_longer(world: World) -> None:
    world.refusals = list("abcdef")
    world.start(ReconnectPolicy())

    await world.reads(0)

    assert world.slept == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert (world.connection.reconnects, world.connection.failure) == (6, "f")


async def test_an_outage_does_not_lengthen_the_delay_for_a_while(world: World) -> None:
    nobody = WebSocketUnavailableError("refused")
    world.refusals = [nobody, nobody, "busy", "busy", nobody, nobody, nobody]
    world.start(ReconnectPolicy(steady=3))

    await world.reads(0)

    assert world.slept == [1.0, 1.0, 1.0, 2.0, 2.0, 4.0, 8.0]


async def test_after_valid_data_the_next_outage_is_tried_steadily_again(world: World) -> None:
    nobody = WebSocketUnavailableError("refused")
    world.refusals = [nobody, nobody]
    world.start(ReconnectPolicy(steady=1))
    line = await world.reads(0)
    line.has_valid_data = True
    world.refusals = [nobody, nobody]

    line.lose()
    await await_for(lambda: line.connects == 6)

    assert world.slept == [1.0, 1.0, 1.0, 1.0, 2.0]


async def test_valid_data_resets_the_delay_and_a_handshake_does_not(world: World) -> None:
    world.start(ReconnectPolicy())

    for valid in (False, False, True, False):
        line = await world.reads(0)
        line.has_valid_data = valid
        opened = line.connects
        line.lose(WebSocketTimeoutError("silence"))
        await await_for(lambda opened=opened: world.lines[0].connects > opened)  # type: ignore[misc]

    assert world.slept == [1.0, 2.0, 1.0, 2.0]


async def test_a_limit_of_failures_in_a_row_gives_up(world: World) -> None:
    world.refusals = list("abcdefgh")

    with pytest.raises(GaveUpError, match="gave up after 3 attempts in a row: d"):
        await asyncio.wait_for(world.start(ReconnectPolicy(max_attempts=3)), LIMIT)

    assert world.slept == [1.0, 2.0, 4.0]


async def test_a_bug_ends_the_loop_as_it_is(world: World) -> None:
    task = world.start()
    (await world.reads(0)).lose(KeyError("a bug"))

    with pytest.raises(KeyError, match="a bug"):
        await asyncio.wait_for(task, LIMIT)
    assert world.slept == []


async def test_a_change_over_opens_the_next_line_before_it_leaves_the_current_one(world: World) -> None:
    world.start()
    first = await world.reads(0)

    first.replace_wanted.set()
    second = await world.reads(1)
    assert first.reading
    assert world.connection.line is first
    second.ready.set()
    await await_for(lambda: not first.reading)

    assert world.happened == ["open 0", "open 1", "left 0"]
    assert (world.connection.line, world.connection.handovers, world.connection.reconnects) == (second, 1, 0)
    assert second.reading


async def test_both_lines_of_a_change_over_are_known_and_their_end_opens_one_again(world: World) -> None:
    world.start()
    first = await world.reads(0)
    first.replace_wanted.set()
    second = await world.reads(1)
    assert list(world.connection.lines) == [first, second]

    second.lose()
    first.lose()
    await await_for(lambda: first.connects == 2, what="the line to be opened again")

    assert list(world.connection.lines) == [first]
    assert world.connection.handovers == 0


async def test_connections_that_share_a_turn_change_over_one_after_the_other(world: World) -> None:
    other = World()
    other.connection.turn = world.connection.turn
    world.start()
    other.start()
    for each in (world, other):
        (await each.reads(0)).replace_wanted.set()
    second = await world.reads(1)
    assert len(other.lines) == 1

    second.ready.set()
    (await other.reads(1)).ready.set()
    await await_for(lambda: other.connection.handovers == 1, what="the other change over")

    assert world.connection.handovers == 1
    await other.stop()


async def test_a_line_that_is_lost_while_it_waits_for_its_turn_is_opened_again_at_once(world: World) -> None:
    async with world.connection.turn:
        world.start()
        first = await world.reads(0)
        first.replace_wanted.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert len(world.lines) == 1

        first.lose()
        await await_for(lambda: first.connects == 2, what="the line to be opened again")

    await world.reads(0)
    assert not world.connection.turn.locked()


async def test_a_next_line_that_does_not_become_ready_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookbus.feeders.reconnect, "READY_LIMIT", 0.01)
    world.start()
    first = await world.reads(0)

    first.replace_wanted.set()
    await await_for(lambda: len(world.lines) > 1 and "left 1" in world.happened, what="the next line to be given up")

    assert first.reading
    assert world.connection.line is first
    await world.reads(2)


async def test_after_a_change_over_it_is_the_new_line_that_is_opened_again(world: World) -> None:
    world.start()
    (await world.reads(0)).replace_wanted.set()
    second = await world.reads(1)
    second.ready.set()
    await await_for(lambda: world.connection.line is second and not world.lines[0].reading)

    second.lose()
    await await_for(lambda: second.connects == 2)

    assert (world.connection.reconnects, world.lines[0].connects) == (1, 1)


async def test_a_next_line_that_cannot_be_opened_is_tried_again_while_the_current_one_stays(world: World) -> None:
    world.start()
    first = await world.reads(0)

    world.refusals = ["full", "full"]
    first.replace_wanted.set()
    fourth = await world.reads(3)
    assert first.reading
    fourth.ready.set()
    await await_for(lambda: world.connection.line is fourth)

    assert (world.connection.handovers, world.connection.reconnects) == (1, 0)


async def test_a_next_line_that_is_lost_before_it_is_ready_is_tried_again(world: World) -> None:
    world.start()
    first = await world.reads(0)
    first.replace_wanted.set()

    (await world.reads(1)).lose()
    await world.reads(2)

    assert first.reading
    assert world.connection.line is first


async def test_when_both_are_lost_the_current_line_is_opened_again(world: World) -> None:
    world.start()
    first = await world.reads(0)
    first.replace_wanted.set()
    second = await world.reads(1)

    first.lose()
    second.lose()
    await await_for(lambda: first.connects == 2)

    assert world.connection.reconnects == 1


async def test_a_bug_in_the_next_line_ends_the_loop_and_leaves_no_line_open(world: World) -> None:
    task = world.start()
    (await world.reads(0)).replace_wanted.set()

    (await world.reads(1)).lose(KeyError("a bug"))

    with pytest.raises(KeyError, match="a bug"):
        await asyncio.wait_for(task, LIMIT)
    assert not any(line.reading for line in world.lines)


@pytest.mark.parametrize("changing_over", [False, True])
async def test_a_stop_leaves_nothing_behind(world: World, changing_over: bool) -> None:
    before = asyncio.all_tasks()
    world.start()
    first = await world.reads(0)
    if changing_over:
        first.replace_wanted.set()
        await world.reads(1)

    await world.stop()
    await asyncio.sleep(0)

    assert not any(line.reading for line in world.lines)
    assert asyncio.all_tasks() == before
