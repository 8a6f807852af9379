"""Targets of decisions: repeatable, within their bounds, drawn as asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.paper.calibration.table import ZoneSpec
from bookbus.consumers.paper.settings import EntryChooser, EntrySettings, Target

ZONES = (ZoneSpec("Z1", 5, 7, 7, 12), ZoneSpec("Z2", 7, 12, 12, 20))


def targets(settings: EntrySettings, count: int, symbol: str = "BTC-USDT") -> list[Target]:
    chooser = EntryChooser(settings, symbol, ZONES)
    return [chooser.next() for _ in range(count)]


def test_fixed_is_the_minimum_for_ever() -> None:
    assert targets(EntrySettings(minimum=8.0), 2) == [Target(8.0, 12.0)] * 2


def test_cycle_counts_up_to_the_maximum_and_begins_again() -> None:
    found = targets(EntrySettings("cycle", minimum=5.0, maximum=7.0), 4)

    assert [target.entry_bps for target in found] == [5.0, 6.0, 7.0, 5.0]


@given(st.integers(0, 2**32), st.floats(0, 50), st.floats(0, 50))
def test_random_stays_within_its_bounds(seed: int, low: float, width: float) -> None:
    settings = EntrySettings("random", minimum=low, maximum=low + width, seed=seed)

    assert all(low <= target.entry_bps <= low + width for target in targets(settings, 20))


def test_the_same_seed_gives_the_same_targets_and_each_symbol_its_own() -> None:
    settings = EntrySettings("random", minimum=1.0, maximum=20.0, seed=7)

    assert targets(settings, 10) == targets(settings, 10)
    assert targets(settings, 10) != targets(settings, 10, "ETH-USDT")


@given(st.integers(0, 2**32))
def test_zone_random_draws_entry_and_profit_from_one_zone(seed: int) -> None:
    for entry, profit in targets(EntrySettings("zone_random", seed=seed), 20):
        assert any(zone.entry_min <= entry < zone.entry_max and zone.tp_min <= profit < zone.tp_max for zone in ZONES)


def test_a_zone_without_weight_is_never_drawn() -> None:
    found = targets(EntrySettings("zone_random", weights=(0.0, 1.0)), 50)

    assert min(target.entry_bps for target in found) >= 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (EntrySettings("random", minimum=5.0, maximum=4.0), "--entry-bps-max"),
        (EntrySettings(minimum=-1.0), "--entry-bps-min"),
        (EntrySettings(tp_bps=0.0), "--tp-bps"),
        (EntrySettings("zone_random", weights=(1.0,)), "give 2 numbers"),
        (EntrySettings("zone_random", weights=(0.0, 0.0)), "give 2 numbers"),
    ],
)
def test_settings_that_choose_nothing_are_refused(settings: EntrySettings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EntryChooser(settings, "BTC-USDT", ZONES)


def test_zone_random_without_a_table_says_what_to_give() -> None:
    with pytest.raises(ValueError, match="--calibration-path"):
        EntryChooser(EntrySettings("zone_random"), "BTC-USDT")
