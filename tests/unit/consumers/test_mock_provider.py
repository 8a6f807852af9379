"""MockMarketDataProvider: synthetic books with the properties of real ones."""

import math
import statistics
import threading
from itertools import pairwise

import pytest

from bookbus.consumers.mock_provider import MockMarketDataProvider, SyntheticMarket
from bookbus.schemas.instruments import EXCHANGES, SymbolError
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from tests.support.waiting import wait_for

BEGIN = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = BEGIN

    def __call__(self) -> float:
        return self.now


def books_of(seed: int, moments: int, symbol: str = "BTC") -> list[OrderBookSnapshot]:
    """The book of each tenth of a second."""
    clock, books = Clock(), []
    with MockMarketDataProvider([symbol], seed, clock=clock) as provider:
        for _ in range(moments):
            snapshot = provider.get_latest_snapshot(symbol)
            assert snapshot is not None
            books.append(snapshot)
            clock.now += 0.1
    return books


def test_the_same_seed_and_clock_give_the_same_books() -> None:
    assert books_of(seed=7, moments=50) == books_of(seed=7, moments=50)


def test_another_seed_or_symbol_gives_other_books() -> None:
    books = books_of(seed=7, moments=50)

    assert [book.bids for book in books] != [book.bids for book in books_of(seed=8, moments=50)]
    assert [book.bids for book in books] != [book.bids for book in books_of(7, 50, symbol="BTC-FDUSD")]


def test_how_often_it_is_read_makes_no_difference() -> None:
    clock = Clock()
    with MockMarketDataProvider(["BTC"], 7, clock=clock) as provider:
        clock.now += 4.9

        assert provider.get_latest_snapshot("BTC") == books_of(seed=7, moments=50)[-1]


def test_two_reads_within_one_step_return_the_same_book() -> None:
    clock = Clock()
    with MockMarketDataProvider(["BTC"], clock=clock) as provider:
        buy = provider.get_latest_snapshot("BTC")
        clock.now += 0.09
        sell = provider.get_latest_snapshot("BTC")
        clock.now += 0.02
        later = provider.get_latest_snapshot("BTC")

    assert buy is sell
    assert later is not sell


def test_every_book_has_the_exchange_id_mock() -> None:
    books = books_of(seed=1, moments=2)

    assert {book.exchange for book in books} == {"mock"}
    assert "mock" not in EXCHANGES
    assert all(book.exchange_us is None and book.feeder == "" and book.seq == 0 for book in books)


def test_books_are_numbered_and_timed_by_the_clock() -> None:
    books = books_of(seed=1, moments=3)

    assert [book.update_id for book in books] == [1, 2, 3]
    assert [book.received_us for book in books] == [round((BEGIN + step / 10) * 1e6) for step in range(3)]


@pytest.mark.parametrize(
    ("base", "quote", "depth"),
    [("BTC", "USDT", 20), ("BTC", "USDT", 2), ("BTC", "USDT", 1), ("ETH", "BTC", 20), ("BTC", "KRW", 20)],
)
def test_every_book_is_whole_sorted_and_not_crossed(base: str, quote: str, depth: int) -> None:
    market = SyntheticMarket(base, quote, seed=3, depth=depth)

    for _ in range(300):
        market.step()
        bids, asks = market.levels()
        assert len(bids) == len(asks) == depth
        assert bids[0][0] < asks[0][0]
        assert all(better[0] > worse[0] for better, worse in pairwise(bids))
        assert all(better[0] < worse[0] for better, worse in pairwise(asks))
        assert all(price > 0 and quantity > 0 for price, quantity in (*bids, *asks))


def test_books_have_the_shape_of_recorded_ones() -> None:
    """The bounds hold the figures of the two symbols of a recording made in August 2024."""
    market, books = SyntheticMarket("BTC", "USDT", seed=5, depth=20), []
    for _ in range(4_000):
        market.step()
        books.append(market.levels())
    mid_prices = [(bids[0][0] + asks[0][0]) / 2 for bids, asks in books]
    moves = [abs(b - a) / a * 1e4 for a, b in pairwise(mid_prices) if a != b]
    each_second = [math.log(b / a) * 1e4 for a, b in zip(mid_prices[::10], mid_prices[10::10], strict=False)]
    best = [bids[0][1] for bids, _ in books]
    deeper = [math.log(bids[5][1]) for bids, _ in books]

    assert 0.98 < statistics.mean(asks[0][0] - bids[0][0] < 0.15 for bids, asks in books) < 1.0
    assert 0.10 < len(moves) / len(mid_prices) < 0.16
    assert 0.3 < statistics.median(moves) < 0.7
    assert 0.9 < statistics.pstdev(each_second) < 1.4
    assert 0.7 < statistics.pstdev(best) / statistics.mean(best) < 1.1
    assert 2.3 < statistics.pstdev(deeper) < 3.4
    assert statistics.median(best) > 10 * statistics.median(map(math.exp, deeper))


def test_a_drifting_price_turns_back() -> None:
    market = SyntheticMarket("BTC", "USDT", seed=1, depth=2)
    market._bids, market._asks = [(1_000_000, 1.0)], [(1_000_001, 1.0)]
    market.step()

    for _ in range(500):
        market.step()

    assert market.levels()[0][0][0] < 100_000


def test_a_symbol_without_a_book_is_none_and_an_invalid_one_an_error() -> None:
    with MockMarketDataProvider("BTC,ETH") as provider:
        assert provider.symbols == ["BTC-USDT", "ETH-USDT"]
        assert provider.get_latest_snapshot("DOGE") is None
        with pytest.raises(SymbolError):
            provider.get_latest_snapshot("-")
    with pytest.raises(ValueError, match="no symbols"):
        MockMarketDataProvider([])


def test_before_start_there_is_no_book_and_after_stop_it_grows_old() -> None:
    clock = Clock()
    provider = MockMarketDataProvider(clock=clock)
    assert provider.get_latest_snapshot("BTC") is None
    assert provider.read("BTC").reason == "BTC: not started"

    with provider:
        assert provider.read("BTC").status is BookStatus.LIVE
        last = provider.get_latest_snapshot("BTC")
    clock.now += 6

    assert provider.get_latest_snapshot("BTC") is last
    reading = provider.read("BTC")
    assert (reading.status, reading.reason) == (
        BookStatus.STALE,
        "BTC: not confirmed for 6.0 s (limit 5 s); stopped",
    )


def test_it_changes_by_itself_and_notifies_its_listeners() -> None:
    seen: list[OrderBookSnapshot] = []
    provider = MockMarketDataProvider()
    provider.on_snapshot(seen.append)

    with provider:
        wait_for(lambda: len(seen) >= 3, what="three books")

    assert [book.update_id for book in seen] == sorted({book.update_id for book in seen})


def test_its_thread_is_gone_after_stop() -> None:
    threads = threading.active_count()
    provider = MockMarketDataProvider()

    provider.stop()
    provider.start()
    provider.start()
    assert provider.get_connection_status().thread_alive
    provider.stop()
    provider.stop()

    assert threading.active_count() == threads
    assert not provider.get_connection_status().is_running
