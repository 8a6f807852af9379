"""The real feeder as a process of the world: its WebSocket library and its HTTP requests are the world's."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Mapping
from typing import Any
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosedError

from bookbus.feeders.errors import RestError
from bookbus.feeders.exchange_feed import ConnectionSettings
from bookbus.feeders.exchanges.binance_ws_adapter import VENUE
from bookbus.feeders.feeder import Feeder, FeederSettings
from bookbus.feeders.markets import parse_selection
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.venue import FeedMode, FeedOptions
from bookbus.schemas.instruments import EXCHANGES, InstrumentRegistry, guess_instrument
from tests.simulation.exchange import PING, PONG
from tests.simulation.world import Connection, TaskProcess, running


def make_feeder(natives: list[str], exchange_host: str, mode: FeedMode, depth: int, lines: int, name: str) -> Feeder:
    """A feeder of these symbols; within a process."""
    instruments = [guess_instrument(EXCHANGES["binance"], native) for native in natives]
    settings = FeederSettings(
        exchange="binance",
        selection=parse_selection([instrument.symbol for instrument in instruments]),
        redis_url="redis://bus:6379/0",
        ws_url=f"wss://{exchange_host}",
        rest_url=f"https://{exchange_host}",
        feeder_name=name,
        options=FeedOptions(mode=mode, depth=depth, topics=frozenset({"book", "trades"})),
        connection=ConnectionSettings(lines=lines),
    )
    return Feeder(settings, VENUE, InstrumentRegistry(EXCHANGES["binance"], instruments), instruments)


class WebSocket:
    """What `BaseWebSocketClient` uses of a connection of the library."""

    def __init__(self, connection: Connection) -> None:
        self.transport = self
        self._connection = connection
        self._frames: deque[bytes] = deque()
        self._pongs: deque[asyncio.Future[None]] = deque()
        self._changed = asyncio.Event()
        connection.receive = self._receive

    async def recv(self, decode: bool | None = None) -> bytes:
        while not self._frames:
            if self._connection.ended:
                raise ConnectionClosedError(None, None)
            self._changed.clear()
            await self._changed.wait()
        return self._frames.popleft()

    async def send(self, text: str) -> None:
        if self._connection.ended:
            raise ConnectionClosedError(None, None)
        self._connection.send(text)

    async def ping(self) -> Awaitable[None]:
        if self._connection.ended:
            raise ConnectionClosedError(None, None)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(future)
        self._connection.send(PING)
        return future

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._connection.close(drop=True)
        self._changed.set()

    def _receive(self, message: Any) -> None:
        if message == PONG:
            future = self._pongs.popleft()
            if not future.done():
                future.set_result(None)
        elif message is not None:
            self._frames.append(message)
        self._changed.set()


async def websocket_connect(url: str, open_timeout: float = 10.0, **_: Any) -> WebSocket:
    """In place of the library's `connect`."""
    async with asyncio.timeout(open_timeout):
        return WebSocket(await _process().connect(str(urlsplit(url).hostname)))


async def rest_get(
    self: RestClient,
    path: str,
    parameters: Mapping[str, str | int],
    weight: int,
    *,
    urgent: bool = True,
    patience: float | None = None,
) -> bytes:
    """In place of `RestClient.get`."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Any] = loop.create_future()

    def receive(body: Any) -> None:
        if not answer.done():
            answer.set_result(body)

    try:
        async with asyncio.timeout(patience or 10.0):
            connection = await _process().connect(str(urlsplit(self.base_url).hostname))
            connection.receive = receive
            connection.send((path, dict(parameters)))
            body = await answer
            connection.close()
    except (TimeoutError, OSError) as error:
        raise RestError(f"{path}: {error!r}") from error
    if body is None:
        raise RestError(f"{path}: connection closed")
    return bytes(body)


def _process() -> TaskProcess:
    process = running()
    assert isinstance(process, TaskProcess)
    return process
