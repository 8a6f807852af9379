"""Figures of fill events, against numbers worked out by hand and what holds for all."""

import math
import statistics
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bookbus.consumers.analysis.run_files import read_run
from bookbus.consumers.analysis.statistics import (
    Summary,
    VenueSymbol,
    by_zone,
    measured,
    observed_mid_prices,
    pnl_curve,
    relative_spread,
    summarize,
    volumes_by_market,
)
from bookbus.consumers.paper.calibration.statistics import percentile
from tests.support.paper_runs import BEGAN, decision, fill_event, sale, unfilled, write_run

VALUES = st.lists(st.floats(0.001, 1e9), min_size=1, max_size=30)


def test_summary_of_a_hand_computed_example() -> None:
    # Squares of the distances from 5: 9 1 1 1 0 0 4 16, in all 32, over 7.
    assert summarize([2, 4, 4, 4, 5, 5, 7, 9]) == Summary(8, 2, 9, 5, 4.5, math.sqrt(32 / 7))


def test_summary_says_only_what_the_values_tell() -> None:
    assert summarize([]) == Summary(0, None, None, None, None, None)
    assert summarize([3.0]) == Summary(1, 3.0, 3.0, 3.0, 3.0, None)


@given(VALUES)
def test_summary_is_in_order_and_does_not_know_the_order_of_the_values(values: list[float]) -> None:
    found = summarize(values)

    assert found.minimum is not None
    assert found.maximum is not None
    assert found.mean is not None
    assert found.median is not None
    assert found.minimum <= min(found.mean, found.median) <= max(found.mean, found.median) <= found.maximum
    assert found == summarize(values[::-1])


def test_unknown_values_are_left_out_and_the_other_side_too() -> None:
    events = [fill_event(1, slippage_bps=0.5), unfilled(2), sale(3, 1, slippage_bps=2.0)]

    assert measured(events, "slippage_bps", "buy") == [0.5]
    assert measured(events, "fill_ratio", "buy") == [1.0, 0.0]


def test_spread_of_one_market_is_its_std_over_its_mean() -> None:
    assert relative_spread([[1.0, 2.0, 3.0]]) == pytest.approx(0.5)


def test_markets_that_stand_still_have_no_spread_however_far_apart_they_are() -> None:
    events = [
        *[fill_event(number, available_volume=0.002) for number in range(5)],
        *[fill_event(number, available_volume=50.0, symbol="ETH-USDT") for number in range(5)],
    ]
    markets = volumes_by_market(events, "buy")

    assert markets == {VenueSymbol("binance", "BTC-USDT"): [0.002] * 5, VenueSymbol("binance", "ETH-USDT"): [50.0] * 5}
    assert relative_spread(markets.values()) == 0


@pytest.mark.parametrize("groups", [[], [[1.0]], [[1.0], [2.0]], [[0.0, 0.0]]])
def test_spread_of_too_little_is_not_known(groups: list[list[float]]) -> None:
    assert relative_spread(groups) is None


@given(VALUES, st.floats(0.01, 100))
def test_spread_does_not_depend_on_the_unit(values: list[float], factor: float) -> None:
    assume(len(values) > 1)

    spread = relative_spread([values])

    assert spread == pytest.approx(statistics.stdev(values) / statistics.fmean(values), abs=1e-9)
    assert spread == pytest.approx(relative_spread([[value * factor for value in values]]), abs=1e-9)


def test_percentile_is_a_value_by_the_nearest_rank() -> None:
    assert [percentile([30.0, 10.0, 20.0, 40.0], percent) for percent in (1, 50, 51, 99)] == [10.0, 20.0, 30.0, 40.0]
    assert percentile([], 50) is None


def test_zone_counts_entries_filled_and_positions_left_by_take_profit(tmp_path: Path) -> None:
    events = [
        # Filled, take-profit did not come, left by time.
        fill_event(1, zone_id="Z1"),
        unfilled(2, zone_id="Z1", side="sell", trade_id="T1", exit_reason="take_profit"),
        sale(3, 1, "time", zone_id="Z1"),
        # Filled, left by take-profit.
        fill_event(4, zone_id="Z1"),
        sale(5, 4, "take_profit", zone_id="Z1"),
        # Not filled.
        unfilled(6, zone_id="Z1"),
        # Filled, and the run ended: nothing is known of its take-profit.
        fill_event(7, zone_id="Z1"),
        sale(8, 7, "end", zone_id="Z1"),
    ]
    decisions = [decision(trade, 0.5, 0.25) for trade in (1, 4, 6, 7)]

    buy, sell = by_zone(read_run(write_run(tmp_path, events, decisions=decisions)))

    assert (buy.zone_id, buy.side, buy.count, buy.ratio, buy.expected) == ("Z1", "buy", 4, 0.75, 0.5)
    assert (sell.zone_id, sell.side, sell.count, sell.ratio, sell.expected) == ("Z1", "sell", 2, 0.5, 0.25)
    assert (buy.mean_fill_ratio, sell.mean_fill_ratio) == (0.75, 0.75)
    assert buy.interval is not None
    assert buy.interval[0] < 0.75 < buy.interval[1]


def test_a_zone_counts_as_its_table_does_nothing_that_was_filled_or_left_in_part(tmp_path: Path) -> None:
    part: dict[str, Any] = {"filled_quantity": 0.5, "fill_ratio": 0.5, "fill_reason": "partial"}
    events = [
        # Entered in part, left by take-profit.
        fill_event(1, **part),
        sale(2, 1, "take_profit"),
        # Entered whole, half of it left by take-profit and the rest by time.
        fill_event(3),
        sale(4, 3, "take_profit", **part),
        sale(5, 3, "time"),
        # Entered whole and left whole, the second half from another book.
        fill_event(6),
        sale(7, 6, "take_profit", **part),
        sale(8, 6, "take_profit"),
    ]

    buy, sell = by_zone(read_run(write_run(tmp_path, events)))

    assert (buy.count, buy.ratio) == (3, 2 / 3)
    assert (sell.count, sell.ratio) == (2, 0.5)


def test_model_is_not_known_unless_known_for_every_decision(tmp_path: Path) -> None:
    events = [fill_event(1, zone_id="Z1"), fill_event(2, zone_id="Z1")]

    buy, sell = by_zone(read_run(write_run(tmp_path, events, decisions=[decision(1, 0.5, 0.25)])))

    assert buy.expected is None
    assert (sell.count, sell.ratio, sell.interval) == (0, None, None)


def test_profit_is_cash_plus_what_is_held_at_the_last_mid(tmp_path: Path) -> None:
    events = [
        fill_event(1, effective_price=100.0, mid_at_fill=99.5, fee=0.1),
        unfilled(2, side="sell", trade_id="T1", exit_reason="take_profit", arrival_mid=101.0, mid_at_fill=None),
        sale(3, 1, effective_price=102.0, fee=0.2),
    ]

    curve = pnl_curve(read_run(write_run(tmp_path, events)))

    assert [point.time - BEGAN for point in curve] == [1, 2, 3]
    assert [point.before_fees for point in curve] == pytest.approx([-0.5, 1.0, 2.0])
    assert [point.after_fees for point in curve] == pytest.approx([-0.6, 0.9, 1.7])


def test_a_mid_stands_where_it_was_seen_not_where_the_waiting_order_ended(tmp_path: Path) -> None:
    waits: dict[str, Any] = {"fill_model": "queue", "mid_at_fill": None}
    events = [
        unfilled(12, trade_id="T2", arrival_mid=90.0, **waits),
        fill_event(25, trade_id="T15", arrival_mid=95.0, **waits | {"mid_at_fill": 97.0}),
        sale(30, 15, arrival_mid=98.0, mid_at_fill=98.0),
    ]

    seen = observed_mid_prices(read_run(write_run(tmp_path, events, decisions=[decision(2, None, None)])))

    # Of the trade T15 it is not known when it was decided on.
    assert [(one.time - BEGAN, one.mid) for one in seen] == [(2, 90.0), (25, 97.0), (30, 98.0)]


def test_an_old_mid_of_a_waiting_order_marks_no_position(tmp_path: Path) -> None:
    events = [
        fill_event(1, effective_price=100.0, mid_at_fill=100.0, arrival_mid=100.0, fee=0.0),
        unfilled(20, trade_id="T19", fill_model="queue", arrival_mid=500.0, mid_at_fill=None),
    ]

    curve = pnl_curve(read_run(write_run(tmp_path, events)))

    assert [point.before_fees for point in curve] == [0.0, 0.0]
