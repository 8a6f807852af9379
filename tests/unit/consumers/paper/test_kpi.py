"""Figures of a whole run."""

from bookbus.consumers.paper.kpi import ages_of


def test_percentiles_are_values_that_occurred() -> None:
    found = ages_of([number / 1000 for number in range(1, 201)])

    assert (found.count, found.p50, found.p99, found.max) == (200, 100.0, 198.0, 200.0)
    assert ages_of([]).p50 is None
    assert ages_of([0.25]).p99 == 250.0
