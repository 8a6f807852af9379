"""BinanceL2WebSocketProvider on a fake connection."""

from bookbus.consumers.direct_provider import BinanceL2WebSocketProvider
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.schemas.snapshot import BookStatus
from tests.support.builders import book
from tests.support.fake_adapters import FakeBinanceWebSocketAdapter, no_callback

SYMBOLS = ("BTCUSDT", "ETHUSDT")
BTC = book("BTC-USDT", exchange="binance", native="BTCUSDT")
ETH = book("ETH-USDT", exchange="binance", native="ETHUSDT", bids=((49.5, 1.0),), asks=((50.5, 1.0),))


def connect() -> tuple[BinanceL2WebSocketProvider, FakeBinanceWebSocketAdapter]:
    fake = FakeBinanceWebSocketAdapter(SYMBOLS, no_callback)
    return BinanceL2WebSocketProvider(SYMBOLS, ws_adapter=fake), fake


def test_init() -> None:
    provider, fake = connect()

    assert isinstance(provider, MarketDataProvider)
    assert provider.symbols == ["BTC-USDT", "ETH-USDT"]
    assert fake.connects == 0


def test_snapshot_update_via_callback() -> None:
    provider, fake = connect()

    fake.inject_snapshot(BTC)

    assert provider.get_latest_snapshot("BTCUSDT") is BTC
    assert provider.status("BTC").received == 1


def test_get_latest_snapshot() -> None:
    provider, fake = connect()
    with provider:
        fake.inject_snapshot(BTC)

        snapshot = provider.get_latest_snapshot("BTC")

        assert snapshot is not None
        assert (snapshot.best_bid(), snapshot.best_ask()) == (99.5, 100.5)
        assert provider.read("BTC").status is BookStatus.LIVE


def test_get_latest_snapshot_no_data() -> None:
    provider, fake = connect()
    with provider:
        fake.inject_snapshot(BTC)

        assert provider.get_latest_snapshot("ETH") is None
        assert provider.get_latest_snapshot("DOGE") is None
        assert provider.read("ETH").status is BookStatus.MISSING


def test_multiple_snapshots_symbol_mapping() -> None:
    provider, fake = connect()

    fake.inject_snapshot(BTC)
    fake.inject_snapshot(ETH)

    assert [provider.get_latest_snapshot(name) for name in ("BTC", "BTCUSDT", "BTC-USDT")] == [BTC] * 3
    assert [provider.get_latest_snapshot(name) for name in ("ETH", "ETHUSDT", "ETH-USDT")] == [ETH] * 3
    assert provider.get_many(["BTC", "ETHUSDT"]) == {"BTC": BTC, "ETHUSDT": ETH}


def test_snapshot_overwrite() -> None:
    provider, fake = connect()
    newer = book("BTC-USDT", exchange="binance", update_id=101, bids=((99.6, 2.0),))
    fake.inject_snapshot(BTC)

    fake.inject_snapshot(newer)

    assert provider.get_latest_snapshot("BTC") is newer


def test_get_connection_status() -> None:
    provider, fake = connect()
    before = provider.get_connection_status()
    with provider:
        fake.inject_snapshot(BTC)
        during = provider.get_connection_status()
    after = provider.get_connection_status()

    assert (before.is_running, before.connected, before.thread_alive, before.trouble) == (
        *(False, False, False),
        "not started",
    )
    assert (during.is_running, during.connected, during.thread_alive, during.trouble) == (True, True, True, "")
    assert during.reconnect_count == 0
    assert {symbol: status.state for symbol, status in during.symbols.items()} == {
        "BTC-USDT": BookStatus.LIVE,
        "ETH-USDT": BookStatus.MISSING,
    }
    assert (after.is_running, after.connected, after.thread_alive, after.trouble) == (False, False, False, "stopped")
