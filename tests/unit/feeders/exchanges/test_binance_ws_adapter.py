"""What Binance's answers say that books are held against."""

from collections.abc import Mapping

import pytest

from bookbus.feeders.errors import RestError, WebSocketProtocolError
from bookbus.feeders.exchanges.binance_ws_adapter import BinanceAudit, BinanceSnapshots
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.venue import BestPrices
from tests.support.depth import ASKS, BIDS, depth_answer


class Answering(RestClient):
    """Answers every request with the same bytes."""

    def __init__(self, body: bytes) -> None:
        super().__init__("http://venue", WeightBudget(6000))
        self._body = body
        self.requests: list[tuple[str, Mapping[str, str | int], int, bool]] = []

    async def get(
        self,
        path: str,
        parameters: Mapping[str, str | int],
        weight: int,
        *,
        urgent: bool = True,
        patience: float | None = None,
    ) -> bytes:
        self.requests.append((path, parameters, weight, urgent))
        return self._body


async def test_best_prices_are_read_by_symbol_from_one_request_that_is_not_urgent() -> None:
    rest = Answering(
        b'[{"symbol":"BTCUSDT","bidPrice":"99.50000000","bidQty":"1","askPrice":"100.10000000","askQty":"2"},'
        b'{"symbol":"ETHUSDT","bidPrice":"9","bidQty":"1","askPrice":"10","askQty":"2","more":1}]'
    )

    assert await BinanceAudit().fetch_best_prices(rest) == {
        "BTCUSDT": BestPrices(99.5, 100.1),
        "ETHUSDT": BestPrices(9.0, 10.0),
    }
    assert rest.requests == [("/api/v3/ticker/bookTicker", {}, 4, False)]


async def test_a_price_of_zero_is_an_empty_side() -> None:
    rest = Answering(b'[{"symbol":"BTCUSDT","bidPrice":"0.00000000","askPrice":"0.00000000"}]')

    assert await BinanceAudit().fetch_best_prices(rest) == {"BTCUSDT": BestPrices(None, None)}


@pytest.mark.parametrize("body", [b"", b"{}", b'[{"symbol":"BTCUSDT"}]', b'[{"symbol":"\xff"}]'])
async def test_what_is_no_list_of_best_prices_is_an_error(body: bytes) -> None:
    with pytest.raises(RestError, match="not a list of best prices"):
        await BinanceAudit().fetch_best_prices(Answering(body))


def test_a_depth_answer_is_a_book_at_its_id() -> None:
    book = BinanceSnapshots().decode(depth_answer(7))

    assert (book.last_id, tuple(book.bids), tuple(book.asks)) == (7, BIDS, ASKS)


def test_what_is_no_depth_answer_is_an_error() -> None:
    with pytest.raises(WebSocketProtocolError):
        BinanceSnapshots().decode(b"[]")
