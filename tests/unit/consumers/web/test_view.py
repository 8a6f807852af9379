"""The rows, events and histories that the page shows."""

import pytest

from bookbus.consumers.web.view import HISTORY, BookRow, BusView, changes
from bookbus.schemas.snapshot import BookStatus
from tests.support.stub_provider import StubProvider

BIDS, ASKS = ((99.5, 1.0), (99.25, 2.0)), ((100.5, 1.5),)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> StubProvider:
    stub = StubProvider("binance")
    stub.put("BTC-USDT", BIDS, ASKS)
    stub.put("ETH-USDT", ((10.0, 1.0),), ((10.5, 1.0),))
    return stub


def by_symbol(rows: list[BookRow]) -> dict[str, BookRow]:
    return {row.symbol: row for row in rows}


def test_a_row_has_the_best_prices_and_their_digits(provider: StubProvider, clock: Clock) -> None:
    row = by_symbol(BusView({"binance": provider}, clock).sample())["BTC-USDT"]

    assert (row.bid, row.ask, row.decimals) == (99.5, 100.5, 2)
    assert row.spread_bps == pytest.approx(100.0)
    assert (row.status, row.urgency, row.reason) == (BookStatus.LIVE, 0, "")


@pytest.mark.parametrize(
    ("price", "decimals"), [(61838.96, 2), (1e-8, 8), (84_000_000.0, 0), (0.1 + 0.2, 12), (5e-9, 9), (150.0, 0)]
)
def test_prices_have_as_many_digits_as_their_shortest_text(clock: Clock, price: float, decimals: int) -> None:
    stub = StubProvider("binance")
    stub.put("BTC-USDT", ((price, 1.0),), ())

    assert BusView({"binance": stub}, clock).sample()[0].decimals == decimals


def test_books_that_are_not_live_come_first_with_their_reason(provider: StubProvider, clock: Clock) -> None:
    view = BusView({"binance": provider}, clock)
    provider.lose("ETH-USDT")

    first, second = view.sample()

    assert (first.symbol, first.status) == ("ETH-USDT", BookStatus.SUSPECT)
    assert first.reason.startswith("it is out of sync")
    assert second.urgency == 0


def test_each_change_of_a_status_is_one_event(provider: StubProvider, clock: Clock) -> None:
    view = BusView({"binance": provider}, clock)
    view.sample()
    clock.now += 3.0
    provider.lose("BTC-USDT")
    for _ in range(3):
        view.sample()
    clock.now += 0.5
    provider.put("BTC-USDT", BIDS, ASKS)
    view.sample()

    seen = [(event.before, event.status, event.seconds) for event in view.events]
    assert seen == [(BookStatus.LIVE, BookStatus.SUSPECT, 3.0), (BookStatus.SUSPECT, BookStatus.LIVE, 0.5)]


def test_the_history_has_no_point_while_a_book_is_not_live(provider: StubProvider, clock: Clock) -> None:
    view = BusView({"binance": provider}, clock)
    view.sample()
    provider.lose("BTC-USDT")
    clock.now += 10.0
    view.sample()

    book = view.book("binance", "BTC")
    assert book is not None
    assert [(point.at, point.mid) for point in book.points] == [(1_000.0, 100.0)]


def test_the_history_is_bounded(provider: StubProvider, clock: Clock) -> None:
    view = BusView({"binance": provider}, clock)
    for _ in range(2_000):
        view.sample()
        clock.now += 0.5

    book = view.book("binance", "BTC")
    assert book is not None
    assert len(book.points) == 240
    assert book.points[-1].at - book.points[0].at <= HISTORY


def test_a_clock_that_was_set_back_does_not_end_the_history(provider: StubProvider, clock: Clock) -> None:
    view = BusView({"binance": provider}, clock)
    view.sample()
    clock.now -= 600.0
    view.sample()

    book = view.book("binance", "BTC")
    assert book is not None
    assert len(book.points) == 2


def test_a_book_that_is_not_known_is_none(provider: StubProvider, clock: Clock) -> None:
    view = BusView({"binance": provider}, clock)
    view.sample()

    assert view.book("upbit", "BTC") is None
    assert view.book("binance", "XRP") is None


def test_only_rows_that_changed_are_sent(provider: StubProvider, clock: Clock) -> None:
    view = BusView({"binance": provider}, clock)
    before = {(row.exchange, row.symbol): row for row in view.sample()}
    provider.put("ETH-USDT", ((10.1, 1.0),), ((10.5, 1.0),))

    assert [row.symbol for row in changes(before, view.sample())] == ["ETH-USDT"]
    assert len(changes({}, view.sample())) == 2
