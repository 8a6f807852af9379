"""A small simulated Binance, and a low-level client of it."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import Message
from typing import Any, NamedTuple

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.schemas.snapshot import Levels

LIMIT = 5.0


def exchange(*symbols: str, **options: Any) -> BinanceSimulator:
    """A small simulator that starts quickly."""
    return BinanceSimulator(symbols or ("BTCUSDT", "ETHUSDT"), **{"levels": 300, "seed": 1} | options)


@asynccontextmanager
async def client(of: BinanceSimulator, path: str = "/stream", **options: Any) -> AsyncIterator[ClientConnection]:
    defaults: dict[str, Any] = {"compression": None, "ping_interval": None, "max_size": None, "close_timeout": 1}
    async with connect(of.ws_url + path, **defaults | options) as connection:
        yield connection


async def receive(connection: ClientConnection) -> Any:
    return json.loads(await asyncio.wait_for(connection.recv(), LIMIT))


async def ask(connection: ClientConnection, method: str, *parameters: Any, request_id: int = 1) -> Any:
    """The reply; market data before it is dropped."""
    await connection.send(json.dumps({"method": method, "params": parameters, "id": request_id}))
    async with asyncio.timeout(LIMIT):
        while True:
            message = await receive(connection)
            if "stream" not in message and "id" in message:
                return message


async def closing(connection: ClientConnection) -> tuple[int | None, str]:
    """Code and reason of the close frame."""
    async with asyncio.timeout(LIMIT):
        try:
            while True:
                await connection.recv()
        except ConnectionClosed:
            return connection.close_code, connection.close_reason or ""


class Answer(NamedTuple):
    status: int
    body: Any
    headers: Message


async def get(of: BinanceSimulator, path: str, timeout: float = LIMIT) -> Answer:
    return await asyncio.to_thread(_request, urllib.request.Request(of.rest_url + path), timeout)  # noqa: S310


async def post(of: BinanceSimulator, path: str, body: object) -> Answer:
    request = urllib.request.Request(of.rest_url + path, json.dumps(body).encode(), method="POST")  # noqa: S310
    return await asyncio.to_thread(_request, request, LIMIT)


def _request(request: urllib.request.Request, timeout: float) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            return Answer(answer.status, json.load(answer), answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            body = error.read()
            return Answer(error.code, json.loads(body) if body.startswith(b"{") else body, error.headers)


def levels(texts: list[list[str]]) -> Levels:
    return tuple((float(price), float(quantity)) for price, quantity in texts)


class Book:
    """A client's book, maintained by the rules of the exchange."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.update_id: int = snapshot["lastUpdateId"]
        self._bids = dict(levels(snapshot["bids"]))
        self._asks = dict(levels(snapshot["asks"]))

    def apply(self, event: dict[str, Any]) -> bool:
        """False if the event is old. A gap fails the test."""
        if event["u"] <= self.update_id:
            return False
        assert event["U"] <= self.update_id + 1, "gap"
        self.update_id = event["u"]
        for side, changes in ((self._bids, event["b"]), (self._asks, event["a"])):
            for price, quantity in levels(changes):
                if quantity:
                    side[price] = quantity
                else:
                    side.pop(price, None)
        return True

    def top(self, depth: int = 20) -> tuple[Levels, Levels]:
        return tuple(sorted(self._bids.items(), reverse=True)[:depth]), tuple(sorted(self._asks.items())[:depth])
