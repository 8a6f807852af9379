"""The sources that connect to exchanges themselves, against the local ones."""

import pytest

from bookbus.consumers.multi_provider import MultiExchangeProvider
from bookbus.consumers.sources import Endpoint, SourceSettings, make_provider, open_source
from bookbus.feeders.simulator.process import SimulatorProcess
from tests.support.waiting import wait_for

MARKETS = {"binance": ["BTCUSDT"], "upbit": ["KRW-BTC", "KRW-USDT"]}


def endpoint(exchange: SimulatorProcess) -> Endpoint:
    return Endpoint(exchange.ws_url, exchange.rest_url)


@pytest.mark.parametrize(("source", "exchange"), [("binance", "binance"), ("upbit", "upbit"), ("real", "upbit")])
def test_one_exchange_gives_live_books(source: str, exchange: str) -> None:
    with SimulatorProcess(MARKETS[exchange], exchange=exchange) as simulated:
        settings = SourceSettings(endpoints={exchange: endpoint(simulated)})

        with open_source(source, ["BTC"], settings) as provider:
            snapshot = provider.read("BTC").require_live()

        assert snapshot.exchange == exchange
        assert len(snapshot.bids) == len(snapshot.asks) > 0


def test_multi_consolidates_both_exchanges_in_one_currency() -> None:
    with (
        SimulatorProcess(MARKETS["binance"], exchange="binance") as binance,
        SimulatorProcess(MARKETS["upbit"], exchange="upbit") as upbit,
    ):
        settings = SourceSettings(endpoints={"binance": endpoint(binance), "upbit": endpoint(upbit)})

        with make_provider("multi", ["BTC"], settings) as provider:
            assert isinstance(provider, MultiExchangeProvider)
            wait_for(lambda: not provider.consolidated("BTC").out, what="both exchanges in one book")
            snapshot = provider.read("BTC").require_live()

        assert (snapshot.exchange, snapshot.symbol) == ("multi", "BTC-USDT")
