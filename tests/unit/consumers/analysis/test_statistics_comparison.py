"""Two-sample tests, against numbers worked out by hand and what holds for all samples."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookbus.consumers.analysis.statistics import PERMUTATIONS, compare_samples, kolmogorov_smirnov, mann_whitney

SAMPLES = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=8)
QUICK = settings(max_examples=30, deadline=None)


def test_distance_of_a_hand_computed_example() -> None:
    # Functions at 1 2 3 4: 1/3 2/3 1 1 and 0 1/3 2/3 1.
    distance, _ = kolmogorov_smirnov([1, 2, 3], [2, 3, 4])

    assert distance == pytest.approx(1 / 3)


def test_distance_looks_only_where_a_tie_ends() -> None:
    assert kolmogorov_smirnov([1, 1, 1], [1, 1, 1]) == (0.0, 1.0)


def test_p_by_permutation_is_near_the_exact_one() -> None:
    # Of the 20 ways to split six values in two threes, only two put them wholly apart.
    _, p = kolmogorov_smirnov([1, 2, 3], [4, 5, 6])

    assert p == pytest.approx(0.1, abs=0.03)


def test_p_is_never_zero() -> None:
    assert kolmogorov_smirnov(range(50), range(100, 150)) == (1.0, 1 / (PERMUTATIONS + 1))


def test_permutations_are_the_same_each_time() -> None:
    assert kolmogorov_smirnov([1, 2, 5, 9], [3, 4, 6, 7]) == kolmogorov_smirnov([1, 2, 5, 9], [3, 4, 6, 7])


def test_mann_whitney_of_a_hand_computed_example() -> None:
    # Of nine pairs the second is greater in six, equal in two: U is 7, its mean 4.5.
    # Ties of two at 2 and at 3 take (6 + 6) / 30 = 0.4 from 7: the variance is 9 / 12 * 6.6 = 4.95.
    delta, p = mann_whitney([1, 2, 3], [2, 3, 4])

    assert delta == pytest.approx((6 - 1) / 9)
    assert p == pytest.approx(math.erfc((7 - 4.5 - 0.5) / math.sqrt(2 * 4.95)))


def test_values_that_are_all_one_do_not_differ() -> None:
    difference = compare_samples([1.0] * 5, [1.0] * 7)

    assert difference is not None
    assert (difference.ks, difference.ks_p, difference.delta, difference.mann_whitney_p) == (0.0, 1.0, 0.0, 1.0)
    assert difference.size == "negligible"


def test_samples_wholly_apart_differ_as_much_as_can_be() -> None:
    difference = compare_samples([float(value) for value in range(20)], [float(value) for value in range(100, 120)])

    assert difference is not None
    assert (difference.ks, difference.delta, difference.size) == (1.0, 1.0, "large")
    assert max(difference.ks_p, difference.mann_whitney_p) < 0.001


@pytest.mark.parametrize(("one", "other"), [([], [1.0, 2.0]), ([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0])])
def test_too_small_samples_tell_nothing(one: list[float], other: list[float]) -> None:
    assert compare_samples(one, other) is None


@QUICK
@given(SAMPLES, SAMPLES)
def test_difference_is_the_same_from_both_sides(one: list[float], other: list[float]) -> None:
    forth, back = mann_whitney(one, other), mann_whitney(other, one)

    assert forth[0] == pytest.approx(-back[0])
    assert forth[1] == pytest.approx(back[1])
    assert kolmogorov_smirnov(one, other)[0] == kolmogorov_smirnov(other, one)[0]


@QUICK
@given(SAMPLES, SAMPLES)
def test_delta_is_the_share_of_pairs(one: list[float], other: list[float]) -> None:
    pairs = [(before < after) - (before > after) for before in one for after in other]

    assert mann_whitney(one, other)[0] == pytest.approx(sum(pairs) / len(pairs))


@QUICK
@given(SAMPLES, SAMPLES)
def test_distance_is_the_greatest_over_all_values(one: list[float], other: list[float]) -> None:
    def share(sample: list[float], limit: float) -> float:
        return sum(value <= limit for value in sample) / len(sample)

    greatest = max(abs(share(one, value) - share(other, value)) for value in [*one, *other])

    assert kolmogorov_smirnov(one, other)[0] == pytest.approx(greatest)


def test_equal_distributions_are_called_different_about_as_often_as_p_says() -> None:
    draw = random.Random(1)
    found = [
        mann_whitney([draw.gauss(0, 1) for _ in range(30)], [draw.gauss(0, 1) for _ in range(40)])[1]
        for _ in range(400)
    ]

    assert 0.02 <= sum(p < 0.05 for p in found) / len(found) <= 0.08
