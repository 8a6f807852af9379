"""Writes books and trades to a cluster: each to the node that has its slot, and on to where the slot moves."""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from functools import partial

from bookbus.feeders.books.events import Topic
from bookbus.feeders.bus.connection import RedisConnectionError
from bookbus.feeders.bus.outbox import Submission
from bookbus.feeders.bus.publisher import TRADES_CAPACITY, Publisher
from bookbus.feeders.publish_counters import PublisherCounters
from bookbus.feeders.servers.address import parse_address
from bookbus.feeders.servers.cluster_map import ask_slots
from bookbus.schemas.redis_cluster import SlotMap
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import Place, parse_servers
from bookbus.schemas.trade import Trade
from bookbus.schemas.url_secrets import masked

logger = logging.getLogger(__name__)

BookPlace = tuple[Topic, str, str]
"""Topic, exchange and symbol."""

_CALM = 5.0
_DOUBT = 0.2
"""Seconds from one look at the slots to the next, while all is well and while it is not."""


class ClusterPublisher:
    """One publisher for each node that has slots; the same from outside."""

    def __init__(
        self,
        url: str,
        names: RedisNames,
        feeder_id: str,
        *,
        on_connected: Callable[[], None] | None = None,
        before_write: Callable[[], None] | None = None,
    ) -> None:
        self._servers = parse_servers(url)
        for single in self._servers.urls():
            parse_address(single)
        self._shown = masked(url)
        self._names = names
        self._feeder_id = feeder_id
        self._on_connected = on_connected
        self._before_write = before_write
        self.counters = PublisherCounters()
        self._slots = SlotMap()
        self._nodes: dict[Place, Publisher] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None
        self._books: dict[BookPlace, Publisher] = {}
        self._streams: dict[tuple[str, str], Publisher] = {}
        # What belongs to slots that nobody is known to have.
        self._homeless: dict[BookPlace, Submission] = {}
        self._homeless_trades: deque[Trade] = deque(maxlen=TRADES_CAPACITY)
        self._look = asyncio.Event()
        self._housed = asyncio.Event()
        self._away = False
        self._moves: list[tuple[Place, str]] = []
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
            self._homeless[place] = submission
        else:
            node.submit(submission)

    async def submit_lossless(self, submission: Submission) -> None:
        """Send it without replacing an unsent one: wait until that one is on its way."""
        place = _place_of(submission)
        while (node := self._books.get(place) or self._house(place)) is None and place in self._homeless:
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
                while self._homeless or self._homeless_trades:
                    await self._wait_housed()
                await asyncio.gather(*(node.drain(timeout) for node in self._nodes.values()))
                return True
        return False

    def discard(self) -> None:
        """Forget every book that is not written yet: it may be old, and nothing of it may be told any more."""
        self._homeless.clear()
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
            slots = await ask_slots(self._servers, self._nodes, self._shown)
        except RedisConnectionError as error:
            if not self._away:
                logger.warning("%s; trying again until one does", error)
            self._away = True
            return
        if self._away:
            logger.warning("%s answers again", self._shown)
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

    def _open(self, place: Place) -> None:
        node = self._nodes[place] = Publisher(
            self._servers.url(place),
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
        if (rest := node.take_out(*book)) is not None:
            owner.submit(rest)

    def _moved(self, asked: Place, error: str) -> None:
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
        homeless, self._homeless = self._homeless, {}
        for submission in homeless.values():
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
    kind = ClusterPublisher if parse_servers(url).kind == "cluster" else Publisher
    return kind(url, names, feeder_id, on_connected=on_connected, before_write=before_write)
