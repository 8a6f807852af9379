"""The provider of each source; no source falls back to another."""

import builtins
import logging
import socket
import threading
from typing import Any

import pytest

from bookbus.consumers.direct_provider import BinanceL2WebSocketProvider, UpbitL2WebSocketProvider
from bookbus.consumers.mock_provider import MockMarketDataProvider
from bookbus.consumers.multi_provider import MultiExchangeProvider
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.consumers.sources import SOURCES, Endpoint, SourceError, SourceSettings, make_provider, open_source
from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.snapshot import BookStatus
from tests.support.waiting import wait_for


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_l2_source_mock() -> None:
    provider = make_provider("mock", ["BTC", "ETH"])

    assert isinstance(provider, MockMarketDataProvider)
    assert provider.symbols == ["BTC-USDT", "ETH-USDT"]


def test_l2_source_binance() -> None:
    provider = make_provider("binance", ["BTC"])

    assert isinstance(provider, BinanceL2WebSocketProvider)
    assert provider.symbols == ["BTC-USDT"]


def test_l2_source_upbit() -> None:
    provider = make_provider("upbit", ["BTC"])

    assert isinstance(provider, UpbitL2WebSocketProvider)
    assert provider.symbols == ["BTC-KRW"]


def test_l2_source_real_alias(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        provider = make_provider("real", ["BTC"])

    assert isinstance(provider, UpbitL2WebSocketProvider)
    assert caplog.messages == ["source 'real' is the old name of 'upbit': connecting to Upbit"]


def test_l2_source_multi() -> None:
    provider = make_provider("multi", ["BTC"])

    assert isinstance(provider, MultiExchangeProvider)
    assert [venue.exchange for venue in provider.consolidated("BTC").venues] == ["binance", "upbit"]
    assert provider.symbols == ["BTC-USDT"]


def test_l2_source_multi_from_the_bus() -> None:
    provider = make_provider("multi", ["BTC"], SourceSettings(multi_from="bus"))

    assert isinstance(provider, MultiExchangeProvider)
    assert all(isinstance(source, RedisMarketDataProvider) for source in provider._sources)


def test_l2_source_redis() -> None:
    provider = make_provider("redis", ["BTC"], SourceSettings(exchange="upbit"))

    assert isinstance(provider, RedisMarketDataProvider)
    assert provider.symbols == ["BTC-KRW"]


def test_l2_source_unknown() -> None:
    with pytest.raises(
        SourceError, match=r"^unknown source 'kraken'; known: mock, real, upbit, binance, multi, redis$"
    ):
        make_provider("kraken")


@pytest.mark.parametrize("source", SOURCES)
def test_an_invalid_symbol_is_an_error_of_every_source(source: str) -> None:
    with pytest.raises(SymbolError):
        make_provider(source, ["-"])


def test_an_open_source_has_a_live_book_of_every_symbol() -> None:
    with open_source("mock", ["BTC", "ETH"], SourceSettings(seed=4)) as provider:
        assert [provider.read(name).status for name in ("BTC", "ETH")] == [BookStatus.LIVE] * 2


def test_redis_without_a_server_is_an_error_that_says_what_to_do() -> None:
    threads = threading.active_count()
    settings = SourceSettings(redis_url=f"redis://127.0.0.1:{unused_port()}/0")

    with pytest.raises(SourceError, match=r"no Redis answers at redis://127\.0\.0\.1.*make redis"):
        open_source("redis", ["BTC"], settings)

    wait_for(lambda: threading.active_count() == threads, what="the end of its threads")


def test_an_exchange_that_cannot_be_reached_is_an_error_that_says_why() -> None:
    threads = threading.active_count()
    port = unused_port()
    nowhere = Endpoint(f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}")

    with pytest.raises(
        SourceError, match=r"source binance: not live within .*BTC-USDT: missing \(cannot connect to ws:"
    ):
        open_source("binance", ["BTC"], SourceSettings(endpoints={"binance": nowhere}, timeout=0.2))

    wait_for(lambda: threading.active_count() == threads, what="the end of its threads")


def test_without_the_packages_for_exchanges_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def without_aiohttp(name: str, *rest: Any) -> Any:
        if name == "bookbus.consumers.direct_provider":
            raise ModuleNotFoundError("No module named 'aiohttp'", name="aiohttp")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_aiohttp)

    with pytest.raises(SourceError, match=r"connecting to binance needs aiohttp: pip install 'bookbus\[feeder\]'"):
        make_provider("binance")
    assert isinstance(make_provider("mock"), MockMarketDataProvider)


def test_multi_of_an_exchange_without_a_connection_is_an_error() -> None:
    with pytest.raises(SourceError, match="no direct connection to 'bybit'"):
        make_provider("multi", ["BTC"], SourceSettings(exchanges=("bybit",)))
