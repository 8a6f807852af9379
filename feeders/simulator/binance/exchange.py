"""A local Binance spot exchange: WebSocket and REST on loopback, faults and the truth beside them."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, KeysView
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request

from bookbus.feeders.simulator.binance import messages
from bookbus.feeders.simulator.binance.messages import ControlSession, Reply, depth_body, is_stream, server_shutdown
from bookbus.feeders.simulator.binance.rest import BinanceRest
from bookbus.feeders.simulator.binance.settings import SimulatorSettings, simulator_settings
from bookbus.feeders.simulator.core.connection import VenueConnection, encode_frame
from bookbus.feeders.simulator.core.exchange import VenueSimulator
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.feed import FLUSHES_PER_SECOND, STEPS_PER_FLUSH, Feed, LiveFeed, PreparedFeed
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse
from bookbus.feeders.simulator.core.market import Fill, Flush, Quote, SimulatedInstrument, instruments, merged
from bookbus.feeders.simulator.core.websocket_server import GOING_AWAY, Background, RateLimit, VenueClients

_PARTIAL_DEPTHS = (5, 10, 20)

Writer = Callable[[int], str]
"""Writes a message for a time, which is in milliseconds or microseconds as the client asked."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection and what it asked for."""

    number: int
    connection: VenueConnection
    session: ControlSession
    microseconds: bool
    path: str


class StreamHub:
    """Turns what happens on the feeds into queued frames for the subscribers. Times are microseconds."""

    def __init__(self, faults: FaultBoard) -> None:
        self._faults = faults
        self._subscribers: dict[str, dict[Subscriber, None]] = {}
        self._new: dict[str, set[Subscriber]] = {}
        """Who still waits for the first message of a stream."""
        self._second: dict[str, list[Flush]] = {}
        """The flushes of each symbol since the last full second."""

    def update(self, subscriber: Subscriber, before: KeysView[str]) -> None:
        """Follow a change of `subscriber.session.streams`."""
        now = subscriber.session.streams.keys()
        for stream in before - now:
            self._leave(stream, subscriber)
        for stream in now - before:
            self._subscribers.setdefault(stream, {})[subscriber] = None
            self._new.setdefault(stream, set()).add(subscriber)

    def forget(self, subscriber: Subscriber) -> None:
        """The connection is gone."""
        for stream in subscriber.session.streams:
            self._leave(stream, subscriber)

    def forget_flushes(self) -> None:
        """The ids begin anew: nothing of this second belongs together any more."""
        self._second.clear()

    def publish_step(self, feed: Feed, happened: Iterable[Quote | Fill], time: int) -> None:
        """Quotes and trades, the moment they happen."""
        instrument = feed.instrument
        for event in happened:
            if isinstance(event, Quote):
                if self._wants(feed, "bookTicker"):
                    feed.remember(event)
                    self._send(feed, "bookTicker", partial(_book_ticker, instrument, event), time)
                continue
            if self._wants(feed, "trade"):
                for write in messages.trades(instrument, event):
                    self._send(feed, "trade", write, time)
            self._send(feed, "aggTrade", partial(messages.aggregate_trade, instrument, event), time)

    def publish_flush(self, feed: Feed, flush: Flush | None, time: int, *, on_second: bool) -> None:
        """Depth streams of 100 ms and, on the second, those of 1000 ms."""
        if flush is not None:
            body = flush.body or messages.depth_body(feed.instrument, flush)
            self._send(feed, "depth@100ms", partial(messages.depth_update, feed.instrument, flush, body), time)
            self._second.setdefault(feed.instrument.native, []).append(flush)
        self._publish_partial(feed, "@100ms", time, changed=flush is not None)
        if on_second:
            self._publish_second(feed, time)

    def _publish_second(self, feed: Feed, time: int) -> None:
        flushes = self._second.pop(feed.instrument.native, None)
        for kind in ("depth", "depth@1000ms"):
            if flushes and self._wants(feed, kind):
                flush = merged(flushes)
                body = messages.depth_body(feed.instrument, flush)
                self._send(feed, kind, partial(messages.depth_update, feed.instrument, flush, body), time)
        for suffix in ("", "@1000ms"):
            self._publish_partial(feed, suffix, time, changed=bool(flushes))

    def _publish_partial(self, feed: Feed, suffix: str, time: int, *, changed: bool) -> None:
        for depth in _PARTIAL_DEPTHS:
            kind = f"depth{depth}{suffix}"
            # Whoever has just subscribed gets the book at the next flush even if it rests; so does everybody else then.
            if self._wants(feed, kind) and (changed or self._new.get(feed.stream_prefix + kind)):
                text = messages.book_text(feed.instrument, feed.top(depth))
                self._send(feed, kind, partial(_constant, text), time)

    def _wants(self, feed: Feed, kind: str) -> bool:
        return feed.stream_prefix + kind in self._subscribers

    def _send(self, feed: Feed, kind: str, write: Writer, time: int) -> None:
        stream = feed.stream_prefix + kind
        subscribers = self._subscribers.get(stream)
        if subscribers is None:
            return
        self._new.pop(stream, None)
        frames: dict[tuple[bool, bool], bytes] = {}
        for subscriber in subscribers:
            form = subscriber.session.combined, subscriber.microseconds
            if self._faults.alters_frames:
                text = _text(stream, write, time, form)
                for frame in self._faults.alter(feed, kind, subscriber.number, text):
                    subscriber.connection.queue(frame)
                continue
            if form not in frames:
                frames[form] = encode_frame(_text(stream, write, time, form).encode())
            subscriber.connection.queue(frames[form])

    def _leave(self, stream: str, subscriber: Subscriber) -> None:
        subscribers = self._subscribers[stream]
        del subscribers[subscriber]
        if not subscribers:
            del self._subscribers[stream]
        self._new.get(stream, set()).discard(subscriber)


def _text(stream: str, write: Writer, time: int, form: tuple[bool, bool]) -> str:
    combined, microseconds = form
    payload = write(time if microseconds else time // 1000)
    return messages.wrapped(stream, payload) if combined else payload


def _book_ticker(instrument: SimulatedInstrument, quote: Quote, _: int) -> str:
    return messages.book_ticker(instrument, quote)


def _constant(text: str, _: int) -> str:
    return text


_POLICY_VIOLATION = 1008


class BinanceClients(VenueClients[Subscriber]):
    """A connection is pinged, lives a day, and ends when its client sends too much."""

    def __init__(self, settings: SimulatorSettings, hub: StreamHub, faults: FaultBoard, background: Background) -> None:
        self._settings = settings
        self._rules = rules = settings.rules
        connecting = RateLimit(rules.connects, rules.connect_window)
        super().__init__((settings.host, settings.port), connecting, faults, background)
        self._hub = hub

    def _describe(self, client: Subscriber) -> dict[str, object]:
        return {"path": client.path, "streams": len(client.session.streams)}

    def _strike_in_own_way(self, client: Subscriber, fault: Fault) -> None:
        if fault.kind != "server_shutdown":
            super()._strike_in_own_way(client, fault)
        lead = fault.number(0.0)
        text = server_shutdown(time.time_ns() // 1_000_000, combined=client.session.combined)
        client.connection.queue(encode_frame(text.encode()))
        client.connection.send_queued()
        self._background.call_later(lead, lambda: self._close(client, GOING_AWAY))

    def _refusal(self, request: Request) -> HTTPStatus | None:
        path = urlsplit(request.path).path
        if path not in ("/ws", "/stream") and not path.startswith("/ws/"):
            return HTTPStatus.NOT_FOUND
        streams = _streams_in(request.path)
        if len(streams) > self._rules.streams or not all(is_stream(name) for name in streams):
            return HTTPStatus.BAD_REQUEST
        return None

    def _welcome(self, number: int, connection: VenueConnection) -> Subscriber:
        assert connection.request is not None  # noqa: S101
        path = connection.request.path
        combined = urlsplit(path).path == "/stream"
        session = ControlSession(self._rules, self._settings.error_shape, combined)
        unit = parse_qs(urlsplit(path).query).get("timeUnit", [""])[0]
        client = Subscriber(number, connection, session, unit.upper() == "MICROSECOND", path)
        connection.on_frame = _FrameLimit(self._rules.frames, self._rules.frame_window, lambda: self._flooded(client))
        session.add_streams(_streams_in(path))
        self._hub.update(client, {}.keys())
        return client

    async def _converse(self, client: Subscriber) -> None:
        pinging = asyncio.create_task(self._ping(client))
        lifetime = asyncio.get_running_loop().call_later(self._rules.lifetime, self._close, client, GOING_AWAY)
        try:
            with suppress(ConnectionClosed):
                async for message in client.connection:
                    self._receive(client, message)
        finally:
            lifetime.cancel()
            pinging.cancel()
            self._hub.forget(client)

    def _flooded(self, client: Subscriber) -> None:
        self._close(client, _POLICY_VIOLATION, "Too many requests")

    def _receive(self, client: Subscriber, message: str | bytes) -> None:
        number, session = client.number, client.session
        if self._faults.match("subscribe_ignored", connection=number):
            return
        if fault := self._faults.match("ack_error", connection=number):
            self._send(client, session.refuse(str(fault.value or "Invalid request: invalid stream"), message))
            return
        before = dict(session.streams)
        reply = session.receive(message)
        self._hub.update(client, before.keys())
        if reply is None or self._faults.match("ack_lost", connection=number):
            return
        if fault := self._faults.match("ack_delayed", connection=number):
            self._background.call_later(fault.number(1.0), lambda: self._send(client, reply))
            return
        self._send(client, reply)

    def _send(self, client: Subscriber, reply: Reply) -> None:
        client.connection.queue(encode_frame(reply.text.encode()))
        client.connection.send_queued()

    async def _ping(self, client: Subscriber) -> None:
        """A ping now and then; the client has a while to answer each."""
        connection, loop = client.connection, asyncio.get_running_loop()

        def check(answered: asyncio.Future[float]) -> None:
            if not answered.done() and not connection.is_mute:
                self._close(client, _POLICY_VIOLATION, "Pong timeout")

        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self._rules.ping_interval)
                answered = cast(asyncio.Future[float], await connection.ping(str(time.time_ns() // 1_000_000)))
                loop.call_later(self._rules.pong_timeout, check, answered)


class _FrameLimit:
    """Calls `exceeded` once more than `limit` frames came within `window` seconds."""

    def __init__(self, limit: int, window: float, exceeded: Callable[[], None]) -> None:
        self._window = window
        self._exceeded = exceeded
        self._times: deque[float] = deque(maxlen=limit)
        self._over = False

    def __call__(self) -> None:
        now = time.monotonic()
        full = len(self._times) == self._times.maxlen
        if full and now - self._times[0] < self._window and not self._over:
            self._over = True
            self._exceeded()
        self._times.append(now)


def _streams_in(target: str) -> list[str]:
    """Streams named in the address: `/ws/a/b` or `/stream?streams=a/b`, percent-encoded or not."""
    url = urlsplit(target)
    if url.path.startswith("/ws/"):
        return unquote(url.path.removeprefix("/ws/")).split("/")
    names = parse_qs(url.query).get("streams", [""])[0]
    return names.split("/") if names else []


_AT_A_TIME = 32
"""Symbols between two looks at the sockets."""


class BinanceSimulator(VenueSimulator[Feed]):
    """`async with BinanceSimulator(symbols=("BTCUSDT",), seed=1) as exchange:` — options as in SimulatorSettings."""

    def __init__(
        self,
        symbols: Iterable[str] | int = ("BTCUSDT", "ETHUSDT"),
        settings: SimulatorSettings | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings = settings or simulator_settings(symbols, **options)
        faults = FaultBoard(time.monotonic)
        background = Background()
        feeds = {instrument.native: self._create_feed(instrument) for instrument in instruments(settings.symbols)}
        self._hub = StreamHub(faults)
        self._binance_clients = BinanceClients(settings, self._hub, faults, background)
        self._rest = BinanceRest(feeds, settings, faults)
        super().__init__((settings.host, settings.rest_port), feeds, faults, background, self._binance_clients)

    def status(self) -> dict[str, object]:
        """Connections, counts, what has been played."""
        return {
            **super().status(),
            **self._binance_clients.status(),
            "weight_used": self._rest.weight.used,
            "weight_highest": self._rest.weight.highest,
            "weight_total": self._rest.weight.total,
            "rest_statuses": {str(status): count for status, count in self._rest.statuses.items()},
        }

    async def _answer_request(self, request: HttpRequest) -> HttpResponse:
        return await self._rest.answer(request)

    def _restart(self) -> None:
        """The exchange comes back with lower ids and other books; nobody is connected any more."""
        self._binance_clients.drop_all()
        self._hub.forget_flushes()
        for feed in self._feeds.values():
            feed.restart()

    async def _step(self, step: int, time_us: int) -> None:
        flushes = step % STEPS_PER_FLUSH == 0
        on_second = step % (STEPS_PER_FLUSH * FLUSHES_PER_SECOND) == 0
        for position, feed in enumerate(list(self._feeds.values()), 1):
            self._hub.publish_step(feed, feed.step(), time_us)
            if flushes:
                self._hub.publish_flush(feed, feed.flush(), time_us, on_second=on_second)
            if position % _AT_A_TIME == 0:
                self._binance_clients.send_queued()
                await asyncio.sleep(0)
        self._binance_clients.send_queued()

    def _create_feed(self, instrument: SimulatedInstrument) -> Feed:
        settings = self.settings
        slots = round(settings.prepared * FLUSHES_PER_SECOND)
        live = LiveFeed(
            instrument,
            seed=settings.seed,
            rate=settings.rate,
            changes=settings.changes,
            levels=settings.levels,
            truth_depth=settings.truth_depth,
            truth_flushes=max(settings.truth_flushes, slots + 1),
        )
        return PreparedFeed(live, slots, depth_body, settings.truth_flushes) if slots else live


SIMULATOR, SETTINGS = BinanceSimulator, SimulatorSettings
