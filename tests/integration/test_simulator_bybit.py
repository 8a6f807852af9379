"""The local Bybit speaks as the real one: a snapshot, then changes by a counter, its replies, limits and silences."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bookbus.feeders.simulator.bybit.exchange import BybitRules, BybitSimulator
from bookbus.feeders.simulator.core.faults import Fault, FaultError
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.snapshot import Levels

LIMIT = 5.0
BOOK = "orderbook.50.BTCUSDT"


def exchange(*symbols: str, **options: Any) -> BybitSimulator:
    """A small one, quick to start."""
    return BybitSimulator(symbols or ("BTCUSDT", "ETHUSDT"), **{"levels": 300} | options)


@asynccontextmanager
async def client(of: BybitSimulator, path: str = "/v5/public/spot") -> AsyncIterator[ClientConnection]:
    async with connect(of.ws_url + path, compression=None, ping_interval=None, close_timeout=1) as connection:
        yield connection


async def receive(connection: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await asyncio.wait_for(connection.recv(), LIMIT))
    return message


async def ask(connection: ClientConnection, op: str, *topics: str) -> dict[str, Any]:
    """The reply; data before it is dropped."""
    await connection.send(json.dumps({"req_id": "7", "op": op, "args": topics}))
    return await reply(connection)


async def reply(connection: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT):
        while "topic" in (message := await receive(connection)):
            pass
    return message


async def exhaust(connection: ClientConnection) -> None:
    while True:
        await receive(connection)


class Book:
    """A client's own."""

    def __init__(self) -> None:
        self.bids: dict[float, float] = {}
        self.asks: dict[float, float] = {}

    def apply(self, message: dict[str, Any]) -> None:
        for name, side in (("b", self.bids), ("a", self.asks)):
            if message["type"] == "snapshot":
                side.clear()
            for price, size in message["data"][name]:
                if size == "0":
                    del side[float(price)]
                else:
                    side[float(price)] = float(size)

    def levels(self, depth: int) -> tuple[Levels, Levels]:
        return tuple(sorted(self.bids.items(), reverse=True)[:depth]), tuple(sorted(self.asks.items())[:depth])


async def test_every_book_made_of_the_messages_is_the_true_one_at_its_id() -> None:
    async with exchange(changes=3) as bybit, client(bybit) as connection:
        topics = {f"orderbook.{depth}.BTCUSDT": depth for depth in (1, 50, 200)}
        assert (await ask(connection, "subscribe", *topics))["success"]
        books = {topic: Book() for topic in topics}
        ids: dict[str, list[int]] = {topic: [] for topic in topics}
        while min(map(len, ids.values())) < 15:
            message = await receive(connection)
            topic, data = message["topic"], message["data"]
            assert message["type"] == ("delta" if ids[topic] and topics[topic] > 1 else "snapshot")
            assert data["b"] or data["a"]
            books[topic].apply(message)
            ids[topic].append(data["u"])
            assert books[topic].levels(50) == bybit.truth("BTCUSDT", data["u"], min(50, topics[topic]))
            assert len(books[topic].bids) == topics[topic]

    for topic in ("orderbook.50.BTCUSDT", "orderbook.200.BTCUSDT"):
        assert ids[topic] == list(range(ids[topic][0], ids[topic][0] + len(ids[topic])))


async def test_a_prepared_market_is_as_true() -> None:
    async with exchange("BTCUSDT", prepared=0.5, levels=120) as bybit, client(bybit) as connection:
        await ask(connection, "subscribe", BOOK)
        book = Book()
        for _ in range(15):
            message = await receive(connection)
            book.apply(message)
            assert book.levels(50) == bybit.truth("BTCUSDT", message["data"]["u"], 50)


async def test_a_later_subscriber_joins_the_same_counter() -> None:
    async with exchange("BTCUSDT") as bybit, client(bybit) as first, client(bybit) as second:
        await ask(first, "subscribe", BOOK)
        await receive(first)
        await receive(first)
        await ask(second, "subscribe", BOOK)

        book = Book()
        for _ in range(5):
            message = await receive(second)
            book.apply(message)
            assert book.levels(50) == bybit.truth("BTCUSDT", message["data"]["u"], 50)


async def test_requests_are_answered_as_the_exchange_answers() -> None:
    async with exchange() as bybit, client(bybit) as connection:
        accepted = await ask(connection, "subscribe", BOOK)
        assert accepted == {
            "success": True,
            "ret_msg": "subscribe",
            "conn_id": accepted["conn_id"],
            "req_id": "7",
            "op": "subscribe",
        }
        for op, topics, message in (
            ("subscribe", [BOOK], f"error:already subscribed,topic:{BOOK}"),
            ("subscribe", ["orderbook.30.BTCUSDT"], "error:handler not found,topic:orderbook.30.BTCUSDT"),
            ("subscribe", ["orderbook.50.ETHUSDT", "orderbook.50.btcusdt"], "error:handler not found,topic:"),
            ("subscribe", ["publicTrade.ETHUSDT"] * 11, "args size >10"),
            ("dance", [], "error:invalid op"),
        ):
            refused = await ask(connection, op, *topics)
            assert (refused["success"], refused["req_id"], refused["op"]) == (False, "7", op)
            assert refused["ret_msg"].startswith(message)
        await connection.send("hello")
        assert (await reply(connection))["ret_msg"].startswith("Failed to decode incoming data")
        # One bad topic rejects its whole request.
        assert [each["streams"] for each in connections(bybit)] == [1]

        assert (await ask(connection, "unsubscribe", BOOK))["success"]
        assert [each["streams"] for each in connections(bybit)] == [0]


async def test_trades_name_the_taker() -> None:
    async with exchange("BTCUSDT", changes=60) as bybit, client(bybit) as connection:
        await ask(connection, "subscribe", "publicTrade.BTCUSDT")
        frames = [await receive(connection) for _ in range(30)]

        trades = [trade for frame in frames for trade in frame["data"]]
        ids = [int(trade["i"]) for trade in trades if not (trade["BT"] or trade["RPI"])]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert {trade["S"] for trade in trades} <= {"Buy", "Sell"}
        assert {(trade["BT"], trade["RPI"]) for trade in trades} == {(False, False), (True, False), (False, True)}
        assert {len(frame["data"]) for frame in frames} == {1, 2}


async def test_a_message_is_later_than_the_match() -> None:
    async with exchange("BTCUSDT") as bybit, client(bybit) as connection:
        await ask(connection, "subscribe", BOOK)
        books = [await receive(connection) for _ in range(3)]

        assert {book["ts"] - book["cts"] for book in books} == {5}


async def test_a_client_that_forgets_to_ping_is_cut_and_one_that_pings_is_not() -> None:
    async with exchange("BTCUSDT", rules=BybitRules().scaled(600)) as bybit, client(bybit) as silent:
        async with client(bybit) as pinging:
            await ask(silent, "subscribe", BOOK)
            while bybit.status()["idle_cuts"] == 0:
                await pinging.send('{"op":"ping","req_id":"9"}')
                pong = await receive(pinging)
                assert (pong["success"], pong["ret_msg"], pong["req_id"], pong["op"]) == (True, "pong", "9", "ping")
            with pytest.raises(ConnectionClosed) as ended:
                await exhaust(silent)
            assert ended.value.rcvd is None
            await pinging.send('{"op":"ping"}')
            assert (await receive(pinging))["op"] == "ping"
        assert bybit.status()["idle_cuts"] == 1


async def test_a_restart_brings_another_book_with_the_lowest_id_on_the_same_connection() -> None:
    async with exchange("BTCUSDT") as bybit, client(bybit) as connection:
        await ask(connection, "subscribe", BOOK)
        before = await receive(connection)
        bybit.inject(Fault(kind="cold_restart"))
        while (message := await receive(connection))["type"] != "snapshot":
            assert message["data"]["u"] > before["data"]["u"]
        following = await receive(connection)

        assert message["data"]["u"] == 1
        assert (following["type"], following["data"]["u"]) == ("delta", 2)
        for first in (before, message):
            book = Book()
            book.apply(first)
            assert book.levels(50) == bybit.truth("BTCUSDT", first["data"]["u"], 50)


async def test_only_the_spot_path_is_served() -> None:
    async with exchange() as bybit:
        with pytest.raises(InvalidStatus) as refused:
            async with client(bybit, "/v5/public/linear"):
                pass
        assert refused.value.response.status_code == 404


async def test_faults_that_this_exchange_cannot_have_are_refused() -> None:
    async with exchange() as bybit:
        for kind in ("server_shutdown", "stale_snapshot", "clock_skew", "same_time"):
            with pytest.raises(FaultError, match="knows no"):
                bybit.inject(Fault(kind=kind))
        with pytest.raises(FaultError, match="only messages of books"):
            bybit.inject(Fault(kind="drop", stream="trade"))


async def test_replies_can_be_lost_delayed_and_refused() -> None:
    async with exchange("BTCUSDT", rate=0.0) as bybit, client(bybit) as connection:
        bybit.inject(Fault(kind="ack_lost"))
        await connection.send(json.dumps({"op": "subscribe", "args": [BOOK]}))
        assert (await receive(connection))["topic"] == BOOK
        bybit.inject(Fault(kind="ack_error", value="no"))
        assert (await ask(connection, "unsubscribe", BOOK))["ret_msg"] == "no"
        bybit.inject(Fault(kind="ack_delayed", value=0.2))
        assert (await ask(connection, "unsubscribe", BOOK))["success"]
        bybit.inject(Fault(kind="subscribe_ignored"))
        await connection.send(json.dumps({"op": "subscribe", "args": [BOOK]}))
        assert (await ask(connection, "ping"))["ret_msg"] == "pong"
        assert [each["streams"] for each in connections(bybit)] == [0]


async def test_rest_lists_the_markets_and_their_day() -> None:
    async with exchange() as bybit:
        markets = (await get(bybit, "/v5/market/instruments-info?category=spot"))["result"]
        days = (await get(bybit, "/v5/market/tickers?category=spot&symbol=ETHUSDT"))["result"]

        assert [(each["symbol"], each["baseCoin"], each["quoteCoin"]) for each in markets["list"]] == [
            ("BTCUSDT", "BTC", "USDT"),
            ("ETHUSDT", "ETH", "USDT"),
        ]
        (day,) = days["list"]
        assert float(day["turnover24h"]) > 0
        assert float(day["bid1Price"]) < float(day["ask1Price"])
        for category in ("linear", "inverse", "option"):
            other = await get(bybit, f"/v5/market/instruments-info?category={category}")
            assert (other["retCode"], other["result"]["list"]) == (0, [])
        assert (await get(bybit, "/v5/market/tickers?category=margin"))["retCode"] == 10001
        assert (await get(bybit, "/v5/market/tickers?category=spot&symbol=NO"))["retCode"] == 10001


async def test_books_trades_candles_and_the_time_can_be_asked_for() -> None:
    async with exchange(changes=60) as bybit, client(bybit) as connection:
        await ask(connection, "subscribe", "publicTrade.BTCUSDT")
        streamed = {
            trade["i"]: trade["p"]
            for _ in range(8)
            for trade in (await receive(connection))["data"]
            if not (trade["BT"] or trade["RPI"])
        }
        book = (await get(bybit, "/v5/market/orderbook?category=spot&symbol=BTCUSDT&limit=50"))["result"]
        trades = (await get(bybit, "/v5/market/recent-trade?category=spot&symbol=BTCUSDT"))["result"]["list"]
        now = (await get(bybit, "/v5/market/time"))["result"]
        path = "/v5/market/kline?category=spot&symbol=BTCUSDT&interval=1&limit=3"
        candles = (await get(bybit, path))["result"]["list"]

        bids, asks = (tuple((float(price), float(size)) for price, size in book[side]) for side in ("b", "a"))
        assert (bids, asks) == bybit.truth("BTCUSDT", book["u"], 50)
    assert {trade["execId"]: trade["price"] for trade in trades}.items() >= streamed.items()
    assert [int(row[0]) for row in candles] == sorted((int(row[0]) for row in candles), reverse=True)
    assert len(candles) == 3
    assert int(now["timeNano"]) // 10**9 == int(now["timeSecond"])


@pytest.mark.parametrize(
    "path",
    [
        "orderbook?category=spot&symbol=NO",
        "orderbook?category=linear&symbol=BTCUSDT",
        "recent-trade?category=spot&symbol=BTCUSDT&limit=x",
        "kline?category=spot&symbol=BTCUSDT&interval=2",
        "kline?category=spot&symbol=BTCUSDT",
    ],
)
async def test_wrong_requests_are_told_so_in_the_body(path: str) -> None:
    async with exchange() as bybit:
        assert (await get(bybit, f"/v5/market/{path}"))["retCode"] == 10001


async def test_day_figures_begin_with_a_snapshot_and_candles_come_every_second() -> None:
    async with exchange() as bybit, client(bybit) as connection:
        await connection.send(json.dumps({"op": "subscribe", "args": ["tickers.BTCUSDT"]}))
        first = [await receive(connection) for _ in range(2)]
        await ask(connection, "unsubscribe", "tickers.BTCUSDT")
        await ask(connection, "subscribe", "kline.1.BTCUSDT")
        candles = [await receive(connection) for _ in range(2)]

    (ticker,) = (message for message in first if "topic" in message)
    assert (ticker["topic"], ticker["data"]["symbol"]) == ("tickers.BTCUSDT", "BTCUSDT")
    assert {candle["topic"] for candle in candles} == {"kline.1.BTCUSDT"}
    assert candles[1]["ts"] - candles[0]["ts"] == 1000


def test_the_process_serves_it_and_knows_the_truth() -> None:
    with SimulatorProcess(["BTCUSDT"], exchange="bybit", levels=100, clock_speed=10) as bybit:
        truths = bybit.truths("BTCUSDT")

        assert truths
        assert all(bids[0][0] < asks[0][0] for bids, asks in truths.values())
        assert bybit.truth("BTCUSDT", min(truths) - 1) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"rate": 11}, "rate"), ({"changes": 0}, "changes"), ({"levels": 9}, "levels"), ({"truth_flushes": 9}, "truth")],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        exchange(**options)


def connections(bybit: BybitSimulator) -> list[dict[str, Any]]:
    """What the exchange says of its open connections."""
    found: Any = bybit.status()["connections"]
    return list(found)


async def get(of: BybitSimulator, path: str) -> dict[str, Any]:
    def request() -> dict[str, Any]:
        with urllib.request.urlopen(of.rest_url + path, timeout=LIMIT) as answer:  # noqa: S310
            body: dict[str, Any] = json.load(answer)
            return body

    return await asyncio.to_thread(request)
