"""Marketable orders against figures computed by hand, and what may never happen for any book."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.paper.fills.model import AdvancedFill, BookWalk, Fill, FillModel, FillReason, SimpleFill, no_fill
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot, Side
from tests.support.builders import book
from tests.support.orders import order

# Bids 99.5 x 1.0 and 99.0 x 2.0, asks 100.5 x 1.5 and 101.0 x 2.5.
BOOK = book()
MODELS = [SimpleFill, AdvancedFill, BookWalk]


def close(fill: Fill, quantity: float, price: float, slippage: float, reason: FillReason) -> bool:
    if fill.price is None or fill.slippage_bps is None or fill.liquidity != "taker":
        return False
    figures = ((fill.quantity, quantity), (fill.price, price), (fill.slippage_bps, slippage))
    return fill.reason is reason and all(math.isclose(*pair, rel_tol=1e-9) for pair in figures)


def test_simple_buys_half_of_the_best_ask_with_half_of_the_slippage() -> None:
    fill = SimpleFill().fill(order("buy", 0.75), BOOK)

    assert close(fill, 0.75, 100.505025, 0.5, FillReason.FILLED)


def test_simple_sells_no_more_than_the_best_bid_holds() -> None:
    fill = SimpleFill().fill(order("sell", 2.0), BOOK)

    assert close(fill, 1.0, 99.49005, 1.0, FillReason.PARTIAL)


def test_simple_moves_the_price_from_the_target_but_never_inside_the_touch() -> None:
    worse = SimpleFill().fill(order("buy", 1.5, target_price=100.6), BOOK)
    better = SimpleFill().fill(order("buy", 1.5, target_price=90.0), BOOK)

    assert close(worse, 1.5, 100.61006, (100.61006 - 100.5) / 100.5 * 1e4, FillReason.FILLED)
    assert better == Fill(1.5, 100.5, 0.0, FillReason.FILLED, "taker")


def test_advanced_takes_a_whole_virtual_level_and_part_of_the_next() -> None:
    # Level 0 holds 1.5 * 0.8 = 1.2 at 100.5, taken whole: 100.5201. Level 1 holds 1.2 * exp(-0.3) = 0.888982 at
    # 100.51005, of which 0.3 is a share of 0.337465, to the power of 1.2 0.271565: 100.515509.
    fill = AdvancedFill().fill(order("buy", 1.5), BOOK)

    assert close(fill, 1.5, 100.519181801, 1.90863692, FillReason.FILLED)


def test_advanced_fills_no_more_than_its_five_levels() -> None:
    # 0.8 * (1 + e^-0.3 + e^-0.6 + e^-0.9 + e^-1.2) = 2.397915 times the best bid of 1.0.
    fill = AdvancedFill().fill(order("sell", 5.0), book(bids=((99.5, 1.0), (99.0, 9.0))))

    assert fill.quantity == pytest.approx(2.397915, abs=1e-6)
    assert fill.reason is FillReason.PARTIAL


def test_advanced_fills_no_more_than_the_real_book_holds() -> None:
    fill = AdvancedFill().fill(order("sell", 5.0), book(bids=((99.5, 1.0), (99.0, 0.1))))

    assert fill.quantity == pytest.approx(1.1)


def test_book_walk_pays_the_average_of_the_levels_it_takes() -> None:
    # 1.5 at 100.5 and 0.5 at 101.0.
    fill = BookWalk().fill(order("buy", 2.0), BOOK)

    assert close(fill, 2.0, 100.625, 0.125 / 100.5 * 1e4, FillReason.FILLED)


@given(st.floats(1e-6, 1e6), st.floats(1e-3, 1e6))
def test_book_walk_pays_the_very_price_of_the_only_level_it_takes(quantity: float, price: float) -> None:
    level = book(bids=(), asks=((price, 2e6),))

    fill = BookWalk().fill(order("buy", quantity), level)

    assert (fill.price, fill.slippage_bps) == (price, 0.0)


def test_book_walk_sells_into_the_bids() -> None:
    fill = BookWalk().fill(order("sell", 5.0), BOOK)

    assert close(fill, 3.0, (99.5 + 2 * 99.0) / 3, (99.5 - 297.5 / 3) / 99.5 * 1e4, FillReason.PARTIAL)


def test_book_walk_stops_at_the_limit() -> None:
    fill = BookWalk().fill(order("buy", 2.0, price=100.9), BOOK)

    assert fill == Fill(1.5, 100.5, 0.0, FillReason.PARTIAL, "taker")


def test_what_was_taken_is_not_there_a_second_time() -> None:
    model = BookWalk()
    model.fill(order("buy", 1.0), BOOK)

    second = model.fill(order("buy", 1.0), BOOK)

    # What is left of 100.5, then 101.0; the slippage counts from what the book shows.
    assert close(second, 1.0, 100.75, 0.25 / 100.5 * 1e4, FillReason.FILLED)


def test_a_book_that_is_wholly_taken_fills_nothing_more() -> None:
    model = BookWalk()
    model.fill(order("buy", 9.0), BOOK)

    assert model.fill(order("buy", 1.0), BOOK) == no_fill(FillReason.CONSUMED)


@pytest.mark.parametrize(
    ("asks", "available"),
    [
        pytest.param(((100.5, 2.1), (101.0, 2.5)), 0.6, id="what is added to a level is new"),
        pytest.param(((100.5, 0.7), (101.0, 2.5)), 0.0, id="a level that shrinks shows what we took"),
        pytest.param(((100.4, 0.3), (100.5, 1.5)), 0.3, id="a better level is new, the old one is as it was"),
    ],
)
def test_a_level_refreshes_by_what_is_added_to_it(asks: Levels, available: float) -> None:
    model = BookWalk()
    model.fill(order("buy", 1.5), BOOK)

    fill = model.fill(order("buy", 9.0, price=100.5), book(asks=asks))

    assert fill.quantity == pytest.approx(available)


def test_a_level_that_left_the_book_comes_back_whole() -> None:
    model = BookWalk()
    model.fill(order("buy", 1.5), BOOK)
    model.observe(book(asks=((101.0, 2.5),)))

    assert model.fill(order("buy", 9.0, price=100.5), BOOK).quantity == 1.5


def test_a_level_beyond_what_the_book_shows_stays_taken() -> None:
    model = BookWalk()
    model.fill(order("buy", 9.0), book(depth=2))
    model.observe(book(depth=2, asks=((100.1, 1.0), (100.2, 1.0))))

    assert model.fill(order("buy", 9.0), book(depth=2)) == no_fill(FillReason.CONSUMED)


def test_one_market_does_not_remember_what_was_taken_in_another() -> None:
    model = BookWalk()
    model.fill(order("buy", 9.0), BOOK)

    assert model.fill(order("buy", 1.0, symbol="ETH-USDT"), book("ETH-USDT")).quantity == 1.0


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize(
    ("market", "limit", "reason"),
    [
        (book(asks=()), None, FillReason.EMPTY_SIDE),
        (book(state="suspect"), None, FillReason.BOOK_NOT_LIVE),
        (book(state="closed"), None, FillReason.BOOK_NOT_LIVE),
        (BOOK, 100.4, FillReason.NOT_MARKETABLE),
    ],
)
def test_nothing_is_filled_where_nothing_can_be(
    make: type[FillModel], market: OrderBookSnapshot, limit: float | None, reason: FillReason
) -> None:
    assert make().fill(order("buy", 1.0, limit), market) == no_fill(reason)


@pytest.mark.parametrize("make", MODELS)
def test_a_book_of_another_market_is_a_mistake(make: type[FillModel]) -> None:
    with pytest.raises(ValueError, match="an order for binance:BTC-USDT meets an event of binance:ETH-USDT"):
        make().fill(order(), book("ETH-USDT"))


@pytest.mark.parametrize("quantity", [0.0, -1.0, math.nan, math.inf])
def test_an_order_has_a_quantity(quantity: float) -> None:
    with pytest.raises(ValueError, match="the quantity of an order must be finite and above zero"):
        order("buy", quantity)


prices = st.integers(1, 400).map(lambda ticks: ticks / 4)
quantities = st.integers(1, 10_000).map(lambda steps: steps / 1000)


@st.composite
def books(draw: st.DrawFn) -> OrderBookSnapshot:
    levels = sorted(draw(st.sets(prices, min_size=2, max_size=12)))
    middle = draw(st.integers(0, len(levels)))
    sides = [tuple((price, draw(quantities)) for price in side) for side in (levels[:middle][::-1], levels[middle:])]
    return book(bids=sides[0], asks=sides[1], depth=draw(st.sampled_from([6, 20])))


sides: st.SearchStrategy[Side] = st.sampled_from(["buy", "sell"])


@pytest.mark.parametrize("make", MODELS)
@given(market=books(), side=sides, quantity=quantities, limit=st.none() | prices, target=st.none() | prices)
def test_no_fill_exceeds_the_book_or_the_order_or_is_better_than_the_best_level(
    make: type[FillModel],
    market: OrderBookSnapshot,
    side: Side,
    quantity: float,
    limit: float | None,
    target: float | None,
) -> None:
    levels = market.asks if side == "buy" else market.bids

    fill = make().fill(order(side, quantity, limit, target_price=target), market)

    if fill.price is None or fill.slippage_bps is None:
        assert fill == no_fill(fill.reason)
        return
    reached = [held for price, held in levels if limit is None or (price <= limit if side == "buy" else price >= limit)]
    assert 0 < fill.quantity <= quantity
    assert fill.quantity <= math.fsum(reached) * (1 + 1e-12)
    assert fill.slippage_bps >= 0
    assert fill.price >= levels[0][0] if side == "buy" else fill.price <= levels[0][0]
    assert limit is None or (fill.price <= limit if side == "buy" else fill.price >= limit)
    assert (fill.reason is FillReason.FILLED) == (fill.quantity == quantity)


@given(market=books(), orders=st.lists(st.tuples(sides, quantities), min_size=1, max_size=8))
def test_all_fills_together_never_exceed_a_book_that_does_not_change(
    market: OrderBookSnapshot, orders: list[tuple[Side, float]]
) -> None:
    model = BookWalk()
    filled: dict[Side, float] = {"buy": 0.0, "sell": 0.0}

    for side, quantity in orders:
        filled[side] += model.fill(order(side, quantity), market).quantity

    assert filled["buy"] <= math.fsum(held for _, held in market.asks) + 1e-9
    assert filled["sell"] <= math.fsum(held for _, held in market.bids) + 1e-9
