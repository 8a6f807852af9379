"""Bybit's WebSocket side: who may connect, what a client may send, and the pings it must not forget."""

import asyncio
from contextlib import suppress
from http import HTTPStatus

from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request

from bookbus.feeders.simulator import bybit_control as control
from bookbus.feeders.simulator.background import Background
from bookbus.feeders.simulator.bybit.settings import BybitSettings
from bookbus.feeders.simulator.bybit_streams import BybitStreams, Subscriber
from bookbus.feeders.simulator.core.connection import VenueConnection, encode_frame
from bookbus.feeders.simulator.core.faults import FaultBoard
from bookbus.feeders.simulator.core.websocket_server import VenueClients
from bookbus.feeders.simulator.rate_limit import RateLimit

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
        if self._faults.strike("subscribe_ignored", connection=client.number):
            return
        if fault := self._faults.strike("ack_error", connection=client.number):
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
        if self._faults.strike("ack_lost", connection=client.number):
            return
        if fault := self._faults.strike("ack_delayed", connection=client.number):
            self._background.call_later(fault.number(1.0), lambda: self._send(client, text))
            return
        self._send(client, text)

    def _send(self, client: Subscriber, text: str) -> None:
        client.connection.queue(encode_frame(text.encode()))
        client.connection.send_queued()
