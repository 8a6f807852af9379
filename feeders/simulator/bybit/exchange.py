"""A local Bybit spot exchange: WebSocket and REST on loopback, faults and the truth beside them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request

from bookbus.feeders.simulator.bybit import messages as control
from bookbus.feeders.simulator.bybit import messages as texts
from bookbus.feeders.simulator.bybit.feed import DEPTH, BybitFeed
from bookbus.feeders.simulator.bybit.rest import BybitRest
from bookbus.feeders.simulator.bybit.settings import BybitSettings, bybit_settings
from bookbus.feeders.simulator.core.connection import VenueConnection, encode_frame
from bookbus.feeders.simulator.core.exchange import VenueSimulator
from bookbus.feeders.simulator.core.faults import FRAME_FAULTS, Fault, FaultBoard, FaultError
from bookbus.feeders.simulator.core.feed import FLUSHES_PER_SECOND, STEPS_PER_FLUSH, BookAt, LiveFeed, PreparedFeed
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse
from bookbus.feeders.simulator.core.market import Fill, SimulatedInstrument, instruments
from bookbus.feeders.simulator.core.websocket_server import Background, RateLimit, VenueClients
from bookbus.schemas.instruments import EXCHANGES

_DEPTHS = (1, 50, 200, 1000)
_CHANNELS = {**{f"orderbook.{depth}": depth for depth in _DEPTHS}, "publicTrade": 0}
_SNAPSHOTS_ONLY = 1
"""The depth at which every message is a whole book."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection and what it asked for."""

    number: int
    connection: VenueConnection
    connection_id: str
    topics: dict[str, None] = field(default_factory=dict)
    idle: asyncio.TimerHandle | None = None
    """Cuts the connection unless a ping comes in time."""


@dataclass(slots=True)
class _Topic:
    subscribers: dict[Subscriber, None] = field(default_factory=dict)
    shown: BookAt | None = None
    """What the subscribers of a book hold."""


class BybitStreams:
    """Turns what happens on the feeds into queued frames for the subscribers. `now_ms` is the wall clock."""

    def __init__(self, feeds: Mapping[str, BybitFeed], faults: FaultBoard, now_ms: Callable[[], int]) -> None:
        self._feeds = feeds
        self._faults = faults
        self._now_ms = now_ms
        self._topics: dict[str, _Topic] = {}

    def knows(self, name: str) -> bool:
        """Whether there is such a topic."""
        channel, _, native = name.rpartition(".")
        return channel in _CHANNELS and native in self._feeds

    def join(self, subscriber: Subscriber, name: str) -> None:
        """From now on the subscriber gets this topic; of a book, the whole of it first."""
        topic = self._topics.setdefault(name, _Topic())
        channel, _, native = name.rpartition(".")
        if depth := _CHANNELS[channel]:
            feed = self._feeds[native]
            topic.shown = topic.shown or feed.book(depth)
            text = texts.snapshot(name, feed.instrument, topic.shown, feed.sequence, self._now_ms())
            self._send(feed, text, [subscriber])
            self._faults.snapshot_served(native)
        topic.subscribers[subscriber] = subscriber.topics[name] = None

    def leave(self, subscriber: Subscriber, name: str) -> None:
        """The subscriber gets no more of this topic."""
        if name not in subscriber.topics:
            return
        del subscriber.topics[name]
        topic = self._topics[name]
        del topic.subscribers[subscriber]
        if not topic.subscribers:
            del self._topics[name]

    def forget(self, subscriber: Subscriber) -> None:
        """The connection is gone."""
        for name in list(subscriber.topics):
            self.leave(subscriber, name)

    def publish_book(self, feed: BybitFeed) -> None:
        """The book has another id."""
        for depth in _DEPTHS:
            name = f"orderbook.{depth}.{feed.instrument.native}"
            topic = self._topics.get(name)
            if topic is None or topic.shown is None:
                continue
            before, topic.shown = topic.shown, feed.book(depth)
            if depth != _SNAPSHOTS_ONLY:
                args = before, topic.shown, feed.sequence, self._now_ms()
                self._send(feed, texts.delta(name, feed.instrument, *args), topic.subscribers)
            elif before[1:] != topic.shown[1:]:
                self._send_whole(name, feed, topic)

    def publish_restart(self, feed: BybitFeed) -> None:
        """The service began anew: every topic of the market gets another book, unasked."""
        for depth in _DEPTHS:
            name = f"orderbook.{depth}.{feed.instrument.native}"
            if topic := self._topics.get(name):
                topic.shown = feed.book(depth)
                self._send_whole(name, feed, topic)

    def publish_trades(self, feed: BybitFeed, fills: Sequence[Fill]) -> None:
        """Somebody traded."""
        name = f"publicTrade.{feed.instrument.native}"
        topic = self._topics.get(name)
        if topic is not None and fills:
            text = texts.trades(name, feed.instrument, fills, feed.sequence, self._now_ms())
            frame = encode_frame(text.encode())
            for subscriber in topic.subscribers:
                subscriber.connection.queue(frame)

    def _send_whole(self, name: str, feed: BybitFeed, topic: _Topic) -> None:
        book = topic.shown or feed.book(_SNAPSHOTS_ONLY)
        text = texts.snapshot(name, feed.instrument, book, feed.sequence, self._now_ms())
        self._send(feed, text, topic.subscribers)

    def _send(
        self, feed: BybitFeed, text: str, subscribers: "Sequence[Subscriber] | Mapping[Subscriber, None]"
    ) -> None:
        if not self._faults.alters_frames:
            frame = encode_frame(text.encode())
            for subscriber in subscribers:
                subscriber.connection.queue(frame)
            return
        for subscriber in subscribers:
            for frame in self._faults.alter(feed.market, "depth", subscriber.number, text):
                subscriber.connection.queue(frame)


PATH = "/v5/public/spot"


class BybitClients(VenueClients[Subscriber]):
    """A connection whose client forgets to ping is cut."""

    def __init__(
        self, settings: BybitSettings, streams: BybitStreams, faults: FaultBoard, background: Background
    ) -> None:
        self._rules = rules = settings.rules
        connecting = RateLimit(rules.connects, rules.connect_window)
        super().__init__((settings.host, settings.port), connecting, faults, background)
        self._streams = streams
        self._idle_cuts = 0

    def status(self) -> dict[str, object]:
        """Connections, and how many were cut for want of pings."""
        return {**super().status(), "idle_cuts": self._idle_cuts}

    def _describe(self, client: Subscriber) -> dict[str, object]:
        return {"streams": len(client.topics)}

    def _refusal(self, request: Request) -> HTTPStatus | None:
        return None if request.path.partition("?")[0] == PATH else HTTPStatus.NOT_FOUND

    def _welcome(self, number: int, connection: VenueConnection) -> Subscriber:
        return Subscriber(number, connection, f"simulated-{number}")

    async def _converse(self, client: Subscriber) -> None:
        self._expect_ping(client)
        try:
            with suppress(ConnectionClosed):
                async for message in client.connection:
                    self._receive(client, message)
        finally:
            if client.idle is not None:
                client.idle.cancel()
            self._streams.forget(client)

    def _expect_ping(self, client: Subscriber) -> None:
        if client.idle is not None:
            client.idle.cancel()
        client.idle = asyncio.get_running_loop().call_later(self._rules.idle, self._cut, client)

    def _cut(self, client: Subscriber) -> None:
        self._idle_cuts += 1
        client.connection.drop()

    def _receive(self, client: Subscriber, message: str | bytes) -> None:
        arguments = client.connection_id, self._rules.arguments, client.topics, self._streams.knows
        reply = control.answer(message, *arguments)
        if reply.request.op == "ping":
            self._expect_ping(client)
            self._send(client, reply.text)
            return
        if self._faults.match("subscribe_ignored", connection=client.number):
            return
        if fault := self._faults.match("ack_error", connection=client.number):
            self._send(client, control.refuse(reply.request, client.connection_id, str(fault.value or "error")).text)
            return
        self._acknowledge(client, reply.text)
        for topic in reply.topics:
            if reply.request.op == "subscribe":
                self._streams.join(client, topic)
            else:
                self._streams.leave(client, topic)
        client.connection.send_queued()

    def _acknowledge(self, client: Subscriber, text: str) -> None:
        if self._faults.match("ack_lost", connection=client.number):
            return
        if fault := self._faults.match("ack_delayed", connection=client.number):
            self._background.call_later(fault.number(1.0), lambda: self._send(client, text))
            return
        self._send(client, text)

    def _send(self, client: Subscriber, text: str) -> None:
        client.connection.queue(encode_frame(text.encode()))
        client.connection.send_queued()


_AT_A_TIME = 32
"""Symbols between two looks at the sockets."""

# No shutdown is announced here, no snapshot asked for.
_UNKNOWN_FAULTS = ("server_shutdown", "stale_snapshot", "empty_snapshot")
_FRAME_FAULTS = {kind: play for kind, play in FRAME_FAULTS.items() if kind != "clock_skew"}


class BybitSimulator(VenueSimulator[BybitFeed]):
    """`async with BybitSimulator(symbols=("BTCUSDT",), seed=1) as exchange:` — options as in BybitSettings."""

    def __init__(
        self,
        symbols: Iterable[str] | int = ("BTCUSDT", "ETHUSDT"),
        settings: BybitSettings | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings = settings or bybit_settings(symbols, **options)
        faults = FaultBoard(time.monotonic, _FRAME_FAULTS)
        background = Background()
        feeds = {
            instrument.native: _create_feed(instrument, settings)
            for instrument in instruments(settings.symbols, EXCHANGES["bybit"])
        }
        self._streams = BybitStreams(feeds, faults, _now_ms)
        self._bybit_clients = BybitClients(settings, self._streams, faults, background)
        self._rest = BybitRest(feeds, settings.rest_delay, faults)
        super().__init__((settings.host, settings.rest_port), feeds, faults, background, self._bybit_clients)

    def status(self) -> dict[str, object]:
        """Connections, counts, what has been played."""
        statuses = {str(status): count for status, count in self._rest.statuses.items()}
        return {**super().status(), **self._bybit_clients.status(), "rest_statuses": statuses}

    def inject(self, fault: Fault) -> None:
        """Play a fault now, or let it wait for what it strikes. Raises FaultError."""
        if fault.kind in _UNKNOWN_FAULTS:
            raise FaultError(f"this exchange knows no {fault.kind!r}")
        if fault.stream != "depth":
            raise FaultError("only messages of books can be spoiled here")
        super().inject(fault)

    async def _answer_request(self, request: HttpRequest) -> HttpResponse:
        return await self._rest.answer(request)

    async def _step(self, step: int, time_us: int) -> None:
        flushes = step % STEPS_PER_FLUSH == 0
        for position, feed in enumerate(self._feeds.values(), 1):
            self._streams.publish_trades(feed, feed.step())
            if flushes and feed.flush():
                self._streams.publish_book(feed)
            if position % _AT_A_TIME == 0:
                self._bybit_clients.send_queued()
                await asyncio.sleep(0)
        self._bybit_clients.send_queued()

    def _restart(self) -> None:
        # Connections stay: a snapshot with the lowest id tells of it.
        for feed in self._feeds.values():
            feed.restart()
            self._streams.publish_restart(feed)
        self._bybit_clients.send_queued()


def _create_feed(instrument: SimulatedInstrument, settings: BybitSettings) -> BybitFeed:
    slots = round(settings.prepared * FLUSHES_PER_SECOND)
    live = LiveFeed(
        instrument,
        seed=settings.seed,
        rate=settings.rate,
        changes=settings.changes,
        levels=settings.levels,
        truth_depth=DEPTH,
        truth_flushes=max(settings.truth_flushes, slots + 1),
    )
    market = PreparedFeed(live, slots, _without_text, settings.truth_flushes) if slots else live
    return BybitFeed(market, settings.truth_flushes)


def _without_text(*_: object) -> str:
    """What a topic sends depends on its depth: nothing of it can be written beforehand."""
    return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


SIMULATOR, SETTINGS = BybitSimulator, BybitSettings
