"""Which changes of a clock are jumps."""

import pytest

from bookbus.schemas.clock_watch import ClockWatch


@pytest.mark.parametrize("jump", [-600.0, -1.0, 1.0, 600.0])
def test_a_clock_that_is_set_is_noticed_once(jump: float) -> None:
    watch = ClockWatch(1_000_000.0, 50.0)

    found = [watch.check(1_000_000.0 + passed + jump * (passed >= 2), 50.0 + passed) for passed in range(1, 5)]

    assert found == [0.0, pytest.approx(jump), 0.0, 0.0]
    assert watch.jumps == 1


@pytest.mark.parametrize("drift", [-0.0005, 0.0, 0.0005])
def test_a_clock_that_drifts_or_sleeps_with_the_machine_is_not_set(drift: float) -> None:
    watch = ClockWatch(1_000_000.0, 50.0)

    for passed in (*range(100), 700):
        assert watch.check(1_000_000.0 + passed * (1 + drift), 50.0 + passed) == 0.0

    assert watch.jumps == 0
