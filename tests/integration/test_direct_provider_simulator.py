"""BinanceL2WebSocketProvider against the local exchange: its books are the exchange's, or say that they may not be."""

import socket
import threading
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

import feeders.websocket_client
from consumers.direct_provider import BinanceL2WebSocketProvider
from feeders.simulator.process import SimulatorProcess
from schemas.snapshot import BookStatus, OrderBookSnapshot
from tests.support.waiting import wait_for

NATIVES = ("BTCUSDT", "ETHUSDT")


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []


class Seen:
    """Every book a provider told of, by native symbol."""

    def __init__(self, provider: BinanceL2WebSocketProvider) -> None:
        self.books: dict[str, list[OrderBookSnapshot]] = defaultdict(list)
        provider.on_snapshot(lambda snapshot: self.books[snapshot.native].append(snapshot))

    def count(self) -> int:
        """Of the symbol with the fewest."""
        return min(len(self.books[native]) for native in NATIVES)

    def wrong(self, exchange: SimulatorProcess) -> list[OrderBookSnapshot]:
        """Live books that differ from the truth at their update id, or whose truth nobody knows."""
        truths = {native: exchange.truths(native) for native in NATIVES}
        return [
            book
            for native in NATIVES
            for book in self.books[native]
            if book.state == "live" and truths[native].get(book.update_id) != (book.bids, book.asks)
        ]


def connect(exchange: SimulatorProcess, **options: Any) -> BinanceL2WebSocketProvider:
    return BinanceL2WebSocketProvider(NATIVES, ws_url=exchange.ws_url, rest_url=exchange.rest_url, **options)


def test_every_book_equals_the_truth_at_its_update_id() -> None:
    with SimulatorProcess(NATIVES, seed=11) as exchange, connect(exchange) as provider:
        assert provider.get_latest_snapshot("BTC") is not None, "start() returned before the first books"
        seen = Seen(provider)
        wait_for(lambda: seen.count() >= 30, 20, "30 books of each symbol")

        for names in (("BTC", "BTCUSDT", "BTC-USDT"), ("ETH", "ETHUSDT", "ETH-USDT")):
            found = [provider.get_latest_snapshot(name) for name in names]
            assert {book.symbol for book in found if book is not None} == {names[-1]}
        assert provider.read("BTC").status is BookStatus.LIVE
        assert provider.get_connection_status().connected
        assert seen.wrong(exchange) == []
        assert [book.update_id for book in seen.books["BTCUSDT"]] == sorted(
            book.update_id for book in seen.books["BTCUSDT"]
        )


def test_a_cut_connection_is_opened_again_and_every_live_book_is_right() -> None:
    with SimulatorProcess(NATIVES, seed=12) as exchange, connect(exchange, reconnect_delay=0.05) as provider:
        seen = Seen(provider)
        wait_for(lambda: seen.count() >= 5, 20, "books of each symbol")

        exchange.inject(kind="reset")
        wait_for(lambda: all(seen.books[native][-1].state == "suspect" for native in NATIVES), 5, "suspect books")
        provider.wait_until_live(timeout=10)
        count = seen.count()
        wait_for(lambda: seen.count() >= count + 5, 20, "more books")

        assert seen.wrong(exchange) == []
        assert provider.get_connection_status().reconnect_count == 1


def test_after_five_refused_attempts_it_is_down_and_says_so() -> None:
    with SimulatorProcess(NATIVES, seed=13) as exchange, connect(exchange, reconnect_delay=0.01) as provider:
        assert provider.read("BTC").status is BookStatus.LIVE

        exchange.inject(kind="refuse_connections", seconds=60.0)
        exchange.inject(kind="reset")
        wait_for(lambda: not provider.get_connection_status().is_running, 10, "the end of all attempts")

        status, reading = provider.get_connection_status(), provider.read("BTC")
        assert status.trouble.startswith("gave up after 5 attempts in a row: cannot connect to ws://127.0.0.1")
        assert (reading.status, status.connected) == (BookStatus.FEEDER_DOWN, False)
        assert reading.snapshot is not None
        assert reading.snapshot.state == "suspect"
        wait_for(lambda: not provider.get_connection_status().thread_alive, what="the thread to end")


def test_a_quiet_market_is_confirmed_by_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeders.websocket_client, "PING_AFTER", 0.1)
    with SimulatorProcess(NATIVES, seed=14, rate=0.0) as exchange, connect(exchange, max_age=2.0) as provider:

        def beyond_the_limit() -> bool:
            status = provider.status("BTC")
            assert status.state is BookStatus.LIVE, status.reason
            return status.update_age is not None and status.update_age > provider.max_age

        wait_for(beyond_the_limit, 10, "an update older than the limit")


def test_a_connection_that_is_dead_without_a_word_makes_books_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeders.websocket_client, "PING_AFTER", 0.1)
    monkeypatch.setattr(feeders.websocket_client, "PONG_LIMIT", 0.5)
    with SimulatorProcess(NATIVES, seed=15) as exchange, connect(exchange, reconnect_delay=60.0) as provider:
        assert provider.read("BTC").status is BookStatus.LIVE

        exchange.inject(kind="half_open")

        wait_for(lambda: provider.read("BTC").status is BookStatus.SUSPECT, 10, "a suspect book")
        assert provider.get_connection_status().trouble == "no frame and no pong for 0.5 s"


def test_stop_ends_a_handshake_that_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        provider = BinanceL2WebSocketProvider(NATIVES, ws_url=f"ws://{url}", rest_url=f"http://{url}", timeout=60.0)
        starting = threading.Thread(target=provider.start)
        starting.start()
        accepted, _ = silent.accept()

        provider.stop()
        starting.join(5)

        accepted.close()
        assert not starting.is_alive()
        assert not provider.get_connection_status().thread_alive


def test_stop_does_not_wait_for_a_name_server(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answer = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> list[object]:
        asked.set()
        answer.wait(30)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    provider = BinanceL2WebSocketProvider(NATIVES, ws_url="ws://exchange.invalid", rest_url="http://exchange.invalid")
    starting = threading.Thread(target=provider.start)
    starting.start()
    try:
        assert asked.wait(5)
        before = [thread.name for thread in threading.enumerate()]

        provider.stop()
        starting.join(5)

        after = [thread.name for thread in threading.enumerate()]
        assert not starting.is_alive()
        assert "bookbus-binance" in before
        assert "bookbus-binance" not in after
    finally:
        answer.set()
        wait_for(lambda: not any("asyncio" in thread.name for thread in threading.enumerate()), 5, "the resolver")
