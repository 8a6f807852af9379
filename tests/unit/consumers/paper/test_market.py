"""Events in the exchange's order, and what a provider does not have."""

import pytest

from bookbus.consumers.paper.market import DELAY, EventMerger, ProviderMarket
from bookbus.schemas.trade import Trade
from tests.support.builders import book
from tests.support.paper_world import SYMBOL
from tests.support.stub_provider import StubProvider


def trade(at_ms: int) -> Trade:
    return Trade("binance", "BTC-USDT", "BTCUSDT", at_ms, 100.0, 1.0, "buy", at_ms * 1000, at_ms * 1000)


def test_books_and_trades_come_in_the_exchanges_order() -> None:
    merger = EventMerger()
    late, early = book(exchange_us=200_000, update_id=2), trade(100)
    merger.add(0.0, late, ())
    merger.add(0.1, late, (early,))

    assert merger.ready(DELAY - 0.01) == []
    assert merger.ready(DELAY) == [early, late]


def test_a_trade_of_the_books_own_moment_comes_before_it() -> None:
    merger = EventMerger(0.0)
    newest, same = book(exchange_us=100_000), trade(100)
    merger.add(0.0, newest, (same,))

    assert merger.ready(0.0) == [same, newest]


def test_a_book_that_did_not_change_is_one_event() -> None:
    merger = EventMerger(0.0)
    for now in (0.0, 0.1, 0.2):
        merger.add(now, book(), ())

    assert merger.ready(1.0) == [book()]


def test_waiting_orders_need_trades() -> None:
    with pytest.raises(ValueError, match="no trades"):
        ProviderMarket(StubProvider("binance"), "binance", {}, with_trades=True)


class TradesLost(StubProvider):
    """A provider of trades some of which never came."""

    def trades(self, symbol: str) -> "TradesLost":
        return self

    def take(self) -> list[Trade]:
        return []


def test_trades_that_did_not_come_are_no_secret() -> None:
    provider = TradesLost("binance")
    provider.put(SYMBOL, ((100.0, 1.0),), ((101.0, 1.0),))
    market = ProviderMarket(provider, "binance", {}, with_trades=True)

    assert market.health().error == ""
    provider.error = "3 trades are missing"

    assert "3 trades are missing" in market.health().error
