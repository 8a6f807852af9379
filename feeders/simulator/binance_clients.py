"""Binance spot's WebSocket side: who may connect, what a client may send, pings, and how connections end."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request

from bookbus.feeders.simulator.background import Background
from bookbus.feeders.simulator.binance.messages import server_shutdown
from bookbus.feeders.simulator.binance.settings import SimulatorSettings
from bookbus.feeders.simulator.binance_control import ControlSession, Reply, is_stream
from bookbus.feeders.simulator.binance_streams import StreamHub, Subscriber
from bookbus.feeders.simulator.core.connection import VenueConnection, encode_frame
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.websocket_server import GOING_AWAY, VenueClients
from bookbus.feeders.simulator.rate_limit import RateLimit

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
        if self._faults.strike("subscribe_ignored", connection=number):
            return
        if fault := self._faults.strike("ack_error", connection=number):
            self._send(client, session.refuse(str(fault.value or "Invalid request: invalid stream"), message))
            return
        before = dict(session.streams)
        reply = session.receive(message)
        self._hub.update(client, before.keys())
        if reply is None or self._faults.strike("ack_lost", connection=number):
            return
        if fault := self._faults.strike("ack_delayed", connection=number):
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
