"""UpbitL2WebSocketProvider on a fake connection."""

from bookbus.consumers.direct_provider import UpbitL2WebSocketProvider
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.schemas.snapshot import BookStatus
from tests.support.builders import book
from tests.support.fake_adapters import FakeUpbitWebSocketAdapter, no_callback

SYMBOLS = ("KRW-BTC", "KRW-ETH")
BTC = book("BTC-KRW", exchange="upbit", native="KRW-BTC")
ETH = book("ETH-KRW", exchange="upbit", native="KRW-ETH", bids=((49.5, 1.0),), asks=((50.5, 1.0),))


def connect() -> tuple[UpbitL2WebSocketProvider, FakeUpbitWebSocketAdapter]:
    fake = FakeUpbitWebSocketAdapter(SYMBOLS, no_callback)
    return UpbitL2WebSocketProvider(SYMBOLS, ws_adapter=fake), fake


def test_init() -> None:
    provider, fake = connect()

    assert isinstance(provider, MarketDataProvider)
    assert provider.symbols == ["BTC-KRW", "ETH-KRW"]
    assert fake.connects == 0


def test_snapshot_update_via_callback() -> None:
    provider, fake = connect()

    fake.inject_snapshot(BTC)

    assert provider.get_latest_snapshot("KRW-BTC") is BTC
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

    assert [provider.get_latest_snapshot(name) for name in ("BTC", "KRW-BTC", "BTC-KRW")] == [BTC] * 3
    assert [provider.get_latest_snapshot(name) for name in ("ETH", "KRW-ETH", "ETH-KRW")] == [ETH] * 3
    assert provider.get_many(["BTC", "KRW-ETH"]) == {"BTC": BTC, "KRW-ETH": ETH}


def test_snapshot_overwrite() -> None:
    provider, fake = connect()
    newer = book("BTC-KRW", exchange="upbit", update_id=101, bids=((99.6, 2.0),))
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
        "BTC-KRW": BookStatus.LIVE,
        "ETH-KRW": BookStatus.MISSING,
    }
    assert (after.is_running, after.connected, after.thread_alive, after.trouble) == (False, False, False, "stopped")
