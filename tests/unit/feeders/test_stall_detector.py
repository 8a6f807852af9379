"""Noticing that this process stood still."""

import pytest

from bookbus.feeders.stall_detector import LIMIT, StallDetector, boot_clock


class Watched:
    """A watch on a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[float] = []
        self.watch = StallDetector(self.told.append, lambda: self.now)

    def beat_after(self, seconds: float) -> None:
        self.now += seconds
        self.watch.beat()


def test_beats_in_time_tell_nothing() -> None:
    watched = Watched()

    for _ in range(100):
        watched.beat_after(LIMIT)

    assert watched.told == []


def test_a_gap_is_told_once_with_its_length() -> None:
    watched = Watched()

    watched.beat_after(LIMIT + 0.5)
    watched.beat_after(0.1)

    assert watched.told == [pytest.approx(LIMIT + 0.5)]


def test_each_gap_is_told() -> None:
    watched = Watched()

    watched.beat_after(6.0)
    watched.beat_after(1.0)
    watched.beat_after(60.0)

    assert watched.told == [6.0, 60.0]


def test_the_gap_counts_from_the_making_of_the_watch() -> None:
    watched = Watched()

    watched.beat_after(LIMIT)

    assert watched.told == []


def test_what_the_holder_does_about_a_gap_may_beat_itself() -> None:
    told: list[float] = []
    now = [0.0]

    def discard(gap: float) -> None:
        told.append(gap)
        watch.beat()

    watch = StallDetector(discard, lambda: now[0])
    now[0] = 7.0
    watch.beat()

    assert told == [7.0]


def test_the_clock_does_not_run_backwards() -> None:
    assert boot_clock() <= boot_clock()
