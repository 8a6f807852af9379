"""What a connection that cannot be made says of the exchange, and what one does that brings more than is taken."""

import asyncio
import socket
from contextlib import closing

import pytest
from websockets.asyncio.server import ServerConnection, serve

from bookbus.feeders.errors import WebSocketConnectionError, WebSocketUnavailableError
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.feeders.websocket_client import MAX_QUEUED, BaseWebSocketClient
from tests.support.waiting import await_for


class Client(BaseWebSocketClient):
    """Asks for nothing, keeps what comes."""

    def __init__(self, url: str, timeout: float = 10.0) -> None:
        super().__init__(url, timeout=timeout)
        self.taken: list[bytes] = []

    async def subscribe(self, channels: object = None) -> None: ...

    def on_message(self, message: bytes) -> None:
        self.taken.append(message)

    @property
    def is_reading(self) -> bool:
        """Whether more is read from the socket."""
        return self._require_socket().transport.is_reading()


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


@pytest.mark.parametrize(
    ("answer", "outage"),
    [
        (b"", True),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", True),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", False),
        (b"HTTP/1.1 418 I'm a teapot\r\n\r\n", False),
        (b"220 mail.example.com ESMTP\r\n", False),
    ],
)
async def test_the_first_words_tell_an_outage_from_a_refusal(answer: bytes, outage: bool) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        with pytest.raises(WebSocketConnectionError) as failed:
            await Client(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}").connect()

    assert isinstance(failed.value, WebSocketUnavailableError) == outage


async def test_who_never_answers_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = Client(f"ws://127.0.0.1:{silent.getsockname()[1]}", timeout=0.05)

        with pytest.raises(WebSocketUnavailableError, match="did not answer in time"):
            await client.connect()


async def test_a_proxy_of_no_use_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in ("ftp://me:s3cret@127.0.0.1:1", "socks5://me:s3cret@127.0.0.1:1"):
        monkeypatch.setenv("wss_proxy", proxy)
        monkeypatch.setenv("https_proxy", proxy)

        with pytest.raises(WebSocketConnectionError) as failed:
            await Client("wss://exchange.invalid").connect()

        assert "s3cret" not in str(failed.value)


async def test_what_is_not_taken_yet_is_not_read_without_end_and_nothing_of_it_is_lost() -> None:
    sent = [b"%d" % number for number in range(3 * MAX_QUEUED)]

    async def send(connection: ServerConnection) -> None:
        for message in sent:
            await connection.send(message)
        await connection.wait_closed()

    async with serve(send, "127.0.0.1", 0) as server:
        client = Client(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await client.connect()
        await await_for(lambda: not client.is_reading)
        taking = asyncio.create_task(client.receive_loop())
        await await_for(lambda: len(client.taken) == len(sent))
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)

    assert client.taken == sent
