"""Usual gaps: regular streams are never unusual, a stalled one is, a silence costs few questions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.feeders.update_gaps import FACTOR, FLOOR, UpdateGaps

LOOK = 0.5
"""Seconds between two looks, as the watch has them."""


class Stream:
    """A stream seen by looks; `periods` are the times between its updates."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.gaps = UpdateGaps(self.now)
        self.unusual: list[float] = []
        """Times of looks at which the silence was unusual."""

    def play(self, *periods: float) -> "Stream":
        for period in periods:
            end, moved = self.now + period, False
            while self.now < end:
                self.now = min(self.now + LOOK, end)
                moved = self.now >= end
                if not moved and self.gaps.is_unusual(self.now):
                    self.unusual.append(self.now)
            self.gaps.moved(self.now)
        return self

    def questions(self, *periods: float) -> int:
        """How often the exchange is asked while the stream moves with these periods."""
        count = 0
        for period in periods:
            end = self.now + period
            while self.now < end:
                self.now += LOOK
                if self.gaps.is_unusual(self.now) and self.now >= self.gaps.next_question:
                    self.gaps.asked(self.now)
                    count += 1
            self.gaps.moved(self.now)
        return count

    def silence_until_unusual(self) -> float:
        since = self.now
        while not self.gaps.is_unusual(self.now):
            self.now += LOOK
        return self.now - since


@given(period=st.floats(0.02, 2.9), updates=st.integers(10, 300))
def test_a_regular_stream_of_any_usual_rate_is_never_unusual(period: float, updates: int) -> None:
    assert Stream().play(*[period] * updates).unusual == []


@given(period=st.floats(3.0, 3_600.0))
def test_a_slow_regular_stream_is_not_unusual_once_a_few_gaps_are_known(period: float) -> None:
    stream = Stream().play(*[period] * 12)
    stream.unusual.clear()

    assert stream.play(*[period] * 20).unusual == []


def test_a_new_stream_that_never_moves_is_unusual_early() -> None:
    assert Stream().silence_until_unusual() == pytest.approx(3.5)


@pytest.mark.parametrize(("period", "most"), [(4.0, 2), (10.0, 5), (60.0, 20), (600.0, 150)])
def test_a_new_slow_stream_is_asked_about_a_few_times_until_its_gaps_are_known(period: float, most: int) -> None:
    stream = Stream()

    assert 0 < stream.questions(*[period] * 20) <= most


@given(periods=st.lists(st.floats(0.1, 60.0), min_size=10, max_size=200))
def test_a_stalled_stream_is_unusual_within_three_times_its_longest_gap(periods: list[float]) -> None:
    stream = Stream().play(*periods)

    silence = stream.silence_until_unusual()

    assert silence <= max(FLOOR, FACTOR * max(periods)) + 2 * LOOK + 1e-6


def test_a_busy_stream_that_stalls_is_unusual_after_the_floor() -> None:
    assert Stream().play(*[0.1] * 100).silence_until_unusual() == pytest.approx(2.5)


def test_a_stream_is_not_judged_by_gaps_of_two_windows_ago() -> None:
    stream = Stream().play(20.0, *[1.0] * 300)

    assert stream.gaps.limit == pytest.approx(3.0)


def test_one_long_gap_raises_the_limit_three_times_at_most() -> None:
    stream = Stream().play(*[1.0] * 200, 3_600.0)

    assert stream.gaps.limit == pytest.approx(9.0)


def test_a_time_in_which_the_stream_was_not_open_is_no_gap() -> None:
    stream = Stream().play(*[1.0] * 200)
    stream.gaps.restart(stream.now + 500)

    stream.gaps.moved(stream.now + 501)

    assert stream.gaps.limit == pytest.approx(3.0)


def test_other_data_can_shorten_the_limit_and_never_lengthen_it() -> None:
    gaps = Stream().play(*[4.0] * 100).gaps
    now = gaps.since

    assert [gaps.is_unusual(now + 2.0, limit) for limit in (None, 1.5, 60.0)] == [False, True, False]
    assert gaps.is_unusual(now + 12.5, 60.0)


@pytest.mark.parametrize(("period", "most"), [(0.1, 250), (10.0, 130), (100.0, 20)])
def test_an_hour_of_silence_costs_few_questions(period: float, most: int) -> None:
    stream = Stream().play(*[period] * 700)

    assert 0 < stream.questions(3_600.0) <= most


@pytest.mark.parametrize("known", [0, 3])
def test_an_hour_of_silence_of_a_new_stream_costs_few_questions(known: int) -> None:
    assert 0 < Stream().play(*[0.5] * known).questions(3_600.0) <= 250


def test_only_a_slow_stream_may_wait_for_an_answer_while_it_is_confirmed() -> None:
    assert Stream().play(*[0.5] * 50).gaps.patience == 0.0
    assert Stream().play(*[60.0] * 50).gaps.patience == pytest.approx(45.0)
