"""The direct provider of each exchange, on a fake connection."""

import pytest

from bookbus.consumers.direct_provider import DIRECT_PROVIDERS
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.schemas.snapshot import BookStatus
from tests.support.builders import book
from tests.support.fake_adapters import FakeWebSocketAdapter, no_callback


class Connected:
    """A provider of two symbols, its connection, and the books that it may bring."""

    def __init__(self, exchange: str, btc: tuple[str, str], eth: tuple[str, str]) -> None:
        """`btc` and `eth` are a standard symbol and the exchange's own."""
        self.exchange = exchange
        (self.btc_symbol, self.btc_native), (self.eth_symbol, self.eth_native) = btc, eth
        self.btc = book(self.btc_symbol, exchange=exchange, native=self.btc_native)
        self.eth = book(
            self.eth_symbol, exchange=exchange, native=self.eth_native, bids=((49.5, 1.0),), asks=((50.5, 1.0),)
        )
        natives = (self.btc_native, self.eth_native)
        self.fake = FakeWebSocketAdapter(natives, no_callback)
        self.provider = DIRECT_PROVIDERS[exchange](natives, ws_adapter=self.fake)


@pytest.fixture(
    params=[
        ("binance", ("BTC-USDT", "BTCUSDT"), ("ETH-USDT", "ETHUSDT")),
        ("upbit", ("BTC-KRW", "KRW-BTC"), ("ETH-KRW", "KRW-ETH")),
    ],
    ids=lambda param: param[0],
)
def connected(request: pytest.FixtureRequest) -> Connected:
    return Connected(*request.param)


def test_init(connected: Connected) -> None:
    provider, fake = connected.provider, connected.fake

    assert isinstance(provider, MarketDataProvider)
    assert provider.symbols == [connected.btc_symbol, connected.eth_symbol]
    assert fake.connects == 0


def test_snapshot_update_via_callback(connected: Connected) -> None:
    provider, fake = connected.provider, connected.fake

    fake.inject_snapshot(connected.btc)

    assert provider.get_latest_snapshot(connected.btc_native) is connected.btc
    assert provider.status("BTC").received == 1


def test_get_latest_snapshot(connected: Connected) -> None:
    provider, fake = connected.provider, connected.fake
    with provider:
        fake.inject_snapshot(connected.btc)

        snapshot = provider.get_latest_snapshot("BTC")

        assert snapshot is not None
        assert (snapshot.best_bid(), snapshot.best_ask()) == (99.5, 100.5)
        assert provider.read("BTC").status is BookStatus.LIVE


def test_get_latest_snapshot_no_data(connected: Connected) -> None:
    provider, fake = connected.provider, connected.fake
    with provider:
        fake.inject_snapshot(connected.btc)

        assert provider.get_latest_snapshot("ETH") is None
        assert provider.get_latest_snapshot("DOGE") is None
        assert provider.read("ETH").status is BookStatus.MISSING


def test_multiple_snapshots_symbol_mapping(connected: Connected) -> None:
    provider, fake = connected.provider, connected.fake

    fake.inject_snapshot(connected.btc)
    fake.inject_snapshot(connected.eth)

    assert [provider.get_latest_snapshot(name) for name in ("BTC", connected.btc_native, connected.btc_symbol)] == [
        connected.btc
    ] * 3
    assert [provider.get_latest_snapshot(name) for name in ("ETH", connected.eth_native, connected.eth_symbol)] == [
        connected.eth
    ] * 3
    assert provider.get_many(["BTC", connected.eth_native]) == {
        "BTC": connected.btc,
        connected.eth_native: connected.eth,
    }


def test_snapshot_overwrite(connected: Connected) -> None:
    provider, fake = connected.provider, connected.fake
    newer = book(connected.btc_symbol, exchange=connected.exchange, update_id=101, bids=((99.6, 2.0),))
    fake.inject_snapshot(connected.btc)

    fake.inject_snapshot(newer)

    assert provider.get_latest_snapshot("BTC") is newer


def test_get_connection_status(connected: Connected) -> None:
    provider, fake = connected.provider, connected.fake
    before = provider.get_connection_status()
    with provider:
        fake.inject_snapshot(connected.btc)
        during = provider.get_connection_status()
    after = provider.get_connection_status()

    assert (before.is_running, before.connected, before.thread_alive, before.error) == (
        False,
        False,
        False,
        "not started",
    )
    assert (during.is_running, during.connected, during.thread_alive, during.error) == (True, True, True, "")
    assert during.reconnect_count == 0
    assert {symbol: status.state for symbol, status in during.symbols.items()} == {
        connected.btc_symbol: BookStatus.LIVE,
        connected.eth_symbol: BookStatus.MISSING,
    }
    assert (after.is_running, after.connected, after.thread_alive, after.error) == (False, False, False, "stopped")
