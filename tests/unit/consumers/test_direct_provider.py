"""What every in-process provider does beyond holding the newest book: losses, giving up, freshness, its end."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from bookbus.consumers import direct_provider
from bookbus.consumers.direct_provider import BinanceL2WebSocketProvider, DirectProvider, UpbitL2WebSocketProvider
from bookbus.feeders.errors import WebSocketConnectionError
from bookbus.feeders.exchange_feed import ExchangeFeed
from bookbus.schemas.instruments import Instrument, SymbolError
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from tests.support.builders import book
from tests.support.fake_adapters import (
    FakeBinanceWebSocketAdapter,
    FakeUpbitWebSocketAdapter,
    FakeWebSocketAdapter,
    no_callback,
)
from tests.support.waiting import wait_for

NEVER = 3600.0


class Exchange(NamedTuple):
    provider: type[DirectProvider]
    adapter: type[FakeWebSocketAdapter]
    id: str
    natives: tuple[str, str]
    symbol: str

    def connect(self, **options: Any) -> tuple[DirectProvider, FakeWebSocketAdapter]:
        fake = self.adapter(self.natives, no_callback)
        return self.provider(self.natives, fake, **options), fake

    def bring(self, adapter: type[FakeWebSocketAdapter], **options: Any) -> DirectProvider:
        return self.provider(self.natives, adapter(self.natives, no_callback), **options)

    def book(self, update_id: int = 100) -> OrderBookSnapshot:
        return book(self.symbol, exchange=self.id, native=self.natives[0], update_id=update_id, feeder="")


class Flapping(FakeWebSocketAdapter):
    async def receive_loop(self) -> None:
        raise WebSocketConnectionError("connection closed")


class Broken(FakeWebSocketAdapter):
    async def receive_loop(self) -> None:
        raise ZeroDivisionError


class Hanging(FakeWebSocketAdapter):
    async def connect(self) -> None:
        await asyncio.Event().wait()


class CancelsItself(FakeWebSocketAdapter):
    """Its first `cancels` calls of one method raise CancelledError."""

    method, cancels = "connect", 2

    def _cancel(self, method: str) -> None:
        if method == self.method and self.cancels:
            self.cancels -= 1
            raise asyncio.CancelledError

    async def connect(self) -> None:
        await super().connect()
        self._cancel("connect")

    async def subscribe(self, channels: Sequence[str]) -> None:
        await super().subscribe(channels)
        self._cancel("subscribe")

    async def receive_loop(self) -> None:
        self._cancel("receive_loop")
        await super().receive_loop()


EXCHANGES = (
    Exchange(BinanceL2WebSocketProvider, FakeBinanceWebSocketAdapter, "binance", ("BTCUSDT", "ETHUSDT"), "BTC-USDT"),
    Exchange(UpbitL2WebSocketProvider, FakeUpbitWebSocketAdapter, "upbit", ("KRW-BTC", "KRW-ETH"), "BTC-KRW"),
)


@pytest.fixture(params=EXCHANGES, ids=lambda exchange: exchange.id)
def exchange(request: pytest.FixtureRequest) -> Exchange:
    chosen: Exchange = request.param
    return chosen


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []


def wait_until_down(provider: DirectProvider) -> None:
    wait_for(lambda: not provider.get_connection_status().is_running, what="the end of all attempts")


def test_the_adapter_is_asked_for_the_exchanges_own_names(exchange: Exchange) -> None:
    provider, fake = exchange.connect()

    with provider:
        assert fake.subscribed == list(exchange.natives)


def test_symbols_may_be_written_in_one_text_and_count_once(exchange: Exchange) -> None:
    fake = exchange.adapter((), no_callback)

    provider = exchange.provider(f"BTC,{exchange.natives[0]}", fake)

    assert provider.symbols == [exchange.symbol]


def test_a_name_that_can_be_no_symbol_is_an_error(exchange: Exchange) -> None:
    provider, fake = exchange.connect()

    with pytest.raises(SymbolError, match=f"is no symbol of {exchange.id}"):
        provider.get_latest_snapshot("BTC-")
    with pytest.raises(SymbolError):
        exchange.provider(["-"], fake)
    with pytest.raises(ValueError, match="no symbols"):
        exchange.provider([], fake)


def test_a_book_that_was_not_asked_for_is_not_taken(exchange: Exchange) -> None:
    provider, fake = exchange.connect()

    fake.inject_snapshot(book(exchange.symbol.replace("BTC", "DOGE"), exchange=exchange.id))

    assert provider.get_latest_snapshot("DOGE") is None


def test_books_that_nobody_read_are_counted(exchange: Exchange) -> None:
    provider, fake = exchange.connect()
    for update_id in (100, 101, 102):
        fake.inject_snapshot(exchange.book(update_id))
    provider.get_latest_snapshot("BTC")
    fake.inject_snapshot(exchange.book(103))

    status = provider.status("BTC")

    assert (status.received, status.conflated, status.update_id) == (4, 2, 103)


def test_a_lost_connection_makes_books_suspect_and_is_opened_again(exchange: Exchange) -> None:
    provider, fake = exchange.connect(reconnect_delay=0.01)
    with provider:
        fake.inject_snapshot(exchange.book())

        fake.lose()
        wait_for(lambda: provider.read("BTC").status is BookStatus.SUSPECT, what="a suspect book")
        wait_for(lambda: provider.get_connection_status().connected, what="another connection")
        fake.inject_snapshot(exchange.book(101))

        assert provider.read("BTC").status is BookStatus.LIVE
        assert provider.get_connection_status().reconnect_count == 1
        assert provider.status("BTC").resets == 1


def test_while_the_connection_is_away_the_status_says_why(exchange: Exchange) -> None:
    provider, fake = exchange.connect(reconnect_delay=30.0)
    with provider:
        fake.inject_snapshot(exchange.book())

        fake.lose("the exchange is asleep")
        wait_for(lambda: provider.get_connection_status().error == "the exchange is asleep", what="the reason")

        status = provider.get_connection_status()
        assert (status.is_running, status.connected) == (True, False)
        assert provider.read("BTC").reason.endswith("the exchange is asleep")


def test_after_five_attempts_in_a_row_it_is_down_and_says_so(
    exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    provider, fake = exchange.connect(reconnect_delay=0.001)
    with provider:
        fake.inject_snapshot(exchange.book())
        fake.refuse = "connection refused"
        fake.lose()
        wait_until_down(provider)

        status, reading = provider.get_connection_status(), provider.read("BTC")
        assert fake.connects == 6
        assert status.error == "gave up after 5 attempts in a row: connection refused"
        assert not status.connected
        assert (reading.status, status.symbols[exchange.symbol].feeder_alive) == (BookStatus.FEEDER_DOWN, False)
        assert reading.reason.endswith(status.error)
        assert reading.snapshot is not None
        assert reading.snapshot.state == "suspect"
        assert (provider.read("ETH").status, provider.read("ETH").reason) == (
            BookStatus.MISSING,
            f"ETH: {status.error}",
        )
        assert f"{exchange.id} is down: {status.error}" in caplog.messages
        wait_for(lambda: not provider.get_connection_status().thread_alive, what="the thread to end")


def test_attempts_are_counted_anew_after_each_book(exchange: Exchange) -> None:
    provider, fake = exchange.connect(reconnect_delay=0.001, max_reconnect_attempts=2)
    with provider:
        for update_id in range(100, 105):
            wait_for(lambda: provider.get_connection_status().connected, what="a connection")
            fake.inject_snapshot(exchange.book(update_id))
            fake.lose()
            wait_for(lambda: provider.read("BTC").status is BookStatus.SUSPECT, what="a suspect book")

        assert provider.get_connection_status().is_running


def test_connections_that_bring_no_book_are_attempts_like_any_other(exchange: Exchange) -> None:
    provider = exchange.bring(Flapping, max_reconnect_attempts=2, reconnect_delay=0.001)
    with provider:
        wait_until_down(provider)

        assert provider.get_connection_status().error == "gave up after 2 attempts in a row: connection closed"


def test_a_provider_that_is_down_can_be_started_again(exchange: Exchange) -> None:
    provider, fake = exchange.connect(reconnect_delay=0.001)
    fake.refuse = "connection refused"
    with provider:
        wait_until_down(provider)
        fake.refuse = ""

        provider.start()
        fake.inject_snapshot(exchange.book())

        assert provider.get_connection_status().connected
        assert provider.read("BTC").status is BookStatus.LIVE


def test_a_bug_in_the_adapter_is_logged_and_the_provider_down(
    exchange: Exchange, caplog: pytest.LogCaptureFixture
) -> None:
    provider = exchange.bring(Broken)
    with provider:
        wait_for(lambda: not provider.get_connection_status().thread_alive, what="the thread to end")

        assert provider.get_connection_status().error == "it ended by a bug, see the log"
        assert not provider.get_connection_status().is_running
        assert any(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("method", ["connect", "subscribe", "receive_loop"])
def test_a_cancellation_by_the_adapter_is_a_lost_connection(exchange: Exchange, method: str) -> None:
    adapter = CancelsItself(exchange.natives, no_callback)
    adapter.method = method
    with exchange.provider(exchange.natives, adapter, reconnect_delay=0.01) as provider:
        wait_for(
            lambda: adapter.connects == 3 and provider.get_connection_status().connected, what="a third connection"
        )

        adapter.inject_snapshot(exchange.book())

        assert provider.read("BTC").status is BookStatus.LIVE
        assert provider.get_connection_status().reconnect_count == 2


def test_an_old_book_is_returned_with_one_warning(exchange: Exchange, caplog: pytest.LogCaptureFixture) -> None:
    provider, fake = exchange.connect(max_age=0.05)
    with caplog.at_level(logging.INFO, "bookbus.consumers.market_data_provider"):
        fake.inject_snapshot(exchange.book())
        wait_for(lambda: provider.read("BTC").status is BookStatus.STALE, what="a stale book")

        assert provider.get_latest_snapshot("BTC") is not None
        assert provider.get_latest_snapshot("BTC") is not None
        provider.max_age = NEVER
        provider.get_latest_snapshot("BTC")

    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{exchange.id} {exchange.symbol} is stale: not confirmed for")
    assert caplog.messages[-1] == f"{exchange.id} {exchange.symbol} is live again"


def test_a_sign_of_life_confirms_a_quiet_book(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bookbus.consumers.direct_provider._TICK", 0.001)
    provider, fake = exchange.connect()

    def confirmed_after_update() -> float:
        status = provider.status("BTC")
        assert status.update_age is not None
        assert status.age is not None
        return status.update_age - status.age

    with provider:
        fake.inject_snapshot(exchange.book())
        received = time.monotonic()
        wait_for(lambda: time.monotonic() - received > 0.05, what="time to pass")
        assert confirmed_after_update() == pytest.approx(0.0, abs=1e-6)

        fake.last_sign_of_life = received + 0.05
        wait_for(lambda: confirmed_after_update() > 0.04, what="the confirmation")


def test_a_process_that_stalled_trusts_no_book(exchange: Exchange, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bookbus.consumers.direct_provider._TICK", 0.001)
    monkeypatch.setattr("bookbus.feeders.stall_detector.LIMIT", -1.0)
    provider, fake = exchange.connect()

    with provider:
        fake.inject_snapshot(exchange.book())

        wait_for(lambda: provider.read("BTC").status is BookStatus.SUSPECT, what="a suspect book")


def test_start_and_stop_may_come_twice(exchange: Exchange) -> None:
    provider, fake = exchange.connect()

    provider.stop()
    provider.start()
    provider.start()
    wait_for(lambda: fake.subscribed, what="the subscription")
    provider.stop()
    provider.stop()

    assert fake.connects == 1


def test_stop_ends_an_attempt_to_connect(exchange: Exchange) -> None:
    provider = exchange.bring(Hanging, timeout=NEVER)
    starting = threading.Thread(target=provider.start)
    starting.start()
    wait_for(lambda: provider.get_connection_status().is_running, what="the beginning")

    provider.stop()
    starting.join(5)

    assert not starting.is_alive()
    assert not provider.get_connection_status().thread_alive


def test_after_stop_the_book_stays_and_nothing_new_comes(exchange: Exchange) -> None:
    provider, fake = exchange.connect()
    with provider:
        fake.inject_snapshot(exchange.book(100))

    fake.inject_snapshot(exchange.book(101))

    snapshot = provider.get_latest_snapshot("BTC")
    assert snapshot is not None
    assert (snapshot.update_id, snapshot.state) == (100, "live")


def test_callbacks_get_each_state_of_a_book(exchange: Exchange) -> None:
    provider, fake = exchange.connect(reconnect_delay=NEVER)
    seen: list[OrderBookSnapshot] = []
    provider.on_snapshot(seen.append)
    with provider:
        fake.inject_snapshot(exchange.book())
        wait_for(lambda: len(seen) == 1, what="the book")
        fake.lose()
        wait_for(lambda: len(seen) == 2, what="its loss")

    assert [snapshot.state for snapshot in seen] == ["live", "suspect"]


async def test_an_iterator_ends_when_the_provider_is_down(exchange: Exchange) -> None:
    provider, fake = exchange.connect(reconnect_delay=0.01)
    states: list[str] = []
    async with provider:
        fake.inject_snapshot(exchange.book())
        fake.refuse = "connection refused"

        async with asyncio.timeout(5):
            async for snapshot, _ in provider.updates("BTC"):
                states.append(snapshot.state)
                fake.lose()

    assert states == ["live", "suspect"]


@pytest.mark.parametrize("name", ["BTC-PLN", "BTC-USD1", "XRP-RLUSD", "USDT-PLN", "btc/pln", "WBTC-BTC"])
def test_a_standard_name_is_kept_and_its_symbol_asked_for(name: str) -> None:
    standard = name.upper().replace("/", "-")
    native = standard.replace("-", "")
    fake = FakeBinanceWebSocketAdapter([native], no_callback)
    provider = BinanceL2WebSocketProvider([name], fake)
    theirs = book(standard, native=native, update_id=7, feeder="")

    with provider:
        fake.inject_snapshot(theirs)

        assert fake.subscribed == [native]
        assert provider.symbols == [standard]
        assert [provider.get_latest_snapshot(each) for each in (name, standard, native)] == [theirs] * 3


@pytest.mark.parametrize("name", ["BTC-PLN", "XRP-RLUSD"])
def test_the_books_of_its_own_connection_have_the_name_that_was_given(name: str) -> None:
    provider = BinanceL2WebSocketProvider([name])

    source = provider._make_source()

    assert isinstance(source, ExchangeFeed)
    native = name.replace("-", "")
    assert source.natives == (native,)
    assert source.feed_of(native).symbol_of(native) == name


def test_a_symbol_whose_quote_asset_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_provider, "known_instruments", lambda *_: [])

    with pytest.raises(SymbolError, match="'BTCPLN': without the list of instruments of binance"):
        BinanceL2WebSocketProvider("BTCPLN")


def test_a_list_that_a_feeder_got_says_what_the_quote_asset_is(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = [Instrument("binance", "BTC", "PLN", "BTCPLN")]
    monkeypatch.setattr(direct_provider, "known_instruments", lambda *_: listed)

    assert BinanceL2WebSocketProvider("BTCPLN").symbols == ["BTC-PLN"]
    with pytest.raises(SymbolError, match="unknown symbol 'XRPRLUSD'"):
        BinanceL2WebSocketProvider("XRPRLUSD")


def test_two_names_of_one_symbol_are_refused() -> None:
    with pytest.raises(SymbolError, match="ABCTRY is the name of both ABC-TRY and ABCT-RY"):
        BinanceL2WebSocketProvider("ABC-TRY,ABCT-RY")
