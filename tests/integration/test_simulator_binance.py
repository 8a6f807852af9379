"""The local Binance exchange over real sockets: what its streams say, and that they lead to the truth."""

import asyncio
import json
import time
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import pytest

from bookbus.feeders.simulator.core.faults import Fault
from tests.support.simulated_exchange import LIMIT, Book, ask, client, exchange, get, levels, receive


async def test_a_raw_connection_gets_the_bare_payload() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        event = await receive(connection)

    assert list(event) == ["e", "E", "s", "U", "u", "b", "a"]
    assert (event["e"], event["s"]) == ("depthUpdate", "BTCUSDT")
    assert all(len(text.partition(".")[2]) == 8 for level in event["b"] + event["a"] for text in level)


async def test_a_combined_connection_gets_wrapped_payloads_of_the_streams_in_its_address() -> None:
    streams = ["btcusdt@depth@100ms", "ethusdt@depth20@100ms"]
    async with exchange() as simulator, client(simulator, f"/stream?streams={'/'.join(streams)}") as connection:
        seen: dict[str, Any] = {}
        while len(seen) < 2:
            message = await receive(connection)
            assert list(message) == ["stream", "data"]
            seen[message["stream"]] = message["data"]

    assert set(seen) == set(streams)
    assert list(seen["ethusdt@depth20@100ms"]) == ["lastUpdateId", "bids", "asks"]


async def test_an_address_may_be_percent_encoded() -> None:
    async with (
        exchange("币安人生USDT") as simulator,
        client(simulator, f"/stream?streams={quote('币安人生usdt@depth@100ms')}") as connection,
    ):
        message = await receive(connection)

    assert message["stream"] == "币安人生usdt@depth@100ms"
    assert message["data"]["s"] == "币安人生USDT"


async def test_diffs_on_the_grid_of_100_ms_follow_each_other_without_holes() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        events = [await receive(connection) for _ in range(5)]

    assert [later["U"] - earlier["u"] for earlier, later in pairwise(events)] == [1] * 4
    assert [later["E"] - earlier["E"] for earlier, later in pairwise(events)] == [100] * 4
    assert all(event["E"] % 100 == 0 for event in events)


async def test_the_slow_diff_stream_sums_up_a_second() -> None:
    async with (
        exchange() as simulator,
        client(simulator, "/stream?streams=btcusdt@depth/btcusdt@depth@100ms") as connection,
    ):
        slow: list[dict[str, Any]] = []
        fast: dict[int, dict[str, Any]] = {}
        while len(slow) < 2:
            message = await receive(connection)
            if message["stream"] == "btcusdt@depth":
                slow.append(message["data"])
            else:
                fast[message["data"]["U"]] = message["data"]

    assert slow[1]["U"] == slow[0]["u"] + 1
    assert slow[1]["E"] - slow[0]["E"] == 1000
    quick = [fast[first] for first in sorted(fast) if slow[1]["U"] <= first <= slow[1]["u"]]
    assert quick[-1]["u"] == slow[1]["u"]
    for side in ("b", "a"):
        assert dict(slow[1][side]) == dict(level for event in quick for level in event[side])


async def test_partial_depth_has_the_asked_number_of_levels_and_is_the_truth() -> None:
    depths = {f"btcusdt@depth{depth}@100ms": depth for depth in (5, 10, 20)}
    async with exchange() as simulator, client(simulator, f"/stream?streams={'/'.join(depths)}") as connection:
        for message in [await receive(connection) for _ in range(9)]:
            book, depth = message["data"], depths[message["stream"]]
            assert (len(book["bids"]), len(book["asks"])) == (depth, depth)
            assert (levels(book["bids"]), levels(book["asks"])) == simulator.truth(
                "BTCUSDT", book["lastUpdateId"], depth
            )


async def test_partial_depth_of_a_market_at_rest_is_sent_once() -> None:
    streams = [f"{symbol}@depth5@100ms" for symbol in ("btcusdt", "ethusdt", "bnbusdt")]
    async with exchange("BTCUSDT", "ETHUSDT", "BNBUSDT", rate=0.0) as simulator, client(simulator) as connection:
        seen = []
        for stream in streams:  # each takes a flush of its own
            await connection.send(json.dumps({"method": "SUBSCRIBE", "params": [stream], "id": 1}))
            seen += [await receive(connection), await receive(connection)]

    assert [message["stream"] for message in seen if "stream" in message] == streams


STATISTICS = [
    ("btcusdt@ticker", "24hrTicker"),
    ("btcusdt@miniTicker", "24hrMiniTicker"),
    ("btcusdt@ticker_1h", "1hTicker"),
    ("btcusdt@avgPrice", "avgPrice"),
    ("btcusdt@kline_1s", "kline"),
    ("btcusdt@kline_1m", "kline"),
    ("btcusdt@kline_1d@+08:00", "kline"),
    ("!miniTicker@arr", "24hrMiniTicker"),
    ("!miniTicker@arr@1000ms", "24hrMiniTicker"),
    ("!ticker@arr", "24hrTicker"),
    ("!ticker_4h@arr", "4hTicker"),
]


async def test_statistics_are_sent_on_every_stream_that_is_acknowledged() -> None:
    names = [name for name, _ in STATISTICS]
    async with exchange() as simulator, client(simulator, "/stream") as connection:
        assert (await ask(connection, "SUBSCRIBE", *names))["result"] is None
        found: dict[str, Any] = {}
        async with asyncio.timeout(LIMIT):
            while len(found) < len(names):
                message = await receive(connection)
                found[message["stream"]] = message["data"]

    for name, event in STATISTICS:
        data = found[name]
        events = data if name.startswith("!") else [data]
        assert {each["e"] for each in events} == {event}, name
        assert [each["s"] for each in events] == (["BTCUSDT", "ETHUSDT"] if name.startswith("!") else ["BTCUSDT"])


async def test_a_candle_of_a_second_ends_and_holds_the_trades_of_its_second() -> None:
    streams = "btcusdt@kline_1s/btcusdt@aggTrade"
    async with exchange(changes=60) as simulator, client(simulator, f"/ws/{streams}") as connection:
        trades: list[Any] = []
        candles: list[Any] = []
        while len(candles) < 3:
            message = await receive(connection)
            (candles if message["e"] == "kline" else trades).append(message)

    candle = candles[-1]["k"]
    own = [trade for trade in trades if candle["t"] <= trade["T"] <= candle["T"]]
    assert candle["x"] is True
    assert candle["T"] - candle["t"] == 999
    assert (candle["o"], candle["c"]) == (own[0]["p"], own[-1]["p"])
    assert (candle["f"], candle["L"]) == (own[0]["f"], own[-1]["l"])
    assert float(candle["v"]) == pytest.approx(sum(float(trade["q"]) for trade in own))
    assert float(candle["h"]) == max(float(trade["p"]) for trade in own)


async def test_book_ticker_trades_and_aggregate_trades_report_what_happened() -> None:
    streams = "btcusdt@bookTicker/btcusdt@trade/btcusdt@aggTrade"
    async with exchange() as simulator, client(simulator, f"/stream?streams={streams}") as connection:
        seen: dict[str, list[dict[str, Any]]] = {name: [] for name in streams.split("/")}
        while min(map(len, seen.values())) < 10:
            message = await receive(connection)
            seen[message["stream"]].append(message["data"])
    quotes, trades, aggregates = seen.values()

    assert list(quotes[0]) == ["u", "s", "b", "B", "a", "A"]
    assert list(trades[0]) == ["e", "E", "s", "t", "p", "q", "T", "m", "M"]
    assert list(aggregates[0]) == ["e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"]
    assert all(float(quote["b"]) < float(quote["a"]) for quote in quotes)
    assert [trade["t"] for trade in trades] == list(range(trades[0]["t"], trades[0]["t"] + len(trades)))
    by_id = {trade["t"]: trade for trade in trades}
    whole = [each for each in aggregates if {each["f"], each["l"]} <= set(by_id)]
    assert whole
    for each in whole:
        parts = [by_id[trade_id] for trade_id in range(each["f"], each["l"] + 1)]
        assert {part["p"] for part in parts} == {each["p"]}
        assert sum(float(part["q"]) for part in parts) == pytest.approx(float(each["q"]))


async def test_times_come_in_microseconds_if_asked() -> None:
    async with (
        exchange() as simulator,
        client(simulator, "/stream?streams=btcusdt@depth@100ms&timeUnit=microsecond") as connection,
    ):
        event = (await receive(connection))["data"]

    assert abs(event["E"] / 1e6 - time.time()) < 60


async def test_two_clients_get_the_same_frames_and_each_its_own_form() -> None:
    async with (
        exchange() as simulator,
        client(simulator, "/ws/btcusdt@depth@100ms") as raw,
        client(simulator, "/stream?streams=btcusdt@depth@100ms") as combined,
    ):
        bare = {event["u"]: event for event in [await receive(raw) for _ in range(4)]}
        wrapped = [(await receive(combined))["data"] for _ in range(4)]

    common = [event for event in wrapped if event["u"] in bare]
    assert common
    assert all(bare[event["u"]] == event for event in common)


@pytest.mark.parametrize("options", [{}, {"prepared": 0.5}, {"snapshot_mode": "unflushed"}, {"snapshot_mode": "ahead"}])
async def test_a_client_s_book_equals_the_truth_at_every_id(options: dict[str, Any]) -> None:
    async with exchange(**options) as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        first = await receive(connection)
        book = Book((await get(simulator, "/api/v3/depth?symbol=BTCUSDT&limit=5000")).body)
        assert book.top() == simulator.truth("BTCUSDT", book.update_id)
        book.apply(first)
        applied = 0
        while applied < 15:
            if book.apply(await receive(connection)):
                applied += 1
                assert book.top() == simulator.truth("BTCUSDT", book.update_id)


async def test_a_snapshot_has_the_id_of_a_flush_unless_set_otherwise() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        await receive(connection)
        snapshot = (await get(simulator, "/api/v3/depth?symbol=BTCUSDT")).body
        ids = [(await receive(connection)) for _ in range(3)]

    assert snapshot["lastUpdateId"] in {event["u"] for event in ids} | {ids[0]["U"] - 1}


async def test_a_snapshot_may_lie_inside_the_next_diff() -> None:
    async with (
        exchange(snapshot_mode="unflushed") as simulator,
        client(simulator, "/ws/btcusdt@depth@100ms") as connection,
    ):
        await receive(connection)
        last = (await get(simulator, "/api/v3/depth?symbol=BTCUSDT")).body["lastUpdateId"]
        events = [await receive(connection)]
        while events[-1]["u"] < last:
            events.append(await receive(connection))

    assert events[-1]["U"] <= last < events[-1]["u"]


async def test_a_snapshot_may_be_ahead_of_the_stream() -> None:
    async with exchange(snapshot_mode="ahead") as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        await receive(connection)
        last = (await get(simulator, "/api/v3/depth?symbol=BTCUSDT")).body["lastUpdateId"]
        events = [await receive(connection) for _ in range(4)]

    assert sum(event["u"] <= last for event in events) >= 3


async def test_a_stale_snapshot_is_older_than_the_stream_for_so_many_requests() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@depth@100ms") as connection:
        simulator.inject(Fault(kind="stale_snapshot", symbols=("BTCUSDT",), count=2))
        await receive(connection)
        first = (await receive(connection))["U"]
        ids = [(await get(simulator, "/api/v3/depth?symbol=BTCUSDT")).body["lastUpdateId"] for _ in range(3)]

    assert ids[0] == ids[1] < first - 1
    assert ids[2] > first


async def test_the_truth_is_known_at_the_id_of_every_quote() -> None:
    async with exchange() as simulator, client(simulator, "/ws/btcusdt@bookTicker") as connection:
        for _ in range(20):
            quote = await receive(connection)
            truth = simulator.truth("BTCUSDT", quote["u"], depth=1)
            assert truth == (levels([[quote["b"], quote["B"]]]), levels([[quote["a"], quote["A"]]]))
