"""What a connection that cannot be made says of the exchange."""

import socket
from contextlib import closing

import pytest

from feeders.errors import WebSocketConnectionError, WebSocketUnavailableError
from feeders.simulator.process import SimulatorProcess
from feeders.websocket_client import BaseWebSocketClient


class Client(BaseWebSocketClient):
    """Takes nothing, asks for nothing."""

    async def subscribe(self, channels: object = None) -> None: ...

    def on_message(self, message: bytes) -> None: ...


async def test_where_nobody_listens_nobody_is_there() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(WebSocketUnavailableError, match="cannot connect to ws://127"):
        await Client(f"ws://127.0.0.1:{port}").connect()


async def test_who_hangs_up_without_a_word_is_not_there() -> None:
    with SimulatorProcess(symbols=1) as exchange:
        exchange.inject(kind="refuse_connections", seconds=60.0)

        with pytest.raises(WebSocketUnavailableError):
            await Client(exchange.ws_url).connect()


async def test_a_gateway_that_says_503_is_an_outage() -> None:
    with SimulatorProcess(symbols=1) as exchange:
        exchange.inject(kind="refuse_connections", value="http", seconds=60.0)

        with pytest.raises(WebSocketUnavailableError, match="503"):
            await Client(exchange.ws_url).connect()


async def test_who_refuses_the_handshake_is_there() -> None:
    with SimulatorProcess(symbols=1) as exchange, pytest.raises(WebSocketConnectionError, match="404") as refused:
        await Client(f"{exchange.ws_url}/nothing/here").connect()

    assert not isinstance(refused.value, WebSocketUnavailableError)
