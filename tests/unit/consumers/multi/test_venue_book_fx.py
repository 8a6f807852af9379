"""Conversion between quote currencies, by the side of the trade."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.multi.venue_book import conversion, links
from bookbus.schemas.snapshot import Level, Levels
from tests.support.builders import book

RATE = book("USDT-KRW", exchange="upbit", bids=((1400.0, 500.0),), asks=((1401.0, 800.0),))

prices = st.floats(1e-6, 1e9)


def test_an_ask_in_won_is_paid_with_tether_sold_at_its_bid() -> None:
    asks = conversion(RATE, "USDT").asks(((140_000_000.0, 0.5), (140_014_000.0, 0.25)))

    assert asks == ((100_000.0, 0.5), (100_010.0, 0.25))


def test_a_bid_in_won_buys_tether_at_its_ask() -> None:
    bids = conversion(RATE, "USDT").bids(((140_100_000.0, 0.5), (140_085_990.0, 0.25)))

    assert bids == ((100_000.0, 0.5), (99_990.0, 0.25))


def test_the_other_way_prices_are_multiplied_by_the_side_of_the_trade() -> None:
    to_won = conversion(RATE, "KRW")

    assert to_won.asks(((100_000.0, 0.5),)) == ((140_100_000.0, 0.5),)
    assert to_won.bids(((100_000.0, 0.5),)) == ((140_000_000.0, 0.5),)


def test_the_amount_that_the_best_rate_covers_is_in_the_target_currency() -> None:
    to_tether, to_won = conversion(RATE, "USDT"), conversion(RATE, "KRW")

    assert (to_tether.ask_size, to_tether.bid_size) == (500.0, 800.0)
    assert (to_won.ask_size, to_won.bid_size) == (800.0 * 1401.0, 500.0 * 1400.0)


@pytest.mark.parametrize(
    ("bids", "asks", "complaint"),
    [((), ((1401.0, 1.0),), "USDT-KRW has no bids"), (((1400.0, 1.0),), (), "USDT-KRW has no asks")],
)
def test_half_a_rate_is_none(bids: Levels, asks: Levels, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        conversion(book("USDT-KRW", bids=bids, asks=asks), "USDT")


def test_a_rate_links_its_two_currencies_and_no_others() -> None:
    assert links("USDT-KRW", "KRW", "USDT")
    assert links("USDT-KRW", "USDT", "KRW")
    assert not links("USDC-KRW", "KRW", "USDT")
    assert not links("USDT-KRW", "KRW", "KRW")


@given(prices, prices, prices, st.sampled_from(["USDT", "KRW"]))
def test_buying_never_gets_cheaper_and_selling_never_better_than_exact(
    price: float, bid: float, ask: float, target: str
) -> None:
    bid, ask = min(bid, ask), max(bid, ask)
    rate = conversion(book("USDT-KRW", bids=((bid, 1.0),), asks=((ask, 1.0),)), target)

    ((sold, _),), ((bought, _),) = rate.bids(((price, 1.0),)), rate.asks(((price, 1.0),))

    exactly = Fraction(price)
    assert sold == float(exactly / Fraction(ask) if target == "USDT" else exactly * Fraction(bid))
    assert bought == float(exactly / Fraction(bid) if target == "USDT" else exactly * Fraction(ask))
    assert sold <= bought


@given(prices, prices, prices, prices)
def test_a_price_that_does_not_cross_exactly_does_not_cross_converted(
    bid_won: float, ask_tether: float, rate_bid: float, rate_ask: float
) -> None:
    rate_bid, rate_ask = min(rate_bid, rate_ask), max(rate_bid, rate_ask)
    rate = conversion(book("USDT-KRW", bids=((rate_bid, 1.0),), asks=((rate_ask, 1.0),)), "USDT")

    ((converted, _),) = rate.bids(((bid_won, 1.0),))

    assert (converted > ask_tether) <= (Fraction(bid_won) / Fraction(rate_ask) > Fraction(ask_tether))


@given(st.lists(st.tuples(prices, st.floats(1e-8, 1e6)), max_size=30), prices, prices)
def test_order_and_sizes_stay(levels: list[Level], bid: float, ask: float) -> None:
    bids, asks = tuple(sorted(levels, reverse=True)), tuple(sorted(levels))
    bid, ask = min(bid, ask), max(bid, ask)
    rate = conversion(book("USDT-KRW", bids=((bid, 1.0),), asks=((ask, 1.0),)), "USDT")

    converted = rate.bids(bids), rate.asks(asks)

    assert [size for _, size in converted[0]] == [size for _, size in bids]
    assert [size for _, size in converted[1]] == [size for _, size in asks]
    assert [price for price, _ in converted[0]] == sorted((price for price, _ in converted[0]), reverse=True)
    assert [price for price, _ in converted[1]] == sorted(price for price, _ in converted[1])
