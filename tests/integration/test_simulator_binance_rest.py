"""The local Binance exchange over real sockets: REST answers, weights and errors."""

import asyncio
import time
from urllib.parse import quote

import pytest

from bookbus.feeders.simulator.binance.settings import BinanceRules
from bookbus.feeders.simulator.core.faults import Fault
from tests.support.simulated_exchange import LIMIT, client, exchange, get, levels, receive


@pytest.mark.parametrize(
    ("path", "weight"),
    [
        ("/api/v3/depth?symbol=BTCUSDT", 5),
        ("/api/v3/depth?symbol=BTCUSDT&limit=100", 5),
        ("/api/v3/depth?symbol=BTCUSDT&limit=101", 25),
        ("/api/v3/depth?symbol=BTCUSDT&limit=1000", 50),
        ("/api/v3/depth?symbol=BTCUSDT&limit=1001", 250),
        ("/api/v3/depth?symbol=BTCUSDT&limit=9999", 250),
        ("/api/v3/exchangeInfo", 20),
        ("/api/v3/time", 1),
        ("/api/v3/ping", 1),
        ("/api/v3/ticker/bookTicker", 4),
        ("/api/v3/ticker/bookTicker?symbol=BTCUSDT", 2),
        ("/api/v3/ticker/24hr?type=MINI", 80),
        ("/api/v3/ticker/24hr?type=MINI&symbol=ETHUSDT", 2),
    ],
)
async def test_each_request_costs_its_weight(path: str, weight: int) -> None:
    async with exchange() as simulator:
        answer = await get(simulator, path)

        assert answer.status == 200
        assert answer.headers["x-mbx-used-weight-1m"] == str(weight)
        assert simulator.status()["weight_used"] == weight


async def test_depth_has_as_many_levels_as_asked_up_to_5000() -> None:
    async with exchange("BTCUSDT", levels=5200) as simulator:
        counts = []
        for limit in ("", "&limit=1", "&limit=700", "&limit=5000", "&limit=20000"):
            body = (await get(simulator, f"/api/v3/depth?symbol=BTCUSDT{limit}")).body
            assert list(body) == ["lastUpdateId", "bids", "asks"]
            assert levels(body["bids"]) == tuple(sorted(levels(body["bids"]), reverse=True))
            counts.append((len(body["bids"]), len(body["asks"])))

    assert counts == [(100, 100), (1, 1), (700, 700), (5000, 5000), (5000, 5000)]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/v3/depth?symbol=NOPE", -1121),
        ("/api/v3/depth?symbol=btcusdt", -1121),
        ("/api/v3/depth", -1102),
        ("/api/v3/depth?symbol=BTCUSDT&limit=many", -1100),
        ("/api/v3/depth?symbol=BTCUSDT&limit=0", -1130),
        ("/api/v3/depth?symbol=BTCUSDT&symbolStatus=HALT", -1220),
        ("/api/v3/exchangeInfo?symbol=NOPE", -1121),
        ("/api/v3/exchangeInfo?symbols=BTCUSDT", -1100),
    ],
)
async def test_a_wrong_request_is_answered_400_with_a_code(path: str, code: int) -> None:
    async with exchange() as simulator:
        answer = await get(simulator, path)

    assert (answer.status, answer.body["code"]) == (400, code)
    assert answer.body["msg"]


async def test_exchange_info_describes_every_market() -> None:
    async with exchange("BTCUSDT", "ETHBTC") as simulator:
        info = (await get(simulator, "/api/v3/exchangeInfo")).body
        one = (await get(simulator, "/api/v3/exchangeInfo?symbol=ETHBTC")).body
        two = (await get(simulator, "/api/v3/exchangeInfo?symbols=" + quote('["BTCUSDT","ETHBTC"]'))).body
        depth = (await get(simulator, "/api/v3/depth?symbol=ETHBTC&limit=500")).body

    assert [symbol["symbol"] for symbol in one["symbols"]] == ["ETHBTC"]
    assert [symbol["symbol"] for symbol in two["symbols"]] == ["BTCUSDT", "ETHBTC"]
    assert {symbol["status"] for symbol in info["symbols"]} == {"TRADING", "BREAK"}
    assert {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000} in info[
        "rateLimits"
    ]
    symbol = one["symbols"][0]
    assert (symbol["baseAsset"], symbol["quoteAsset"]) == ("ETH", "BTC")
    filters = {each["filterType"]: each for each in symbol["filters"]}
    tick, step = float(filters["PRICE_FILTER"]["tickSize"]), float(filters["LOT_SIZE"]["stepSize"])
    assert float(filters["NOTIONAL"]["minNotional"]) > 0
    for price, quantity in levels(depth["bids"]):
        assert price / tick == pytest.approx(round(price / tick))
        assert quantity / step == pytest.approx(round(quantity / step))


async def test_time_and_ping_and_the_best_quotes_are_answered() -> None:
    async with exchange() as simulator:
        assert (await get(simulator, "/api/v3/ping")).body == {}
        assert abs((await get(simulator, "/api/v3/time")).body["serverTime"] / 1000 - time.time()) < 60
        one = (await get(simulator, "/api/v3/ticker/bookTicker?symbol=BTCUSDT")).body
        everything = (await get(simulator, "/api/v3/ticker/bookTicker")).body
        assert (await get(simulator, "/api/v1/depth")).status == 404

    assert list(one) == ["symbol", "bidPrice", "bidQty", "askPrice", "askQty"]
    assert [each["symbol"] for each in everything] == ["BTCUSDT", "ETHUSDT"]


async def test_every_answer_tells_its_date() -> None:
    async with exchange() as simulator:
        ping, unknown = await get(simulator, "/api/v3/ping"), await get(simulator, "/api/v1/depth")

    assert {ping.headers["Date"][-4:], unknown.headers["Date"][-4:]} == {" GMT"}


@pytest.mark.parametrize("path", ["ticker/24hr", "ticker/price", "ticker/bookTicker", "ticker/tradingDay", "ticker"])
async def test_tickers_are_of_one_market_or_of_those_named(path: str) -> None:
    async with exchange("BTCUSDT", "ETHUSDT", "SOLUSDT") as simulator:
        one = await get(simulator, f"/api/v3/{path}?symbol=ETHUSDT")
        some = await get(simulator, f'/api/v3/{path}?symbols=["SOLUSDT","BTCUSDT"]'.replace('"', "%22"))
        unknown = await get(simulator, f"/api/v3/{path}?symbols=[%22NOUSDT%22]")
        both = await get(simulator, f"/api/v3/{path}?symbol=ETHUSDT&symbols=[%22ETHUSDT%22]")

    assert one.body["symbol"] == "ETHUSDT"
    assert [each["symbol"] for each in some.body] == ["SOLUSDT", "BTCUSDT"]
    assert (unknown.status, unknown.body["code"]) == (400, -1121)
    assert (both.status, both.body["code"]) == (400, -1128)


async def test_the_listing_can_be_asked_for_by_status() -> None:
    async with exchange() as simulator:
        everything = (await get(simulator, "/api/v3/exchangeInfo")).body["symbols"]
        found = {
            status: [each["symbol"] for each in (await get(simulator, path + status)).body["symbols"]]
            for status in ("TRADING", "BREAK", "HALT")
            for path in ("/api/v3/exchangeInfo?symbolStatus=",)
        }
        mixed = await get(simulator, "/api/v3/exchangeInfo?symbol=BTCUSDT&symbolStatus=TRADING")
        wrong = await get(simulator, "/api/v3/exchangeInfo?symbolStatus=OPEN")

    assert found["TRADING"] == ["BTCUSDT", "ETHUSDT"]
    assert found["HALT"] == []
    assert sorted(found["TRADING"] + found["BREAK"]) == sorted(each["symbol"] for each in everything)
    assert (mixed.body["code"], wrong.body["code"]) == (-1128, -1122)


async def test_a_day_has_a_long_form_and_a_short_one() -> None:
    async with exchange() as simulator:
        long = (await get(simulator, "/api/v3/ticker/24hr?symbol=BTCUSDT")).body
        short = (await get(simulator, "/api/v3/ticker/24hr?symbol=BTCUSDT&type=MINI")).body
        wrong = await get(simulator, "/api/v3/ticker/24hr?symbol=BTCUSDT&type=TINY")

    assert set(long) - set(short) == {
        *("priceChange", "priceChangePercent", "weightedAvgPrice", "prevClosePrice", "lastQty"),
        *("bidPrice", "bidQty", "askPrice", "askQty"),
    }
    assert (wrong.status, wrong.body["code"]) == (400, -1130)


async def test_trades_of_rest_are_those_of_the_streams() -> None:
    async with exchange(changes=60) as simulator, client(simulator, "/ws/btcusdt@trade/btcusdt@aggTrade") as connection:
        streamed = [await receive(connection) for _ in range(20)]
        trades = (await get(simulator, "/api/v3/trades?symbol=BTCUSDT&limit=1000")).body
        aggregates = (await get(simulator, "/api/v3/aggTrades?symbol=BTCUSDT&limit=1000")).body
        first = aggregates[0]["a"]
        page = (await get(simulator, f"/api/v3/aggTrades?symbol=BTCUSDT&fromId={first + 1}&limit=2")).body

    singles = {(trade["id"], trade["price"], trade["qty"], trade["time"]) for trade in trades}
    assert singles >= {(each["t"], each["p"], each["q"], each["T"]) for each in streamed if each["e"] == "trade"}
    wanted = [{name: each[name] for name in "apqflTmM"} for each in streamed if each["e"] == "aggTrade"]
    assert all(each in aggregates for each in wanted)
    assert [each["a"] for each in page] == [first + 1, first + 2]


@pytest.mark.parametrize("path", ["klines", "uiKlines"])
async def test_candles_come_by_interval_time_and_number(path: str) -> None:
    async with exchange() as simulator:
        newest = (await get(simulator, f"/api/v3/{path}?symbol=BTCUSDT&interval=1m&limit=3")).body
        start = newest[0][0]
        times = f"startTime={start}&endTime={start + 60_000}"
        named = (await get(simulator, f"/api/v3/{path}?symbol=BTCUSDT&interval=1m&{times}")).body
        day = (await get(simulator, f"/api/v3/{path}?symbol=BTCUSDT&interval=1d&limit=1&timeZone=8")).body
        wrong = await get(simulator, f"/api/v3/{path}?symbol=BTCUSDT&interval=2m")

    assert [candle[0] - start for candle in newest] == [0, 60_000, 120_000]
    assert [candle[0] for candle in named] == [start, start + 60_000]
    assert day[0][0] % 86_400_000 == 57_600_000
    assert (wrong.status, wrong.body["code"]) == (400, -1120)


async def test_the_average_price_is_within_what_was_traded() -> None:
    async with exchange(changes=60) as simulator, client(simulator, "/ws/btcusdt@aggTrade") as connection:
        prices = [float((await receive(connection))["p"]) for _ in range(5)]
        average = (await get(simulator, "/api/v3/avgPrice?symbol=BTCUSDT")).body

    assert average["mins"] == 5
    assert min(prices) * 0.99 < float(average["price"]) < max(prices) * 1.01


@pytest.mark.parametrize(
    ("path", "weight"),
    [
        ("/api/v3/trades?symbol=BTCUSDT", 25),
        ("/api/v3/aggTrades?symbol=BTCUSDT", 4),
        ("/api/v3/klines?symbol=BTCUSDT&interval=1m", 2),
        ("/api/v3/avgPrice?symbol=BTCUSDT", 2),
        ("/api/v3/ticker/price", 4),
        ("/api/v3/ticker/24hr?symbols=[%22BTCUSDT%22,%22ETHUSDT%22]", 2),
        ("/api/v3/ticker?symbols=[%22BTCUSDT%22,%22ETHUSDT%22]", 8),
    ],
)
async def test_requests_of_statistics_have_weights(path: str, weight: int) -> None:
    async with exchange() as simulator:
        answer = await get(simulator, path)

    assert (answer.status, answer.headers["X-MBX-USED-WEIGHT-1M"]) == (200, str(weight))


async def test_the_day_of_a_market_says_more_was_traded_where_it_is_listed_earlier() -> None:
    async with exchange("BTCUSDT", "ETHUSDT", "SOLUSDT") as simulator:
        days = (await get(simulator, "/api/v3/ticker/24hr?type=MINI")).body
        one = (await get(simulator, "/api/v3/ticker/24hr?type=MINI&symbol=ETHUSDT")).body

    assert [day["symbol"] for day in days] == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    assert (one["symbol"], list(one)) == ("ETHUSDT", list(days[1]))
    turnover = [float(day["quoteVolume"]) for day in days]
    assert turnover == sorted(turnover, reverse=True)


async def test_too_much_weight_is_refused_and_going_on_is_banned() -> None:
    rules = BinanceRules(weight=12, weight_window=1000.0, requests_until_ban=2)
    async with exchange(rules=rules) as simulator:
        answers = [await get(simulator, "/api/v3/depth?symbol=BTCUSDT") for _ in range(5)]
        status = simulator.status()

    assert [answer.status for answer in answers] == [200, 200, 429, 429, 418]
    assert answers[2].body["code"] == answers[4].body["code"] == -1003
    assert 0 < int(answers[2].headers["Retry-After"]) <= 1000
    assert answers[4].headers["Retry-After"] == "120"
    assert status["rest_statuses"] == {"200": 2, "429": 2, "418": 1}
    assert status["weight_highest"] == 25


@pytest.mark.parametrize("status", [403, 418, 429, 451, 500, 503])
async def test_a_status_can_be_asked_for(status: int) -> None:
    async with exchange() as simulator:
        injected = time.monotonic()
        simulator.inject(Fault(kind="rest_status", value=status, seconds=7))
        answer = await get(simulator, "/api/v3/depth?symbol=BTCUSDT")
        elapsed = time.monotonic() - injected
        simulator.clear()
        recovered = await get(simulator, "/api/v3/depth?symbol=BTCUSDT")

    assert (answer.status, recovered.status) == (status, 200)
    if status in (418, 429):
        assert 7 - elapsed <= int(answer.headers["Retry-After"]) <= 7
    if status == 451:
        assert answer.body["code"] == 0
        assert answer.body["msg"].startswith("Service unavailable from a restricted location")


async def test_rest_answers_can_hang_come_late_or_be_cut() -> None:
    async with exchange() as simulator:
        simulator.inject(Fault(kind="rest_timeout"))
        with pytest.raises(TimeoutError):
            await get(simulator, "/api/v3/ping", timeout=0.1)
        simulator.inject(Fault(kind="rest_truncated"))
        with pytest.raises((OSError, Exception), match="IncompleteRead"):
            await get(simulator, "/api/v3/depth?symbol=BTCUSDT")
        simulator.inject(Fault(kind="rest_delay", value=0.2))
        began = time.monotonic()
        await get(simulator, "/api/v3/ping")

    assert time.monotonic() - began >= 0.2


async def test_a_snapshot_can_lack_a_side() -> None:
    async with exchange() as simulator:
        simulator.inject(Fault(kind="empty_snapshot"))
        bodies = [(await get(simulator, "/api/v3/depth?symbol=BTCUSDT")).body for _ in range(2)]

    assert [len(body["bids"]) for body in bodies] == [0, 100]


async def test_one_http_connection_serves_many_requests() -> None:
    async with exchange() as simulator:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(simulator.rest_url.rpartition(":")[2]))
        for _ in range(3):
            writer.write(b"GET /api/v3/ping HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), LIMIT)
            assert head.startswith(b"HTTP/1.1 200 OK")
            assert await reader.readexactly(2) == b"{}"
        writer.write(b"nonsense\r\n\r\n")
        assert await asyncio.wait_for(reader.read(), LIMIT) == b""
        writer.close()
