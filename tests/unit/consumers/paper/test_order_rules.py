"""Ticks, steps, minimum value and status: rounded as the exchange would have it, or refused with the reason."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.paper.order_rules import Rejection, ceil_to, entry_price, fit_order, floor_to, take_profit_price
from bookbus.schemas.instruments import Instrument
from tests.support.builders import book
from tests.support.orders import order

INSTRUMENT = Instrument(
    "binance", "BTC", "USDT", "BTCUSDT", tick=0.01, step=0.001, minimum_notional=5.0, status="trading"
)


def test_quantities_round_down_and_limits_away_from_the_market() -> None:
    assert fit_order(order("buy", 1.23456, 100.007), INSTRUMENT, 100.0) == order("buy", 1.234, 100.0)
    assert fit_order(order("sell", 1.23456, 100.001), INSTRUMENT, 100.0) == order("sell", 1.234, 100.01)


def test_what_is_on_the_grid_stays() -> None:
    # 0.3 is no whole number of 0.1 in binary.
    assert floor_to(0.3, 0.1) == ceil_to(0.3, 0.1) == 0.3


def test_an_unknown_grid_rounds_nothing() -> None:
    unknown = Instrument("binance", "BTC", "USDT", "BTCUSDT")

    assert fit_order(order("buy", 1.23456, 100.007), unknown, 100.0) == order("buy", 1.23456, 100.007)


@pytest.mark.parametrize(
    ("quantity", "price", "instrument", "refusal"),
    [
        (0.0009, None, INSTRUMENT, Rejection("below_step", "0.0009 is less than one step of 0.001")),
        (1.0, 0.009, INSTRUMENT, Rejection("below_tick", "a limit of 0.009 is less than one tick of 0.01")),
        (0.05, 99.0, INSTRUMENT, Rejection("below_minimum_notional", "4.95 is less than 5")),
        (0.049, None, INSTRUMENT, Rejection("below_minimum_notional", "4.9 is less than 5")),
        (
            1.0,
            None,
            replace(INSTRUMENT, status="halted"),
            Rejection("not_trading", "BTC-USDT is not trading on binance"),
        ),
    ],
)
def test_an_order_that_the_exchange_would_not_take_is_refused_with_the_reason(
    quantity: float, price: float | None, instrument: Instrument, refusal: Rejection
) -> None:
    assert fit_order(order("buy", quantity, price), instrument, 100.0) == refusal


def test_entries_wait_behind_the_best_price_of_their_side_and_profits_beyond_the_entry() -> None:
    market = book(bids=((10_000.0, 1.0),), asks=((10_001.0, 1.0),))

    assert entry_price("buy", market, 0.0, 0.5) == 10_000.0
    assert entry_price("buy", market, 5.3, 0.5) == 9_994.5
    assert entry_price("sell", market, 5.0, 0.5) == 10_006.5
    assert take_profit_price("buy", 9_994.5, 10.0, 0.5) == 10_004.5
    assert entry_price("buy", book(bids=()), 0.0, 0.5) is None
    assert entry_price("buy", market, 9_999.9, 0.5) is None


@given(value=st.floats(1e-6, 1e9), unit=st.sampled_from([1e-8, 0.01, 0.1, 0.25, 1.0, 1_000.0]))
def test_rounding_ends_on_the_grid_less_than_a_unit_away(value: float, unit: float) -> None:
    low, high = floor_to(value, unit), ceil_to(value, unit)

    assert low <= value <= high
    assert value - low < unit * (1 + 1e-9)
    assert high - value < unit * (1 + 1e-9)
    assert float(round(Decimal(repr(low)) / Decimal(repr(unit))) * Decimal(repr(unit))) == low
