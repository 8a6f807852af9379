"""The best levels by request, with which silent streams are compared."""

import json
from collections.abc import Mapping

import pytest

from bookbus.feeders.errors import RestError, RestRefusedError
from bookbus.feeders.exchanges.binance_ws_adapter import BinanceTops
from bookbus.feeders.exchanges.bybit_ws_adapter import BybitTops
from bookbus.feeders.exchanges.upbit_ws_adapter import UpbitTops
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.venue import Top


class Answering(RestClient):
    """Answers by path; knows all symbols but `delisted`."""

    def __init__(self, delisted: str = "none", **bodies: str) -> None:
        super().__init__("http://nowhere", WeightBudget(6_000))
        self._delisted = delisted
        self._bodies = bodies
        self.weights: list[int] = []

    async def get(
        self,
        path: str,
        parameters: Mapping[str, str | int],
        weight: int,
        *,
        urgent: bool = True,
        patience: float | None = None,
    ) -> bytes:
        self.weights.append(weight)
        named = str(parameters.get("markets", parameters.get("symbol", ""))).split(",")
        if self._delisted in named:
            raise RestRefusedError("no such symbol")
        if path == "/v1/orderbook":
            return json.dumps([upbit_book(name) for name in named]).encode()
        return self._bodies[path.rsplit("/", 1)[1]].encode()


def upbit_book(market: str) -> dict[str, object]:
    units = [
        {"bid_price": 99.0, "bid_size": 1.0, "ask_price": 101.0, "ask_size": 2.0},
        {"bid_price": 98.0, "bid_size": 3.0, "ask_price": 0.0, "ask_size": 0.0},
    ]
    return {"market": market, "timestamp": 1_700_000_000_123, "orderbook_units": units}


BINANCE_DEPTH = '{"lastUpdateId":77,"bids":[["99.5","1"],["98","2"]],"asks":[["100.5","3"]]}'
BINANCE_TICKERS = (
    '[{"symbol":"A","bidPrice":"9","bidQty":"1","askPrice":"10","askQty":"2"},'
    '{"symbol":"B","bidPrice":"0.00","bidQty":"0.00","askPrice":"10","askQty":"2"}]'
)
BYBIT_BOOK = '{"retCode":0,"result":{"s":"A","b":[["99.5","1"]],"a":[["100.5","3"]],"u":7,"cts":1700000000123}}'
BYBIT_TICKERS = (
    '{"retCode":0,"result":{"category":"spot","list":['
    '{"symbol":"A","bid1Price":"9","bid1Size":"1","ask1Price":"10","ask1Size":"2"},'
    '{"symbol":"B","bid1Price":"","bid1Size":"","ask1Price":"10","ask1Size":"2"}]}}'
)
MANY = [*"ABCDEFGH"]


async def test_binance_gives_the_levels_and_the_streams_id_of_few_symbols() -> None:
    rest = Answering(depth=BINANCE_DEPTH)

    found = await BinanceTops().fetch(rest, ["A"])

    assert found == {"A": Top(((99.5, 1.0), (98.0, 2.0)), ((100.5, 3.0),), 20, 77)}
    assert rest.weights == [5]


async def test_binance_gives_the_best_prices_of_many_symbols_in_one_request() -> None:
    rest = Answering(bookTicker=BINANCE_TICKERS)

    found = await BinanceTops().fetch(rest, MANY)

    assert found == {"A": Top(((9.0, 1.0),), ((10.0, 2.0),), 1), "B": Top((), ((10.0, 2.0),), 1)}
    assert rest.weights == [4]


async def test_binance_leaves_out_a_delisted_symbol() -> None:
    found = await BinanceTops().fetch(Answering("X", depth=BINANCE_DEPTH), ["A", "X"])

    assert list(found) == ["A"]


async def test_bybit_gives_the_levels_and_the_matching_time_of_few_symbols() -> None:
    found = await BybitTops().fetch(Answering(orderbook=BYBIT_BOOK), ["A"])

    assert found == {"A": Top(((99.5, 1.0),), ((100.5, 3.0),), 50, None, 1_700_000_000_123_000)}


async def test_bybit_gives_the_best_prices_of_many_symbols_in_one_request() -> None:
    rest = Answering(tickers=BYBIT_TICKERS)

    found = await BybitTops().fetch(rest, MANY)

    assert found == {"A": Top(((9.0, 1.0),), ((10.0, 2.0),), 1), "B": Top((), ((10.0, 2.0),), 1)}
    assert rest.weights == [1]


async def test_bybit_leaves_out_a_symbol_that_it_answers_with_an_error() -> None:
    rest = Answering(orderbook='{"retCode":10001,"retMsg":"Not supported symbols","result":{}}')

    assert await BybitTops().fetch(rest, ["X"]) == {}


@pytest.mark.parametrize("price", ["nine", "-"])
async def test_a_price_that_is_no_number_is_an_error(price: str) -> None:
    rest = Answering(tickers=BYBIT_TICKERS.replace('"9"', f'"{price}"'))

    with pytest.raises(RestError, match="best prices"):
        await BybitTops().fetch(rest, MANY)


async def test_upbit_gives_whole_books_with_the_streams_id() -> None:
    found = await UpbitTops().fetch(Answering(), ["KRW-BTC"])

    levels = ((99.0, 1.0), (98.0, 3.0)), ((101.0, 2.0),)
    assert found == {"KRW-BTC": Top(*levels, 30, 1_700_000_000_123, 1_700_000_000_123_000)}


@pytest.mark.parametrize(("markets", "requests"), [(1, 1), (100, 1), (101, 2), (250, 3)])
async def test_upbit_gives_every_market_by_as_few_requests_as_it_allows(markets: int, requests: int) -> None:
    rest, names = Answering(), [f"KRW-{number}" for number in range(markets)]

    assert list(await UpbitTops().fetch(rest, names)) == names
    assert len(rest.weights) == requests


async def test_upbit_leaves_out_a_delisted_market_that_fails_the_whole_request() -> None:
    found = await UpbitTops().fetch(Answering("KRW-X"), ["KRW-A", "KRW-X", "KRW-B"])

    assert list(found) == ["KRW-A", "KRW-B"]
