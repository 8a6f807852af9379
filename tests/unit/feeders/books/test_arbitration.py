"""Which line was first, and by how much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.feeders.books.arbitration import LineArbiter, LineResult


class World:
    """Two lines and a clock; ids of one symbol unless another is named."""

    def __init__(self) -> None:
        self.arbiter = LineArbiter(2)

    def brings(self, slot: int, *ids: int, at_ms: float = 0, native: str = "BTCUSDT") -> None:
        for update_id in ids:
            self.arbiter.record(native, update_id, slot, round(at_ms * 1000))

    @property
    def counts(self) -> list[tuple[int, int]]:
        """Of each line, how much it brought and how much of that first."""
        return [(result.updates, result.first) for result in self.arbiter.results]

    def leads(self, slot: int) -> tuple[float | None, float | None]:
        """Median and 99th percentile."""
        result = self.arbiter.results[slot]
        return result.lead_ms(0.5), result.lead_ms(0.99)


def test_the_first_line_to_bring_an_update_wins_it_by_the_time_until_the_other_does() -> None:
    world = World()

    world.brings(0, 1, at_ms=100)
    world.brings(1, 1, at_ms=108)
    world.brings(1, 2, at_ms=200)
    world.brings(0, 2, at_ms=203)

    assert world.counts == [(2, 1), (2, 1)]
    assert world.leads(0) == pytest.approx((8, 8), rel=0.13)
    assert world.leads(1) == pytest.approx((3, 3), rel=0.13)


def test_a_line_several_updates_behind_is_measured_all_the_same() -> None:
    world = World()

    world.brings(0, 1, at_ms=100)
    world.brings(0, 2, at_ms=200)
    world.brings(0, 3, at_ms=300)
    world.brings(1, 1, at_ms=350)
    world.brings(1, 3, at_ms=550)

    assert world.counts == [(3, 3), (2, 0)]
    assert world.leads(0) == pytest.approx((250, 250), rel=0.13)
    assert world.leads(1) == (None, None)


def test_symbols_race_on_their_own() -> None:
    world = World()

    world.brings(0, 7, native="BTCUSDT")
    world.brings(1, 5, native="ETHUSDT")

    assert world.counts == [(1, 1), (1, 1)]


def test_what_the_same_line_brings_twice_says_nothing_of_the_other() -> None:
    world = World()

    world.brings(0, 1, 1, at_ms=1)

    assert world.counts == [(2, 1), (0, 0)]
    assert world.leads(0) == (None, None)


def test_after_ids_that_began_again_the_race_goes_on() -> None:
    world = World()
    world.brings(0, 1_000_000)

    for update_id in range(1, 200):
        world.brings(0, update_id, at_ms=update_id)
        world.brings(1, update_id, at_ms=update_id + 0.5)

    assert world.arbiter.results[0].first > 100
    assert world.leads(0) == pytest.approx((0.5, 0.5), rel=0.13)


def test_a_line_that_never_follows_makes_nothing_grow() -> None:
    world = World()

    world.brings(0, *range(1000))
    world.brings(1, *range(1000), at_ms=10)

    assert world.counts == [(1000, 1000), (1000, 0)]
    assert sum(world.arbiter.results[0].leads) == 64


@given(st.lists(st.integers(0, 100_000_000), min_size=1), st.sampled_from([0.5, 0.99, 1.0]))
def test_quantiles_are_right_within_an_eighth(leads_us: list[int], share: float) -> None:
    result = LineResult()
    for lead in leads_us:
        result.add_lead(lead)

    wanted = sorted(leads_us)[max(0, -int(-share * len(leads_us) // 1) - 1)] / 1000

    assert result.lead_ms(share) == pytest.approx(wanted, rel=0.13)


def test_symbols_that_one_line_alone_brought_for_a_time_are_known() -> None:
    world = World()
    for native in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
        world.brings(0, 1, at_ms=100, native=native)
    world.brings(1, 1, at_ms=110, native="BTCUSDT")
    world.brings(1, 7, at_ms=120, native="XRPUSDT")
    world.brings(0, 2, at_ms=500, native="SOLUSDT")
    world.brings(1, 2, at_ms=510, native="SOLUSDT")

    assert world.arbiter.seen_only_by(0, 50_000, 400_000) == ["ETHUSDT"]
    assert world.arbiter.seen_only_by(0, 50_000, 99_000) == []
    assert world.arbiter.seen_only_by(0, 101_000, 400_000) == []
    assert world.arbiter.seen_only_by(1, 50_000, 400_000) == ["XRPUSDT"]


def test_results_of_several_connections_add_up() -> None:
    total, other = LineResult(), LineResult()
    other.updates, other.first = 3, 2
    other.add_lead(5)

    total.add(other)
    total.add(other)

    assert (total.updates, total.first, total.lead_ms(1.0)) == (6, 4, 0.005)
