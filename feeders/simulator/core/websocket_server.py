"""The WebSocket side of every simulated exchange: connections, subscriptions, and faults of connections."""

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, ClassVar, Generic, TypeVar, cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN, Event

from bookbus.feeders.simulator.core.connection import SlowWriter, encode_frame, reset
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard, FaultError
from bookbus.feeders.simulator.core.feed import MarketFeed
from bookbus.feeders.simulator.core.settings import RateLimit, SimulatorSettings

NORMAL = 1000
GOING_AWAY = 1001
POLICY_VIOLATION = 1008
_NO_CLOSING_FRAME = 1006
_CLOSE_TIMEOUT = 2.0
_SLOW = 2000.0
"""Bytes a second, unless the fault says how many."""
_LATE = 5.0
"""Seconds by which messages are late, unless the fault says how many."""
_STREAM_NAMES = {
    "depth": ("depth", "orderbook"),
    "bookTicker": ("bookticker",),
    "trade": ("trade", "publictrade"),
    "aggTrade": ("aggtrade",),
}
"""How the exchanges begin the names of the streams of each kind, in lower case."""
_OBSERVED = (Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG)
_MAXIMUM_BACKLOG = 64 * 1024 * 1024
"""A client that lets this many bytes pile up is cut off."""


class Background:
    """Tasks and timers that run beside the servers."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._error: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run until done or stopped."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def call_later(self, seconds: float, action: Callable[[], None]) -> None:
        """Call once after a delay, unless stopped before."""
        # Timers that fired are dropped when the next one is set.
        loop = asyncio.get_running_loop()
        self._timers = {timer for timer in self._timers if not timer.cancelled() and timer.when() > loop.time()}
        self._timers.add(loop.call_later(seconds, action))

    async def stop(self) -> None:
        """Cancel everything. Raises the exception that ended a task, if one did."""
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._error is not None:
            raise self._error

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()


class ClientConnection(ServerConnection):
    """A client's connection. Market data goes past the library, many messages a write."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_frame: Callable[[], None] | None = None
        """Called for every frame the client sends, the closing one excepted."""
        self.is_silent = False
        """No messages go out; pings are answered."""
        self.is_mute = False
        """Nothing at all goes out."""
        self.sent = 0
        self._queued: list[bytes] = []
        self._slow: SlowWriter | None = None
        self._delay = 0.0
        self._delayed: deque[tuple[float, bytes]] = deque()
        """Messages that are late, with the times at which they are sent."""

    def queue(self, frame: bytes) -> None:
        """Put an encoded frame behind those that wait for `send_queued`."""
        if not self.is_silent:
            self._queued.append(frame)

    def send_queued(self) -> None:
        """Hand everything queued to the socket in one write."""
        if not self._queued:
            return
        if self.protocol.state is OPEN and not self.is_mute:
            self.sent += len(self._queued)
            data = b"".join(self._queued)
            if self._delay:
                loop = asyncio.get_running_loop()
                self._delayed.append((loop.time() + self._delay, data))
                loop.call_later(self._delay, self._send_due)
            else:
                self._write(data)
        self._queued.clear()

    def be_late(self, seconds: float) -> None:
        """Send messages later than they are made; pings are answered at once."""
        self._delay = seconds

    def fall_silent(self, *, answers_pings: bool) -> None:
        """Send no more messages; without `answers_pings`, send nothing at all."""
        self.is_silent = True
        self.is_mute = not answers_pings

    def slow_down(self, bytes_a_second: float) -> None:
        """Send slowly from now on, cutting messages anywhere."""
        self._slow = self._slow or SlowWriter(self.transport, bytes_a_second)

    def become_half_open(self) -> None:
        """Behave like a peer that lost power: nothing is sent, nothing is read, nothing is closed."""
        self.is_silent = self.is_mute = True
        self.transport.pause_reading()

    def recover(self) -> None:
        if self.protocol.state is OPEN:
            self.is_silent = self.is_mute = False
            self.transport.resume_reading()
            if self._slow is not None:
                self._slow.flush()
                self._slow = None
            self._delay = 0.0
            while self._delayed:
                self._write(self._delayed.popleft()[1])

    def reset(self) -> None:
        reset(self.transport)

    def drop(self) -> None:
        """End the connection without a closing frame (the client sees code 1006)."""
        self.transport.close()

    def process_event(self, event: Event) -> None:
        """Report the frame to `on_frame`, then let the library process it."""
        if isinstance(event, Frame) and event.opcode in _OBSERVED and self.on_frame is not None:
            self.on_frame()
        super().process_event(event)

    def send_data(self) -> None:
        """Send the library's own output: nothing while mute, behind the backlog while slow."""
        if self.is_mute:
            self.protocol.data_to_send()
        elif self._slow is None:
            super().send_data()
        else:
            for data in self.protocol.data_to_send():
                if data:
                    self._slow.write(data)
                else:
                    self._slow.write_eof()

    def _write(self, data: bytes) -> None:
        (self._slow or self.transport).write(data)
        waiting = self.transport.get_write_buffer_size() + (self._slow.backlog if self._slow else 0)
        if waiting > _MAXIMUM_BACKLOG:
            self.transport.abort()

    def _send_due(self) -> None:
        now = asyncio.get_running_loop().time()
        while self._delayed and self._delayed[0][0] <= now and not self.transport.is_closing():
            self._write(self._delayed.popleft()[1])


@dataclass(slots=True, eq=False)
class Client:
    """One connection and its subscriptions."""

    number: int
    connection: ClientConnection
    streams: dict[Any, Any] = field(default_factory=dict)
    """Keys of its subscriptions, with what the exchange keeps of each."""
    running: list["asyncio.Task[None] | asyncio.TimerHandle"] = field(default_factory=list)
    """Cancelled when the connection ends."""


ClientT = TypeVar("ClientT", bound=Client)
MarketT = TypeVar("MarketT")


class WebSocketServer(ABC, Generic[ClientT, MarketT]):
    """Every connection from its handshake to its end; an exchange adds its requests and its messages."""

    BINARY: ClassVar[bool] = False
    """Whether the exchange sends binary messages."""

    def __init__(
        self,
        settings: SimulatorSettings,
        markets: Mapping[str, MarketT],
        faults: FaultBoard,
        background: Background,
    ) -> None:
        self.port = settings.port
        self._host = settings.host
        self._connecting = RateLimit(settings.rules.connects, settings.rules.connect_window)
        self._markets = markets
        self._faults = faults
        self._background = background
        self._clients: dict[int, ClientT] = {}
        self._subscribers: dict[Hashable, dict[ClientT, Any]] = {}
        """By stream, each with what the exchange keeps of the subscription."""
        self._servers: list[Server] = []
        self._connects = 0
        self._refused = 0
        self._refuses_until = 0.0

    @abstractmethod
    def step(self, market: MarketT, step: int, time_us: int) -> None:
        """Move one market by one step of the grid and queue its messages."""

    @abstractmethod
    def restart(self) -> None:
        """Restart every market with lower ids, as the exchange does after an outage."""

    @abstractmethod
    def _handshake_error(self, target: str, headers: Mapping[str, str]) -> HTTPStatus | None:
        """The status that refuses a handshake for `target`, the path with its query; None accepts it."""

    @abstractmethod
    def _accept(self, number: int, connection: ClientConnection, target: str) -> ClientT:
        """The client of a connection that has just been accepted."""

    @abstractmethod
    def _receive(self, client: ClientT, message: str | bytes) -> None:
        """Act on one message of a client."""

    @abstractmethod
    def _describe(self, client: ClientT) -> dict[str, object]:
        """Further fields of a connection in the status."""

    def _headers(self) -> Mapping[str, str]:
        """Headers of the exchange in its answer to a handshake."""
        return {}

    async def listen(self) -> None:
        """Accept connections, on the same port as before if there was one."""
        server = await serve(
            self._serve,
            self._host,
            self.port,
            process_request=self._admit,
            process_response=self._add_headers,
            create_connection=ClientConnection,
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
        for client in list(self._clients.values()):
            if client.connection.is_mute:
                client.connection.reset()
        closing = [client.connection.close(GOING_AWAY) for client in self._clients.values()]
        await asyncio.gather(*closing, return_exceptions=True)
        for server in self._servers:
            server.close()
            await server.wait_closed()

    def send_queued(self) -> None:
        for client in self._clients.values():
            client.connection.send_queued()

    def status(self) -> dict[str, object]:
        """Open connections, and how many there were."""
        return {
            "connections": [
                {"connection": client.number, **self._describe(client), "sent": client.connection.sent}
                for client in self._clients.values()
            ],
            "connects": self._connects,
            "connects_refused": self._refused,
            "connects_highest": self._connecting.highest,
        }

    def play(self, fault: Fault) -> None:
        """Play a fault that acts at once on connections. Raises FaultError."""
        if fault.kind == "unsubscribed":
            self._drop_subscriptions(fault)
            return
        if fault.symbols is not None:
            raise FaultError(f"{fault.kind} acts on connections, not symbols")
        if fault.connection is not None and fault.connection not in self._clients:
            raise FaultError(f"no connection {fault.connection}; open: {list(self._clients)}")
        for client in list(self._clients.values()):
            if fault.connection in (None, client.number):
                self._faults.played[fault.kind] += 1
                self._play_on(client, fault)

    def _drop_subscriptions(self, fault: Fault) -> None:
        """Forget subscriptions without a word; another subscription works."""
        self._faults.played[fault.kind] += 1
        names = None if fault.symbols is None else {symbol.lower() for symbol in fault.symbols}
        for client in self._clients.values():
            if fault.connection in (None, client.number):
                for stream in list(client.streams):
                    parts = [part.lower() for part in (re.split("[@.]", stream) if isinstance(stream, str) else stream)]
                    named = names is None or not names.isdisjoint(parts)
                    if named and any(part.startswith(_STREAM_NAMES[fault.stream]) for part in parts):
                        self._leave(client, stream)

    def drop_all(self) -> None:
        """End every connection without a closing frame."""
        for client in list(self._clients.values()):
            client.connection.drop()

    def refuse(self, seconds: float, *, politely: bool) -> None:
        """Refuse connections for `seconds`: with HTTP 503, or by not listening at all."""
        self._refuses_until = time.monotonic() + seconds
        if politely:
            return
        for server in self._servers:
            # Open connections stay.
            server.close(close_connections=False)
        self._background.call_later(seconds, lambda: self._background.start(self.listen()))

    def recover(self) -> None:
        """End silence, slowness and lateness of every connection."""
        for client in self._clients.values():
            client.connection.recover()

    def _join(self, client: ClientT, stream: Hashable, value: object = None) -> None:
        """Subscribe; `value` is what the exchange keeps of it."""
        client.streams[stream] = value
        self._subscribers.setdefault(stream, {})[client] = value

    def _leave(self, client: ClientT, stream: Hashable) -> None:
        if stream in client.streams:
            del client.streams[stream]
            subscribers = self._subscribers[stream]
            del subscribers[client]
            if not subscribers:
                del self._subscribers[stream]

    def _leave_all(self, client: ClientT) -> None:
        for stream in list(client.streams):
            self._leave(client, stream)

    def _queue(
        self,
        client: ClientT,
        feed: MarketFeed,
        kind: str,
        write: Callable[[], str],
        form: Hashable = None,
        encoded: dict[Hashable, bytes] | None = None,
    ) -> None:
        """Queue one message of market data, faults included. `encoded` has those already written, by form."""
        if self._faults.alters_frames:
            for frame in self._faults.alter(feed, kind, client.number, write()):
                client.connection.queue(frame)
            return
        encoded = {} if encoded is None else encoded
        if form not in encoded:
            encoded[form] = encode_frame(write().encode(), binary=self.BINARY)
        client.connection.queue(encoded[form])

    def _send(self, client: ClientT, text: str) -> None:
        """Send a message that is not market data."""
        client.connection.queue(encode_frame(text.encode(), binary=self.BINARY))
        client.connection.send_queued()

    def _acknowledge(self, client: ClientT, text: str) -> None:
        """Answer a request, unless the answer is lost or late."""
        if self._faults.match("ack_lost", connection=client.number):
            return
        if fault := self._faults.match("ack_delayed", connection=client.number):
            self._background.call_later(fault.number(1.0), lambda: self._send(client, text))
            return
        self._send(client, text)

    def _close(self, client: ClientT, code: int, reason: str = "") -> None:
        client.connection.send_queued()
        self._background.start(client.connection.close(code, reason))

    async def _ping(self, client: ClientT, interval: float, timeout: float) -> None:
        """Ping regularly; close a connection whose client does not answer one within `timeout` seconds."""
        connection, loop = client.connection, asyncio.get_running_loop()

        def check(answered: asyncio.Future[float]) -> None:
            if not answered.done() and not connection.is_mute:
                self._close(client, POLICY_VIOLATION, "Pong timeout")

        with suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(interval)
                answered = cast(asyncio.Future[float], await connection.ping(str(time.time_ns() // 1_000_000)))
                loop.call_later(timeout, check, answered)

    def _play_on(self, client: ClientT, fault: Fault) -> None:
        """Play `fault` on this connection; with `seconds`, silence and slowness end by themselves."""
        connection = client.connection
        match fault.kind:
            case "silence":
                connection.fall_silent(answers_pings=fault.value != "no pongs")
            case "half_open":
                connection.become_half_open()
            case "slow_drip":
                connection.slow_down(fault.number(_SLOW))
            case "late":
                connection.be_late(fault.number(_LATE))
            case "reset":
                connection.reset()
            case "close" if fault.number(NORMAL) == _NO_CLOSING_FRAME:
                connection.drop()
            case "close":
                self._close(client, int(fault.number(NORMAL)))
        if fault.seconds is not None:
            self._background.call_later(fault.seconds, connection.recover)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a handshake: None accepts it."""
        # Each attempt counts, also one that is refused.
        too_many = self._connecting.exceeded()
        status: HTTPStatus | None
        if time.monotonic() < self._refuses_until:
            status = HTTPStatus.SERVICE_UNAVAILABLE
        elif too_many:
            status = HTTPStatus.TOO_MANY_REQUESTS
        else:
            status = self._handshake_error(request.path, request.headers)
        if status is None:
            return None
        self._refused += 1
        return connection.respond(status, f"{status.phrase}\n")

    def _add_headers(self, _: ServerConnection, __: Request, response: Response) -> Response:
        for name, value in self._headers().items():
            response.headers[name] = value
        return response

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, ClientConnection) and connection.request is not None  # noqa: S101, PT018
        self._connects += 1
        client = self._accept(self._connects, connection, connection.request.path)
        self._clients[client.number] = client
        try:
            with suppress(ConnectionClosed):
                async for message in connection:
                    self._receive(client, message)
        finally:
            del self._clients[client.number]
            for each in client.running:
                each.cancel()
            self._leave_all(client)
