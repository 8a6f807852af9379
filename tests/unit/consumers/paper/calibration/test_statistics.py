"""Shares, intervals and scores against figures computed by hand."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.paper.calibration.statistics import Outcome, brier, design_effect, interval, log_loss, share


def outcomes(*happened: int, a_slot: int = 1) -> list[Outcome]:
    return [Outcome(number // a_slot, bool(one)) for number, one in enumerate(happened)]


def test_of_nothing_there_is_no_share_and_no_interval() -> None:
    assert share([]) is None
    assert interval([]) is None


def test_an_interval_of_independent_outcomes_is_the_one_of_wilson() -> None:
    # 10 of 20, alternating: the textbook interval is 0.2993 to 0.7007.
    found = outcomes(*(number % 2 for number in range(20)))

    assert design_effect(found) == 1.0
    assert interval(found) == pytest.approx((0.29930, 0.70070), abs=1e-5)


def test_what_never_happened_may_still_happen() -> None:
    # None of 10: from 0 to z^2 / (10 + z^2).
    assert interval(outcomes(*[0] * 10)) == pytest.approx((0.0, 0.27753), abs=1e-5)


def test_outcomes_of_one_slot_that_are_always_alike_count_once() -> None:
    draw = random.Random(7)
    apart = [int(draw.random() < 0.5) for _ in range(240)]
    doubled = [one for one in apart for _ in range(2)]

    assert design_effect(outcomes(*doubled, a_slot=2)) == pytest.approx(2 * design_effect(outcomes(*apart)), rel=0.5)
    assert design_effect(outcomes(*[1] * 30, a_slot=3)) == 3.0


def test_stretches_that_are_alike_widen_the_interval() -> None:
    steady = outcomes(*(number % 2 for number in range(120)))
    clustered = outcomes(*(number // 20 % 2 for number in range(120)))

    (low, high), (lower, higher) = interval(steady) or (0, 0), interval(clustered) or (0, 0)

    # 12 stretches of 10, all or nothing: worth 11 of 12 of them.
    assert design_effect(clustered) == pytest.approx(120 / 11)
    assert lower < low < 0.5 < high < higher


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), min_size=1, max_size=80))
def test_an_interval_holds_its_share_and_stays_within_none_and_all(drawn: list[tuple[int, bool]]) -> None:
    found = [Outcome(*one) for one in drawn]
    low, high = interval(found) or (1.0, 0.0)
    ratio = share(found)

    assert ratio is not None
    assert 0 <= low <= ratio <= high <= 1
    assert low < high


def test_scores_are_the_mean_squared_error_and_the_mean_surprise() -> None:
    forecasts = [(0.8, True), (0.5, False)]

    assert brier(forecasts) == pytest.approx((0.04 + 0.25) / 2)
    assert log_loss(forecasts, 0.01) == pytest.approx(-(math.log(0.8) + math.log(0.5)) / 2)
    assert brier([]) is None
    assert log_loss([], 0.01) is None


def test_a_certain_forecast_that_fails_is_not_infinitely_wrong() -> None:
    assert log_loss([(1.0, False)], 0.01) == pytest.approx(-math.log(0.01))


def test_expectations_are_scored_by_their_squared_error() -> None:
    assert brier([(1.0, True), (0.5, False)]) == 0.125
    assert brier([]) is None
