"""What every local exchange's WebSocket side does alike: let clients in, count them, and end or spoil connections."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Generic, Protocol, TypeVar

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from bookbus.feeders.simulator.core.connection import VenueConnection
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard, FaultError


class Background:
    """Everything that runs beside the servers."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._error: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside everything else until done or stopped."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def call_later(self, seconds: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        """Call once after a while, unless stopped before."""
        # Spent timers are let go when the next one is set.
        loop = asyncio.get_running_loop()
        self._timers = {timer for timer in self._timers if not timer.cancelled() and timer.when() > loop.time()}
        timer = loop.call_later(seconds, action)
        self._timers.add(timer)
        return timer

    async def stop(self) -> None:
        """Cancel everything. Raises what a task died of."""
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
            task.get_loop().call_exception_handler(
                {"message": "simulator task failed", "exception": self._error, "task": task}
            )


class RateLimit:
    """At most `limit` within `window` seconds. `clock` is monotonic."""

    def __init__(self, limit: int, window: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._window = window
        self._clock = clock
        self._times: deque[float] = deque()
        self.highest = 0
        """The most that came within one window."""

    @property
    def left(self) -> int:
        """How many are allowed now."""
        self._roll(self._clock())
        return max(0, self._limit - len(self._times))

    def exceeded(self) -> bool:
        """Count one; whether it is one too many."""
        now = self._clock()
        self._roll(now)
        self._times.append(now)
        self.highest = max(self.highest, len(self._times))
        return len(self._times) > self._limit

    def _roll(self, now: float) -> None:
        while self._times and self._times[0] <= now - self._window:
            self._times.popleft()


NORMAL = 1000
GOING_AWAY = 1001
_NO_CLOSING_FRAME = 1006
_CLOSE_TIMEOUT = 2.0
_SLOW = 2000.0
"""Bytes a second, unless the fault says how many."""


class Client(Protocol):
    """One connection and whatever else the venue knows of it."""

    number: int
    connection: VenueConnection


ClientT = TypeVar("ClientT", bound=Client)


class VenueClients(ABC, Generic[ClientT]):
    """Every connection from its handshake to its end; a venue says whom it refuses and how it converses."""

    def __init__(
        self, address: tuple[str, int], connecting: RateLimit, faults: FaultBoard, background: Background
    ) -> None:
        """`address`: host and port of the sockets; `connecting` counts every attempt."""
        self._host, self.port = address
        self._connecting = connecting
        self._faults = faults
        self._background = background
        self._clients: dict[int, ClientT] = {}
        self._servers: list[Server] = []
        self._connects = 0
        self._refused = 0
        self._refuses_until = 0.0

    @abstractmethod
    def _refusal(self, request: Request) -> HTTPStatus | None:
        """Why a handshake fails that is not one too many; None lets it pass."""

    @abstractmethod
    def _welcome(self, number: int, connection: VenueConnection) -> ClientT:
        """What is known of a connection that has just been accepted."""

    @abstractmethod
    async def _converse(self, client: ClientT) -> None:
        """Until the connection is closed by either side."""

    @abstractmethod
    def _describe(self, client: ClientT) -> dict[str, object]:
        """What the status tells of a connection, beside its number and what was sent."""

    def _headers(self) -> Mapping[str, str]:
        """What the venue adds to its answer to a handshake."""
        return {}

    def _strike_in_own_way(self, client: ClientT, fault: Fault) -> None:
        """Play a fault that only this venue has. Raises FaultError."""
        raise FaultError(f"this exchange knows no {fault.kind!r}")

    async def listen(self) -> None:
        """Accept connections, on the same port as before if there was one."""
        server = await serve(
            self._serve,
            self._host,
            self.port,
            process_request=self._admit,
            process_response=self._sign,
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
        for client in list(self._clients.values()):
            if client.connection.is_mute:
                client.connection.reset()
        closing = [client.connection.close(GOING_AWAY) for client in self._clients.values()]
        await asyncio.gather(*closing, return_exceptions=True)
        for server in self._servers:
            server.close()
            await server.wait_closed()

    def send_queued(self) -> None:
        """Let go what the market queued."""
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
        if fault.symbols is not None:
            raise FaultError(f"{fault.kind} strikes connections, not symbols")
        if fault.connection is not None and fault.connection not in self._clients:
            raise FaultError(f"no connection {fault.connection}; open: {list(self._clients)}")
        for client in list(self._clients.values()):
            if fault.connection in (None, client.number):
                self._faults.played[fault.kind] += 1
                self._strike(client, fault)

    def drop_all(self) -> None:
        """End every connection without a word."""
        for client in list(self._clients.values()):
            client.connection.drop()

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
        for client in self._clients.values():
            client.connection.recover()

    def _close(self, client: ClientT, code: int, reason: str = "") -> None:
        client.connection.send_queued()
        self._background.start(client.connection.close(code, reason))

    def _strike(self, client: ClientT, fault: Fault) -> None:
        """Play `fault` on this connection; with `seconds`, silence and slowness end by themselves."""
        connection = client.connection
        match fault.kind:
            case "silence":
                connection.fall_silent(answers_pings=fault.value != "no pongs")
            case "half_open":
                connection.become_half_open()
            case "slow_drip":
                connection.slow_down(fault.number(_SLOW))
            case "reset":
                connection.reset()
            case "close" if fault.number(NORMAL) == _NO_CLOSING_FRAME:
                connection.drop()
            case "close":
                self._close(client, int(fault.number(NORMAL)))
            case _:
                self._strike_in_own_way(client, fault)
        if fault.seconds is not None:
            self._background.call_later(fault.seconds, connection.recover)

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a handshake: None lets it pass."""
        # Each attempt counts, also one that is refused.
        too_many = self._connecting.exceeded()
        if time.monotonic() < self._refuses_until:
            status: HTTPStatus | None = HTTPStatus.SERVICE_UNAVAILABLE
        else:
            status = HTTPStatus.TOO_MANY_REQUESTS if too_many else self._refusal(request)
        if status is None:
            return None
        self._refused += 1
        return connection.respond(status, f"{status.phrase}\n")

    def _sign(self, _: ServerConnection, __: Request, response: Response) -> Response:
        for name, value in self._headers().items():
            response.headers[name] = value
        return response

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, VenueConnection)  # noqa: S101
        self._connects += 1
        client = self._welcome(self._connects, connection)
        self._clients[client.number] = client
        try:
            await self._converse(client)
        finally:
            del self._clients[client.number]
