"""Binance spot's WebSocket side: who may connect, what a client may send, pings, and how connections end."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import cast
from urllib.parse import parse_qs, unquote, urlsplit

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from feeders.simulator.background import Background
from feeders.simulator.binance_connection_faults import strike
from feeders.simulator.binance_control import ControlSession, Reply, is_stream
from feeders.simulator.binance_streams import StreamHub, Subscriber
from feeders.simulator.connection import VenueConnection, encode_frame
from feeders.simulator.faults import Fault, FaultBoard, FaultError
from feeders.simulator.settings import SimulatorSettings

_POLICY_VIOLATION = 1008
_GOING_AWAY = 1001
_CLOSE_TIMEOUT = 2.0


class BinanceClients:
    """Every connection from its handshake to its end."""

    def __init__(self, settings: SimulatorSettings, hub: StreamHub, faults: FaultBoard, background: Background) -> None:
        self._settings = settings
        self._rules = settings.rules
        self._hub = hub
        self._faults = faults
        self._background = background
        self._subscribers: dict[int, Subscriber] = {}
        self._servers: list[Server] = []
        self._recent: deque[float] = deque()
        self._connects = 0
        self._most_recent = 0
        self._refused = 0
        self._refuses_until = 0.0
        self.port = settings.port

    async def listen(self) -> None:
        """Accept connections, on the same port as before if there was one."""
        server = await serve(
            self._serve,
            self._settings.host,
            self.port,
            process_request=self._admit,
            create_connection=VenueConnection,
            compression=None,
            ping_interval=None,
            close_timeout=_CLOSE_TIMEOUT,
            max_size=None,
            server_header=None,
        )
        self._servers.append(server)
        self.port = int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """End every connection and stop listening."""
        for subscriber in list(self._subscribers.values()):
            if subscriber.connection.is_mute:
                subscriber.connection.reset()
        closing = [subscriber.connection.close(_GOING_AWAY) for subscriber in self._subscribers.values()]
        await asyncio.gather(*closing, return_exceptions=True)
        for server in self._servers:
            server.close()
            await server.wait_closed()

    def send_queued(self) -> None:
        """Let go what the market queued."""
        for subscriber in self._subscribers.values():
            subscriber.connection.send_queued()

    def status(self) -> dict[str, object]:
        return {
            "connections": [
                {
                    "connection": subscriber.number,
                    "path": subscriber.path,
                    "streams": len(subscriber.session.streams),
                    "sent": subscriber.connection.sent,
                }
                for subscriber in self._subscribers.values()
            ],
            "connects": self._connects,
            "connects_refused": self._refused,
            "connects_highest": self._most_recent,
        }

    def play(self, fault: Fault) -> None:
        """Play a fault that acts at once on connections. Raises FaultError."""
        if fault.symbols is not None:
            raise FaultError(f"{fault.kind} strikes connections, not symbols")
        if fault.connection is not None and fault.connection not in self._subscribers:
            raise FaultError(f"no connection {fault.connection}; open: {list(self._subscribers)}")
        for subscriber in list(self._subscribers.values()):
            if fault.connection in (None, subscriber.number):
                self._faults.played[fault.kind] += 1
                strike(subscriber, fault, self._background, self._close)

    def drop_all(self) -> None:
        """End every connection without a word."""
        for subscriber in list(self._subscribers.values()):
            subscriber.connection.drop()

    def refuse(self, seconds: float, *, politely: bool) -> None:
        """Let nobody connect for a while: by HTTP 503, or by not listening at all."""
        self._refuses_until = time.monotonic() + seconds
        if politely:
            return
        for server in self._servers:
            # What is connected stays.
            server.close(close_connections=False)
        self._background.call_later(seconds, lambda: self._background.start(self.listen()))

    def recover(self) -> None:
        """End silence of all kinds."""
        for subscriber in self._subscribers.values():
            subscriber.connection.recover()

    def _close(self, subscriber: Subscriber, code: int, reason: str) -> None:
        subscriber.connection.send_queued()
        self._background.start(subscriber.connection.close(code, reason))

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a handshake: None lets it pass."""
        now = time.monotonic()
        self._recent.append(now)
        while self._recent[0] <= now - self._rules.connect_window:
            self._recent.popleft()
        self._most_recent = max(self._most_recent, len(self._recent))
        status = self._refusal(request, now)
        if status is None:
            return None
        self._refused += 1
        return connection.respond(status, f"{status.phrase}\n")

    def _refusal(self, request: Request, now: float) -> HTTPStatus | None:
        if now < self._refuses_until:
            return HTTPStatus.SERVICE_UNAVAILABLE
        if len(self._recent) > self._rules.connects:
            return HTTPStatus.TOO_MANY_REQUESTS
        path = urlsplit(request.path).path
        if path not in ("/ws", "/stream") and not path.startswith("/ws/"):
            return HTTPStatus.NOT_FOUND
        streams = _streams_in(request.path)
        if len(streams) > self._rules.streams or not all(is_stream(name) for name in streams):
            return HTTPStatus.BAD_REQUEST
        return None

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, VenueConnection)  # noqa: S101
        assert connection.request is not None  # noqa: S101
        subscriber = self._welcome(connection, connection.request.path)
        pinging = asyncio.create_task(self._ping(subscriber))
        lifetime = asyncio.get_running_loop().call_later(self._rules.lifetime, self._close, subscriber, _GOING_AWAY, "")
        try:
            with suppress(ConnectionClosed):
                async for message in connection:
                    self._receive(subscriber, message)
        finally:
            lifetime.cancel()
            pinging.cancel()
            self._hub.forget(subscriber)
            del self._subscribers[subscriber.number]

    def _welcome(self, connection: VenueConnection, path: str) -> Subscriber:
        self._connects += 1
        combined = urlsplit(path).path == "/stream"
        session = ControlSession(self._rules, self._settings.error_shape, combined)
        unit = parse_qs(urlsplit(path).query).get("timeUnit", [""])[0]
        subscriber = Subscriber(self._connects, connection, session, unit.upper() == "MICROSECOND", path)
        self._subscribers[subscriber.number] = subscriber
        connection.on_frame = _FrameLimit(
            self._rules.frames, self._rules.frame_window, lambda: self._flooded(subscriber)
        )
        session.add_streams(_streams_in(path))
        self._hub.update(subscriber, {}.keys())
        return subscriber

    def _flooded(self, subscriber: Subscriber) -> None:
        self._close(subscriber, _POLICY_VIOLATION, "Too many requests")

    def _receive(self, subscriber: Subscriber, message: str | bytes) -> None:
        number, session = subscriber.number, subscriber.session
        if self._faults.strike("subscribe_ignored", connection=number):
            return
        if fault := self._faults.strike("ack_error", connection=number):
            self._send(subscriber, session.refuse(str(fault.value or "Invalid request: invalid stream"), message))
            return
        before = dict(session.streams)
        reply = session.receive(message)
        self._hub.update(subscriber, before.keys())
        if reply is None or self._faults.strike("ack_lost", connection=number):
            return
        if fault := self._faults.strike("ack_delayed", connection=number):
            self._background.call_later(fault.number(1.0), lambda: self._send(subscriber, reply))
            return
        self._send(subscriber, reply)

    def _send(self, subscriber: Subscriber, reply: Reply) -> None:
        subscriber.connection.queue(encode_frame(reply.text.encode()))
        subscriber.connection.send_queued()

    async def _ping(self, subscriber: Subscriber) -> None:
        """A ping now and then; the client has a while to answer each."""
        connection, loop = subscriber.connection, asyncio.get_running_loop()

        def check(answered: asyncio.Future[float]) -> None:
            if not answered.done() and not connection.is_mute:
                self._close(subscriber, _POLICY_VIOLATION, "Pong timeout")

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
