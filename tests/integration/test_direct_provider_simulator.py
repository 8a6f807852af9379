"""The in-process providers against the local exchanges: their books are the exchange's, or say that they may not be."""

import socket
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

import bookbus.feeders.stall_detector
import bookbus.feeders.websocket_client
from bookbus.consumers.direct_provider import DIRECT_PROVIDERS, BinanceL2WebSocketProvider, DirectProvider
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from tests.support.waiting import wait_for


class Names(NamedTuple):
    """How an exchange calls two markets: its own name, the alias, the standard name."""

    exchange: str
    natives: tuple[str, str]
    aliases: tuple[str, str]
    symbols: tuple[str, str]


BINANCE = Names("binance", ("BTCUSDT", "ETHUSDT"), ("BTC", "ETH"), ("BTC-USDT", "ETH-USDT"))
UPBIT = Names("upbit", ("KRW-BTC", "KRW-ETH"), ("BTC", "ETH"), ("BTC-KRW", "ETH-KRW"))

both_exchanges = pytest.mark.parametrize("names", [BINANCE, UPBIT], ids=lambda names: names.exchange)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert not [thread.name for thread in threading.enumerate() if thread not in before and "bookbus" in thread.name]
    # Those of name servers nobody waits for end by themselves.
    wait_for(lambda: set(threading.enumerate()) <= before, 10, "every thread to end")


class Seen:
    """Every book of a provider's callback, by native symbol."""

    def __init__(self, provider: DirectProvider, names: Names) -> None:
        self.books: dict[str, list[OrderBookSnapshot]] = {native: [] for native in names.natives}
        provider.on_snapshot(lambda snapshot: self.books[snapshot.native].append(snapshot))

    def count(self) -> int:
        """Of the symbol with the fewest."""
        return min(map(len, self.books.values()))

    def all_suspect(self) -> bool:
        """Whether the newest book of every symbol is."""
        return all(books[-1].state == "suspect" for books in self.books.values())

    def wrong(self, exchange: SimulatorProcess) -> list[OrderBookSnapshot]:
        """Live books that differ from the exchange's book at their update id, or have an unknown id."""
        # Books go on coming: what is compared was there before its truth was asked for.
        compared = {native: list(books) for native, books in self.books.items()}
        truths = {native: exchange.truths(native) for native in compared}
        return [
            book
            for native, books in compared.items()
            for book in books
            if book.state == "live" and truths[native].get(book.update_id) != (book.bids, book.asks)
        ]

    def went_back(self) -> bool:
        """Whether an older book ever came after a newer one."""
        ids = [[book.update_id for book in books] for books in self.books.values()]
        return ids != [sorted(each) for each in ids]


def simulate(names: Names, **options: Any) -> SimulatorProcess:
    return SimulatorProcess(names.natives, exchange=names.exchange, **options)


def connect(names: Names, exchange: SimulatorProcess, **options: Any) -> DirectProvider:
    provider = DIRECT_PROVIDERS[names.exchange]
    return provider(names.natives, ws_url=exchange.ws_url, rest_url=exchange.rest_url, **options)


@both_exchanges
def test_every_book_equals_the_truth_at_its_update_id(names: Names) -> None:
    with simulate(names, seed=11) as exchange, connect(names, exchange) as provider:
        assert provider.get_latest_snapshot("BTC") is not None, "start() returned before the first books"
        seen = Seen(provider, names)
        wait_for(lambda: seen.count() >= 30, 20, "30 books of each symbol")

        for alias, native, symbol in zip(names.aliases, names.natives, names.symbols, strict=True):
            found = [provider.get_latest_snapshot(name) for name in (alias, native, symbol)]
            assert {(book.symbol, book.native) for book in found if book is not None} == {(symbol, native)}
        assert provider.read("BTC").status is BookStatus.LIVE
        assert provider.get_connection_status().connected
        assert seen.wrong(exchange) == []
        assert not seen.went_back()


@both_exchanges
def test_a_cut_connection_is_opened_again_and_every_live_book_is_right(names: Names) -> None:
    with simulate(names, seed=12) as exchange, connect(names, exchange, reconnect_delay=0.05) as provider:
        seen = Seen(provider, names)
        wait_for(lambda: seen.count() >= 5, 20, "books of each symbol")

        exchange.inject(kind="reset")
        wait_for(seen.all_suspect, 5, "suspect books")
        provider.wait_until_live(timeout=10)
        count = seen.count()
        wait_for(lambda: seen.count() >= count + 5, 20, "more books")

        assert seen.wrong(exchange) == []
        assert not seen.went_back()
        assert provider.get_connection_status().reconnect_count == 1


@both_exchanges
def test_after_five_refused_attempts_it_is_down_and_says_so(names: Names) -> None:
    with simulate(names, seed=13) as exchange, connect(names, exchange, reconnect_delay=0.01) as provider:
        assert provider.read("BTC").status is BookStatus.LIVE

        exchange.inject(kind="refuse_connections", seconds=60.0)
        exchange.inject(kind="reset")
        wait_for(lambda: not provider.get_connection_status().is_running, 10, "the end of all attempts")

        status, reading = provider.get_connection_status(), provider.read("BTC")
        assert status.error.startswith("gave up after 5 attempts in a row: cannot connect to ws://127.0.0.1")
        assert (reading.status, status.connected) == (BookStatus.FEEDER_DOWN, False)
        assert reading.snapshot is not None
        assert reading.snapshot.state == "suspect"
        wait_for(lambda: not provider.get_connection_status().thread_alive, what="the thread to end")


def test_a_quiet_market_is_confirmed_by_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookbus.feeders.websocket_client, "PING_AFTER", 0.1)
    with simulate(BINANCE, seed=14, rate=0.0) as exchange, connect(BINANCE, exchange, max_age=2.0) as provider:

        def beyond_the_limit() -> bool:
            status = provider.status("BTC")
            assert status.state is BookStatus.LIVE, status.reason
            return status.update_age is not None and status.update_age > provider.max_age

        wait_for(beyond_the_limit, 10, "an update older than the limit")


def test_a_silently_dead_connection_makes_books_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookbus.feeders.websocket_client, "PING_AFTER", 0.1)
    monkeypatch.setattr(bookbus.feeders.websocket_client, "PONG_LIMIT", 0.5)
    with simulate(BINANCE, seed=15) as exchange, connect(BINANCE, exchange, reconnect_delay=60.0) as provider:
        assert provider.read("BTC").status is BookStatus.LIVE

        exchange.inject(kind="half_open")

        wait_for(lambda: provider.read("BTC").status is BookStatus.SUSPECT, 10, "a suspect book")
        assert provider.get_connection_status().error == "no frame and no pong for 0.5 s"


def test_after_a_stall_books_are_suspect_until_new_ones_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulate(BINANCE, seed=16) as exchange, connect(BINANCE, exchange, reconnect_delay=0.05) as provider:
        seen = Seen(provider, BINANCE)
        wait_for(lambda: seen.count() >= 5, 20, "books of each symbol")

        monkeypatch.setattr(bookbus.feeders.stall_detector, "LIMIT", -1.0)
        wait_for(seen.all_suspect, 5, "suspect books")
        monkeypatch.undo()
        provider.wait_until_live(timeout=10)

        assert seen.wrong(exchange) == []


def test_stop_ends_a_handshake_that_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"127.0.0.1:{silent.getsockname()[1]}"
        provider = BinanceL2WebSocketProvider(
            BINANCE.natives, timeout=60.0, ws_url=f"ws://{url}", rest_url=f"http://{url}"
        )
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
    url = "exchange.invalid"
    provider = BinanceL2WebSocketProvider(BINANCE.natives, ws_url=f"ws://{url}", rest_url=f"http://{url}")
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
