"""Times of a recording that do not rise."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bookbus.schemas.recorded_time import JUMP, RisingTimes

HOUR = 3600.0


def _times(*recorded: float) -> tuple[list[float], int]:
    rising = RisingTimes([(time, None) for time in recorded])
    return [time for time, _ in rising], rising.corrected


@pytest.mark.parametrize(
    ("recorded", "expected", "corrected"),
    [
        ((), [], 0),
        ((1.0, 2.0, 2.0, 9.0), [1.0, 2.0, 2.0, 9.0], 0),
        ((1.0, 2.0, 2.0 + HOUR, 3.0, 4.0), [1.0, 2.0, 2.0, 3.0, 4.0], 1),
        ((1.0 + HOUR, 2.0, 3.0), [2.0, 2.0, 3.0], 1),
        ((HOUR, HOUR + 1, 2.0, HOUR + 3), [HOUR, HOUR + 1, HOUR + 1, HOUR + 3], 1),
        ((HOUR, HOUR + 1, 1.0, 2.0, 3.0), [HOUR, HOUR + 1, HOUR + 1, HOUR + 2, HOUR + 3], 1),
        ((1.0, 3.0, 2.5, 4.0), [1.0, 3.0, 3.0, 4.0], 1),
        ((1.0, 2.0, HOUR, HOUR + 1), [1.0, 2.0, HOUR, HOUR + 1], 0),
        ((1.0, HOUR, HOUR + 1, 2.0, 3.0), [1.0, HOUR, HOUR + 1, HOUR + 1, HOUR + 2], 1),
        ((1.0, 2.0, HOUR), [1.0, 2.0, HOUR], 0),
    ],
    ids=[
        "nothing",
        "in order",
        "a frame an hour ahead",
        "the first frame an hour ahead",
        "a frame an hour back",
        "a clock set back",
        "a little late",
        "a hole",
        "a clock that was ahead for a while",
        "the last frame an hour ahead",
    ],
)
def test_times_rise(recorded: tuple[float, ...], expected: list[float], corrected: int) -> None:
    assert _times(*recorded) == (expected, corrected)


def test_the_largest_correction_is_told() -> None:
    rising = RisingTimes([(time, None) for time in (1.0, HOUR, 2.0, 1.5)])

    list(rising)

    assert (rising.corrected, rising.largest) == (2, HOUR - 1)


@given(st.lists(st.floats(0, 1e9)))
@example([268435468.0, 268435457.7853016, 1.7295596897602081])
def test_time_never_falls_and_nothing_is_left_out(recorded: list[float]) -> None:
    rising = list(RisingTimes(list(zip(recorded, range(len(recorded)), strict=True))))

    times = [time for time, _ in rising]
    assert times == sorted(times)
    assert [item for _, item in rising] == list(range(len(recorded)))


@given(st.lists(st.floats(0, JUMP), max_size=30))
def test_times_in_order_are_left_alone(steps: list[float]) -> None:
    recorded = [1.7e9 + sum(steps[:end]) for end in range(len(steps))]

    assert _times(*recorded) == (recorded, 0)
