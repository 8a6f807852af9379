"""A cluster's publisher: each book to the node that has its slot, and what is left of it to where the slot goes."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from bookbus.feeders.bus import publisher, servers
from bookbus.feeders.bus.connection import RedisConnectionError
from bookbus.feeders.bus.outbox import Outbox, PublisherCounters
from bookbus.feeders.bus.publish_script import BookKey, Submission
from bookbus.feeders.bus.publisher import Publisher
from bookbus.feeders.bus.servers import ClusterRouter, PrimaryRouter, router_of
from bookbus.schemas.redis_cluster import SLOTS, SlotMap, slot_of
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import HostPort, RedisServer
from bookbus.schemas.trade import Trade
from tests.support.builders import book
from tests.support.resp_server import in_background
from tests.support.waiting import await_for

NAMES = RedisNames()
BTC, ETH = "BTC-USDT", "ETH-USDT"
LEFT, RIGHT = ("left", 7000), ("right", 7001)


class Node:
    """Stands for the writer of one node, and keeps what it is given."""

    must_load = False
    has_room = idle = connected = healthy = True

    def __init__(
        self,
        server: HostPort,
        _: RedisServer,
        *,
        outbox: Outbox,
        on_moved: Callable[[HostPort, str], None],
        counters: PublisherCounters,
        **__: Any,
    ):
        self.on_moved = partial(on_moved, server)
        self.counters = counters
        self.submitted: list[Submission] = []
        self.trades: list[Trade] = []
        self.pending: Submission | None = None
        """Set: it answered nothing yet."""
        self.runs = self.discarded = False
        self._outbox = outbox
        self._books: list[tuple[BookKey, Submission]] = []

    async def run(self) -> None:
        self.runs = True
        try:
            await await_for(lambda: False, 3600)
        finally:
            self.runs = False

    def write(self, books: list[tuple[BookKey, Submission]], trades: list[Trade]) -> None:
        self._books += books
        self.submitted += [submission for _, submission in books]
        self.trades += trades

    def requeue_moved(self, moved: set[str]) -> None:
        for key, submission in self._books:
            if self.pending is not None and key.name in moved:
                self._outbox.requeue(key, submission)
        if NAMES.trades("binance", BTC) in moved:
            taken, self.trades = self.trades, []
            self._outbox.trades.requeue(taken)

    def discard(self) -> None:
        self.discarded = True


class World:
    """Nodes, and the map that they answer with; None while none answers."""

    def __init__(self) -> None:
        self.nodes: dict[HostPort, Node] = {}
        self.slots: SlotMap | None = None
        self.asked = 0
        self.publisher: Publisher

    def node(self, place: HostPort) -> Node:
        return self.nodes[place]

    def make(self, server: HostPort, *arguments: Any, **options: Any) -> Node:
        self.nodes[server] = Node(server, *arguments, **options)
        return self.nodes[server]

    async def ask(self, *_: Any) -> SlotMap:
        self.asked += 1
        if self.slots is None:
            raise RedisConnectionError("no node answers")
        return self.slots

    async def looks_again(self) -> None:
        before = self.asked
        await await_for(lambda: self.asked >= before + 2, what="another look at the slots")


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """In it, what is submitted is written at once, not at the end of the loop's turn."""
    world = World()
    monkeypatch.setattr(publisher, "ServerWriter", world.make)
    monkeypatch.setattr(servers, "ask_slots", world.ask)
    monkeypatch.setattr(servers, "_REFRESH_INTERVAL", 0.01)
    monkeypatch.setattr(servers, "_UNHEALTHY_REFRESH_INTERVAL", 0.01)
    monkeypatch.setattr(Outbox, "schedule_flush", Outbox.flush)
    world.publisher = Publisher("redis+cluster://left:7000,right:7001", NAMES, "A")
    return world


@asynccontextmanager
async def running(world: World) -> AsyncIterator[Publisher]:
    async with in_background(world.publisher.run()):
        yield world.publisher


def owned_by(place: HostPort, but: dict[str, HostPort] | None = None) -> SlotMap:
    """Everything at one node but the slots of some names."""
    places = dict.fromkeys(range(SLOTS), place)
    return SlotMap({**places, **{slot_of(name.encode()): other for name, other in (but or {}).items()}}.items())


def new(update_id: int, symbol: str = BTC) -> Submission:
    return Submission("new", "book", book(symbol, update_id=update_id))


def trade(trade_id: int) -> Trade:
    return Trade("binance", BTC, "BTCUSDT", trade_id, 100.5, 0.25, "buy", 1_000, 2_000)


async def test_each_book_goes_to_the_node_that_has_its_slot(world: World) -> None:
    world.slots = owned_by(LEFT, {NAMES.book("binance", ETH): RIGHT})
    async with running(world) as publisher:
        await await_for(lambda: publisher.connected)

        publisher.submit(new(1, BTC))
        publisher.submit(new(2, ETH))

        assert world.node(LEFT).submitted == [new(1, BTC)]
        assert world.node(RIGHT).submitted == [new(2, ETH)]
        assert world.node(LEFT).counters is world.node(RIGHT).counters is publisher.counters


async def test_until_a_node_answers_the_newest_of_each_book_waits(world: World) -> None:
    async with running(world) as publisher:
        for update_id in (1, 2, 3):
            publisher.submit(new(update_id))
        publisher.submit_trade(trade(1))
        publisher.submit_trade(trade(2))
        assert not await publisher.drain(0.05)

        world.slots = owned_by(LEFT)

        assert await publisher.drain(5)
        assert world.node(LEFT).submitted == [new(3)]
        assert world.node(LEFT).trades == [trade(1), trade(2)]


async def test_what_a_node_left_unanswered_goes_where_the_slot_went(world: World) -> None:
    world.slots = owned_by(LEFT)
    async with running(world) as publisher:
        await await_for(lambda: publisher.connected)
        publisher.submit(new(1))
        publisher.submit_trade(trade(1))
        world.node(LEFT).pending = new(1)

        world.slots = owned_by(RIGHT)
        await world.looks_again()
        publisher.submit(new(2))

        assert world.node(RIGHT).submitted == [new(1), new(2)]
        assert world.node(RIGHT).trades == [trade(1)]


async def test_a_node_without_slots_is_left(world: World) -> None:
    world.slots = owned_by(LEFT)
    async with running(world) as publisher:
        await await_for(lambda: publisher.connected)
        left = world.node(LEFT)
        publisher.submit(new(1))

        world.slots = owned_by(RIGHT)
        await await_for(lambda: not left.runs)
        await world.looks_again()

        assert world.node(RIGHT).runs
        assert publisher.connected


async def test_who_has_a_slot_is_believed_to_the_node_that_had_it(world: World) -> None:
    world.slots = owned_by(LEFT, {NAMES.book("binance", ETH): RIGHT})
    async with running(world) as publisher:
        await await_for(lambda: publisher.connected)
        publisher.submit(new(1))
        world.node(LEFT).pending = new(1)
        name = NAMES.book("binance", BTC)

        world.node(LEFT).on_moved(f"MOVED {slot_of(name.encode())} right:7001")

        await await_for(lambda: world.node(RIGHT).submitted == [new(1)])


async def test_all_that_a_node_says_at_once_of_moved_slots_is_followed_in_one_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With hundreds of books, following each by itself keeps everything else waiting for seconds."""
    symbols = [BTC, ETH, "SOL-USDT"]
    world.slots = owned_by(LEFT, {"another": RIGHT})
    uses = 0
    async with running(world) as publisher:
        await await_for(lambda: publisher.connected)
        for symbol in symbols:
            publisher.submit(new(1, symbol))
        world.node(LEFT).pending = new(1)
        world.slots = None
        reroute = publisher._reroute

        def counted() -> None:
            nonlocal uses
            uses += 1
            reroute()

        monkeypatch.setattr(publisher, "_reroute", counted)

        for symbol in symbols:
            world.node(LEFT).on_moved(f"MOVED {slot_of(NAMES.book('binance', symbol).encode())} right:7001")
        await await_for(lambda: len(world.node(RIGHT).submitted) == len(symbols))

    assert uses == 1


@pytest.mark.parametrize("healthy", [True, False])
async def test_slots_are_asked_for_often_while_a_node_is_not_healthy(
    world: World, monkeypatch: pytest.MonkeyPatch, healthy: bool
) -> None:
    monkeypatch.setattr(servers, "_REFRESH_INTERVAL", 3600)
    world.slots = owned_by(LEFT)
    async with running(world) as publisher:
        await await_for(lambda: publisher.connected)
        world.node(LEFT).healthy = healthy
        world.publisher._router.follow([])
        asked = world.asked
        if not healthy:
            await world.looks_again()

        await await_for(lambda: world.asked > asked)
        assert healthy is (world.asked == asked + 1)


async def test_a_book_stays_where_it_was_while_nobody_has_its_slot(world: World) -> None:
    world.slots = owned_by(LEFT)
    async with running(world) as publisher:
        await await_for(lambda: publisher.connected)
        publisher.submit(new(1))

        world.slots = SlotMap([(0, LEFT)])
        await world.looks_again()
        publisher.submit(new(2))

        assert world.node(LEFT).submitted == [new(1), new(2)]


async def test_lossless_submissions_wait_for_a_node(world: World) -> None:
    async with running(world) as publisher:
        publisher.submit(new(1))
        async with (
            in_background(publisher.submit_lossless(new(2))),
            in_background(publisher.submit_trade_lossless(trade(1))),
        ):
            await world.looks_again()

            world.slots = owned_by(LEFT)

            await await_for(lambda: world.nodes and world.node(LEFT).trades)
            await await_for(lambda: world.node(LEFT).submitted == [new(1), new(2)])


async def test_what_is_discarded_is_discarded_everywhere(world: World) -> None:
    async with running(world) as publisher:
        publisher.submit(new(1))

        publisher.discard()
        world.slots = owned_by(LEFT)
        await await_for(lambda: publisher.connected)
        publisher.discard()

        assert world.node(LEFT).submitted == []
        assert world.node(LEFT).discarded


async def test_the_url_decides_who_publishes() -> None:
    assert isinstance(router_of("redis+cluster://one:7000"), ClusterRouter)
    assert isinstance(router_of("redis+sentinel://one/main"), PrimaryRouter)
    with pytest.raises(ValueError, match="name the primary alone"):
        Publisher("redis://one,two", NAMES, "A")
