"""A small simulated Upbit, and a low-level client of it."""

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from bookbus.feeders.simulator.upbit.exchange import UpbitSimulator
from bookbus.feeders.simulator.upbit.settings import UpbitRules
from bookbus.schemas.snapshot import Levels

LIMIT = 5.0

Frame = dict[str, Any]


def exchange(*symbols: str, rules: UpbitRules | None = None, **options: Any) -> UpbitSimulator:
    """A small simulator that starts quickly."""
    settings: dict[str, Any] = {"levels": 120, "rules": rules or UpbitRules()} | options
    return UpbitSimulator(symbols or ("KRW-BTC", "KRW-ETH", "BTC-ETH"), **settings)


@asynccontextmanager
async def client(of: UpbitSimulator, **options: Any) -> AsyncIterator[ClientConnection]:
    defaults: dict[str, Any] = {"compression": None, "ping_interval": None, "max_size": None, "close_timeout": 1}
    async with connect(f"{of.ws_url}/websocket/v1", **defaults | options) as connection:
        yield connection


def books(*codes: str, **more: Any) -> dict[str, Any]:
    """The part of a request that asks for books."""
    return {"type": "orderbook", "codes": codes, **more}


async def ask(connection: ClientConnection, *parts: dict[str, Any], form: str = "DEFAULT") -> None:
    await connection.send(json.dumps([{"ticket": "test"}, *parts, {"format": form}]))


async def receive(connection: ClientConnection) -> Any:
    """The next message, which is binary."""
    message = await asyncio.wait_for(connection.recv(), LIMIT)
    assert isinstance(message, bytes)
    return json.loads(message)


async def receive_some(connection: ClientConnection, count: int) -> list[Any]:
    return [await receive(connection) for _ in range(count)]


async def closing(connection: ClientConnection) -> int | None:
    """Code of the close frame; None without one."""
    async with asyncio.timeout(LIMIT):
        try:
            while True:
                await connection.recv()
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else None


def sides(frame: Frame) -> tuple[Levels, Levels]:
    """Bids and asks of a frame in any format, without padding levels."""
    if "ty" in frame:
        units, names = frame["obu"], ("bp", "bs", "ap", "as")
    else:
        units, names = frame["orderbook_units"], ("bid_price", "bid_size", "ask_price", "ask_size")
    rows = [tuple(unit[name] for name in names) for unit in units]
    bids = tuple((float(row[0]), float(row[1])) for row in rows if row[0])
    asks = tuple((float(row[2]), float(row[3])) for row in rows if row[2])
    return bids, asks


async def get(of: UpbitSimulator, path: str, **headers: str) -> tuple[int, Any, dict[str, str]]:
    """Status, body and headers of an answer."""
    return await asyncio.to_thread(_request, urllib.request.Request(of.rest_url + path, headers=headers))  # noqa: S310


async def post(of: UpbitSimulator, path: str, body: object) -> tuple[int, Any, dict[str, str]]:
    request = urllib.request.Request(of.rest_url + path, json.dumps(body).encode(), method="POST")  # noqa: S310
    return await asyncio.to_thread(_request, request)


def _request(request: urllib.request.Request) -> tuple[int, Any, dict[str, str]]:
    try:
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:  # noqa: S310
            return answer.status, json.load(answer), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error), dict(error.headers)
