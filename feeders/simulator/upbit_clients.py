"""Upbit's WebSocket side: who may connect, what a client may send, and how connections end."""

import asyncio
import time
from http import HTTPStatus

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from feeders.simulator.background import Background
from feeders.simulator.connection import VenueConnection
from feeders.simulator.faults import Fault, FaultBoard, FaultError
from feeders.simulator.rate_limit import RateLimit
from feeders.simulator.upbit_conversation import UpbitConversation
from feeders.simulator.upbit_settings import UpbitSettings
from feeders.simulator.upbit_streams import Subscriber, UpbitStreams

PATH = "/websocket/v1"

_NORMAL = 1000
_NO_CLOSING_FRAME = 1006
_GOING_AWAY = 1001
_CLOSE_TIMEOUT = 2.0
_SLOW = 2000.0
"""Bytes a second, unless the fault says how many."""


class UpbitClients:
    """Every connection from its handshake to its end."""

    def __init__(
        self, settings: UpbitSettings, streams: UpbitStreams, faults: FaultBoard, background: Background
    ) -> None:
        self._settings = settings
        self._rules = settings.rules
        self._streams = streams
        self._faults = faults
        self._background = background
        self._subscribers: dict[int, Subscriber] = {}
        self._servers: list[Server] = []
        self._connecting = RateLimit(self._rules.connects, self._rules.connect_window)
        self._from_pages = RateLimit(1, self._rules.origin_window)
        self._connects = 0
        self._refused = 0
        self._errors = 0
        self._idle_cuts = 0
        self._refuses_until = 0.0
        self.port = settings.port

    async def listen(self) -> None:
        """Accept connections, on the same port as before if there was one."""
        server = await serve(
            self._serve,
            self._settings.host,
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
                    "requests": subscriber.requests,
                    "streams": len(subscriber.active),
                    "sent": subscriber.connection.sent,
                }
                for subscriber in self._subscribers.values()
            ],
            "connects": self._connects,
            "connects_refused": self._refused,
            "connects_highest": self._connecting.highest,
            "errors": self._errors,
            "idle_cuts": self._idle_cuts,
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
                self._strike(subscriber.connection, fault)

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

    def _strike(self, connection: VenueConnection, fault: Fault) -> None:
        match fault.kind:
            case "silence":
                connection.fall_silent(answers_pings=fault.value != "no pongs")
            case "half_open":
                connection.become_half_open()
            case "slow_drip":
                connection.slow_down(fault.number(_SLOW))
            case "reset":
                connection.reset()
            case "close" if fault.number(_NORMAL) == _NO_CLOSING_FRAME:
                connection.drop()
            case "close":
                self._close(connection, int(fault.number(_NORMAL)))
            case _:
                raise FaultError(f"this exchange knows no {fault.kind!r}")
        if fault.seconds is not None:
            self._background.call_later(fault.seconds, connection.recover)

    def _close(self, connection: VenueConnection, code: int) -> None:
        connection.send_queued()
        self._background.start(connection.close(code))

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """The answer to a handshake: None lets it pass."""
        status = self._refusal(request)
        if status is None:
            return None
        self._refused += 1
        return connection.respond(status, f"{status.phrase}\n")

    def _refusal(self, request: Request) -> HTTPStatus | None:
        # Each attempt counts, also one that is refused.
        too_many = self._connecting.exceeded()
        if time.monotonic() < self._refuses_until:
            return HTTPStatus.SERVICE_UNAVAILABLE
        if too_many or ("Origin" in request.headers and self._from_pages.exceeded()):
            return HTTPStatus.TOO_MANY_REQUESTS
        return None if request.path.partition("?")[0] == PATH else HTTPStatus.NOT_FOUND

    def _sign(self, _: ServerConnection, __: Request, response: Response) -> Response:
        response.headers["remaining-req"] = f"group=websocket; min=300; sec={self._connecting.left}"
        response.headers["limit-by-ip"] = "Yes"
        return response

    async def _serve(self, connection: ServerConnection) -> None:
        assert isinstance(connection, VenueConnection)  # noqa: S101
        self._connects += 1
        subscriber = Subscriber(self._connects, connection)
        self._subscribers[subscriber.number] = subscriber
        conversation = UpbitConversation(subscriber, self._rules, self._streams, self._faults, self._background)
        try:
            await conversation.run()
        finally:
            self._errors += conversation.was_refused
            self._idle_cuts += conversation.was_cut
            del self._subscribers[subscriber.number]
