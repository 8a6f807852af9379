"""Opportunities between two exchanges."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.multi.arbitrage import find_opportunities, find_opportunity, walk
from bookbus.consumers.multi.venue_book import VenueBook, conversion
from bookbus.schemas.snapshot import Levels
from tests.support.builders import book
from tests.support.venue_books import level_pairs, venue_book

BINANCE = venue_book(
    "binance", ((99_400.0, 0.3), (99_200.0, 0.4), (99_100.0, 1.0)), ((99_401.0, 1.0),), fee_bps=10.0, age=0.2
)
UPBIT = venue_book("upbit", ((98_900.0, 1.0),), ((99_000.0, 0.5), (99_050.0, 0.5)), fee_bps=5.0, age=0.7)

fees = st.floats(0.0, 30.0)


def test_figures_are_those_computed_by_hand() -> None:
    (found,) = find_opportunities("BTC-USDT", [BINANCE, UPBIT], max_skew=1.0)

    # Bought at 99,000 x 1.0005 = 99,049.50 and sold at 99,400 x 0.999 = 99,300.60: 251.10 of 99,000 are left.
    assert (found.symbol, found.buy, found.sell, found.reason) == ("BTC-USDT", "upbit", "binance", "")
    assert (found.buy_price, found.sell_price) == (99_000.0, 99_400.0)
    assert found.gross_bps == pytest.approx(40.404040, abs=1e-6)
    assert found.fees_bps == pytest.approx(15.040404, abs=1e-6)
    assert found.net_bps == pytest.approx(25.363636, abs=1e-6)
    assert (found.buy_age, found.sell_age, found.fx_age, found.fx_size) == (0.7, 0.2, None, None)


def test_size_is_what_both_books_hold_at_a_profit() -> None:
    found = find_opportunity("BTC-USDT", UPBIT, BINANCE, max_skew=1.0)

    # 0.3 at 99,000 -> 99,400; 0.2 at 99,000 -> 99,200; 0.2 at 99,050 -> 99,200; then 99,050 -> 99,100 is a loss.
    assert found.size == pytest.approx(0.7)
    assert found.cost == pytest.approx(0.5 * 99_049.5 + 0.2 * 99_099.525)
    assert found.profit == pytest.approx(85.845)
    assert found.actionable


def test_a_gap_smaller_than_the_fees_is_shown_and_not_actionable() -> None:
    dear = venue_book("upbit", UPBIT.bids, UPBIT.asks, fee_bps=31.0, age=0.7)

    found = find_opportunity("BTC-USDT", dear, BINANCE, max_skew=1.0)

    assert (found.reason, found.actionable, found.size) == ("no profit left after fees", False, 0.0)
    assert found.gross_bps == pytest.approx(40.404040, abs=1e-6)
    assert found.net_bps is not None
    assert found.net_bps < 0


def test_books_that_do_not_cross_show_how_far_they_are_apart() -> None:
    calm = venue_book("upbit", ((99_390.0, 1.0),), ((99_450.0, 1.0),), fee_bps=5.0)

    (found,) = find_opportunities("BTC-USDT", [BINANCE, calm], max_skew=1.0)

    assert (found.buy, found.sell, found.reason) == ("binance", "upbit", "the books do not cross")
    assert found.gross_bps == pytest.approx((99_390 - 99_401) / 99_401 * 1e4)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (venue_book("upbit", (), (), reason="upbit BTC-KRW is suspect"), "upbit BTC-KRW is suspect"),
        (
            venue_book("upbit", UPBIT.bids, UPBIT.asks, age=1.3),
            "upbit and binance were confirmed 1.1 s apart (limit 1 s)",
        ),
        (
            venue_book("upbit", ((198_800.0, 1.0),), ((198_802.0, 1.0),)),
            "mid prices of upbit and binance are 100.0% apart: different asset?",
        ),
    ],
)
def test_books_that_may_not_be_compared_give_a_reason_and_no_figures(other: VenueBook, reason: str) -> None:
    (found,) = find_opportunities("BTC-USDT", [other, BINANCE], max_skew=1.0)

    assert found.reason == reason
    assert (found.gross_bps, found.fees_bps, found.net_bps, found.buy_price) == (None, None, None, None)
    assert (found.size, found.profit) == (0.0, 0.0)


def test_a_reason_that_both_books_share_is_given_once() -> None:
    stale = "FX USDT-KRW is stale: not confirmed for 9.0 s (limit 5 s)"
    one, other = venue_book("upbit", (), (), reason=stale), venue_book("bithumb", (), (), reason=stale)

    assert find_opportunity("BTC-USDT", one, other, max_skew=1.0).reason == stale


def test_what_the_exchange_rate_covers_is_that_of_the_side_used() -> None:
    rate = conversion(book("USDT-KRW", bids=((1400.0, 500.0),), asks=((1401.0, 800.0),)), "USDT")
    upbit = VenueBook(
        exchange="upbit",
        symbol="BTC-KRW",
        status=UPBIT.status,
        fee_bps=5.0,
        age=0.7,
        snapshot=UPBIT.snapshot,
        conversion=rate,
        fx_age=2.5,
        bids=UPBIT.bids,
        asks=UPBIT.asks,
        depth=20,
    )

    bought, sold = find_opportunity("BTC-USDT", upbit, BINANCE, 1.0), find_opportunity("BTC-USDT", BINANCE, upbit, 1.0)

    assert (bought.fx_size, sold.fx_size) == (500.0, 800.0)
    assert (bought.fx_age, sold.fx_age) == (2.5, 2.5)


def test_every_pair_of_exchanges_is_told_once() -> None:
    bybit = venue_book("bybit", BINANCE.bids, BINANCE.asks)

    found = find_opportunities("BTC-USDT", [BINANCE, UPBIT, bybit], max_skew=1.0)

    assert [{pair.buy, pair.sell} for pair in found] == [{"binance", "upbit"}, {"binance", "bybit"}, {"upbit", "bybit"}]


def test_walking_stops_at_the_end_of_the_shorter_book() -> None:
    assert walk(((10.0, 1.0),), ((12.0, 0.25), (11.0, 0.5))) == (0.75, 7.5, 8.5)
    assert walk((), ((12.0, 0.25),)) == (0.0, 0.0, 0.0)


def test_a_price_that_pays_just_the_fees_is_not_taken() -> None:
    assert walk(((100.0, 1.0),), ((100.0, 1.0),)) == (0.0, 0.0, 0.0)
    assert walk(((100.0, 1.0),), ((101.0, 1.0),), buy_fee_bps=100.0) == (0.0, 0.0, 0.0)


@given(level_pairs(), level_pairs(), fees, fees)
def test_net_is_gross_less_the_fees_of_both_legs(
    one: tuple[Levels, Levels], other: tuple[Levels, Levels], buy_fee: float, sell_fee: float
) -> None:
    buy, sell = venue_book("binance", *one, fee_bps=buy_fee), venue_book("upbit", *other, fee_bps=sell_fee)

    found = find_opportunity("BTC-USDT", buy, sell, max_skew=1.0)

    ask, bid = Fraction(one[1][0][0]), Fraction(other[0][0][0])
    cost, proceeds = ask * (1 + Fraction(buy_fee) / 10_000), bid * (1 - Fraction(sell_fee) / 10_000)
    assert found.gross_bps is not None
    assert found.fees_bps is not None
    assert found.net_bps == found.gross_bps - found.fees_bps
    assert found.net_bps == pytest.approx(float((proceeds - cost) / ask * 10_000), abs=1e-6)


@given(level_pairs(), level_pairs(), fees, fees)
def test_size_is_what_both_books_hold_at_most_and_every_part_of_it_pays(
    one: tuple[Levels, Levels], other: tuple[Levels, Levels], buy_fee: float, sell_fee: float
) -> None:
    asks, bids = one[1], other[0]

    size, cost, proceeds = walk(asks, bids, buy_fee, sell_fee)

    assert size <= min(sum(quantity for _, quantity in asks), sum(quantity for _, quantity in bids))
    best = Fraction(0)
    for ask, bid in zip(units(asks), units(bids), strict=False):
        unit = bid * (1 - Fraction(sell_fee) / 10_000) - ask * (1 + Fraction(buy_fee) / 10_000)
        best += max(unit, Fraction(0)) / 8
    assert proceeds - cost == pytest.approx(float(best), abs=1e-7)


@given(level_pairs(), level_pairs(), fees, fees)
def test_the_order_of_the_exchanges_does_not_matter(
    one: tuple[Levels, Levels], other: tuple[Levels, Levels], fee: float, other_fee: float
) -> None:
    first, second = venue_book("binance", *one, fee_bps=fee), venue_book("upbit", *other, fee_bps=other_fee)

    assert find_opportunities("BTC-USDT", [first, second], 1.0) == find_opportunities("BTC-USDT", [second, first], 1.0)


@given(level_pairs(), level_pairs(), fees, fees)
def test_without_a_crossing_nothing_is_actionable(
    one: tuple[Levels, Levels], other: tuple[Levels, Levels], fee: float, other_fee: float
) -> None:
    first, second = venue_book("binance", *one, fee_bps=fee), venue_book("upbit", *other, fee_bps=other_fee)

    (found,) = find_opportunities("BTC-USDT", [first, second], 1.0)

    crossed = max(one[0][0][0], other[0][0][0]) > min(one[1][0][0], other[1][0][0])
    assert found.actionable <= crossed
    assert found.actionable == (found.size > 0) == (found.profit > 0)


def units(levels: Levels) -> list[Fraction]:
    """The price of each eighth of quantity, best first."""
    return [Fraction(price) for price, quantity in levels for _ in range(int(quantity * 8))]
