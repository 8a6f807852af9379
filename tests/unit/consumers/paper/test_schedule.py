"""Schedules count in whole microseconds."""

import pytest

from bookbus.consumers.paper.schedule import Schedule, later

BEGAN = 1_700_000_000.1


@pytest.mark.parametrize("interval", [0.001, 0.03, 0.1, 0.7, 1 / 3, 1.1, 2.3, 3.3, 10.0, 86_400.0])
@pytest.mark.parametrize("began", [0.0, BEGAN, 1_723_113_600.123_456])
def test_every_moment_is_due_once_and_the_next_one_is_one_interval_later(began: float, interval: float) -> None:
    schedule = Schedule(began, interval)

    for number in range(5_000):
        due = schedule.next_due
        assert round(due * 1e6) == round(began * 1e6) + number * round(interval * 1e6)
        assert schedule.take_due(due) == (due, 0)
        assert schedule.next_due > due
        assert schedule.take_due(due) is None


def test_a_late_look_returns_the_newest_moment_and_counts_the_missed_ones() -> None:
    schedule = Schedule(BEGAN, 0.7)

    assert schedule.take_due(BEGAN - 0.001) is None
    assert schedule.take_due(BEGAN + 2.2) == (1_700_000_002.2, 3)
    assert schedule.next_due == 1_700_000_002.9


@pytest.mark.parametrize("interval", [0.03, 0.7, 1.1, 2.3, 3.3])
def test_a_wait_of_one_interval_ends_at_the_next_moment(interval: float) -> None:
    schedule = Schedule(BEGAN, interval)

    for _ in range(1_000):
        due, _ = schedule.take_due(schedule.next_due) or (0.0, 0)
        assert later(due, interval) == schedule.next_due


def test_an_interval_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="too short"):
        Schedule(BEGAN, 4e-7)
