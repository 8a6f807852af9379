"""Best prices that the exchange names, against those that our books show about that time."""

from bookbus.feeders.audit import PriceWatch
from bookbus.feeders.venue import BestPrices
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot, StoredState
from tests.support.builders import book


def at(
    bid: float | None, ask: float | None, symbol: str = "BTC-USDT", state: StoredState = "live"
) -> OrderBookSnapshot:
    """A book with these best prices and something behind them."""

    def side(best: float | None, step: int) -> Levels:
        return () if best is None else ((best, 1.0), (best + step, 1.0))

    return book(symbol, state=state, bids=side(bid, -1), asks=side(ask, 1))


def watch(*books: OrderBookSnapshot) -> PriceWatch:
    watching = PriceWatch()
    watching.start(books or [at(99.0, 101.0)])
    return watching


def test_a_watch_is_on_between_start_and_end_only() -> None:
    watching = PriceWatch()
    states = [watching.is_on]
    watching.start([at(99.0, 101.0)])
    states.append(watching.is_on)
    watching.end()
    states.append(watching.is_on)

    assert states == [False, True, False]


def test_prices_that_stand_when_asked_are_no_miss_and_end_the_watch() -> None:
    watching = watch()

    assert watching.answer({"BTCUSDT": BestPrices(99.0, 101.0)}) == 1
    assert not watching.is_on
    assert watching.end() == []


def test_prices_that_stood_while_the_answer_was_on_its_way_are_no_miss() -> None:
    watching = watch()
    watching.see(at(98.0, 102.0))
    watching.see(at(97.0, 103.0))
    watching.answer({"BTCUSDT": BestPrices(98.0, 103.0)})

    assert watching.end() == []


def test_prices_that_come_after_the_answer_are_no_miss() -> None:
    watching = watch()
    watching.answer({"BTCUSDT": BestPrices(98.0, 101.0)})
    still_on = watching.is_on
    watching.see(at(98.0, 102.0))

    assert still_on
    assert not watching.is_on
    assert watching.end() == []


def test_a_price_that_never_stood_is_a_miss_of_that_symbol_alone() -> None:
    watching = watch(at(99.0, 101.0), at(9.0, 10.0, "ETH-USDT"))
    assert watching.answer({"BTCUSDT": BestPrices(98.0, 101.0), "ETHUSDT": BestPrices(9.0, 10.0)}) == 2
    watching.see(at(99.0, 102.0))

    assert watching.end() == ["BTCUSDT"]


def test_a_best_price_behind_a_ghost_is_a_miss() -> None:
    watching = watch(at(99.0, 101.0))
    watching.answer({"BTCUSDT": BestPrices(98.0, 101.0)})

    assert watching.end() == ["BTCUSDT"]


def test_an_empty_side_is_told_as_such_by_both() -> None:
    watching = watch(at(None, 101.0), at(9.0, None, "ETH-USDT"))
    watching.answer({"BTCUSDT": BestPrices(None, 101.0), "ETHUSDT": BestPrices(None, None)})

    assert watching.end() == ["ETHUSDT"]


def test_a_symbol_that_the_exchange_does_not_name_is_no_miss() -> None:
    watching = watch()

    assert watching.answer({"ETHUSDT": BestPrices(1.0, 2.0)}) == 0
    assert watching.end() == []


def test_a_book_that_is_not_live_is_not_looked_at() -> None:
    watching = watch(at(99.0, 101.0, state="suspect"), at(9.0, 10.0, "ETH-USDT"))
    watching.see(at(9.0, 10.0, "ETH-USDT", state="suspect"))
    watching.see(at(9.0, 10.0, "ETH-USDT"))

    assert watching.answer({"BTCUSDT": BestPrices(1.0, 2.0), "ETHUSDT": BestPrices(1.0, 2.0)}) == 0
    assert watching.end() == []


def test_what_an_earlier_answer_said_is_forgotten() -> None:
    watching = watch()
    watching.answer({"BTCUSDT": BestPrices(98.0, 102.0)})
    watching.end()
    watching.start([at(99.0, 101.0)])
    watching.see(at(98.0, 102.0))
    watching.answer({"BTCUSDT": BestPrices(97.0, 102.0)})

    assert watching.end() == ["BTCUSDT"]
