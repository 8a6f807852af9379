"""Runs each scenario: its short form, or all faults for BOOKBUS_CHAOS_SECONDS each if that is set."""

import os

import pytest

from bookbus.feeders.simulator.core.faults import KINDS, SILENT_FAULTS
from bookbus.feeders.simulator.upbit.faults import UPBIT_FRAME_FAULTS
from tests.chaos.play import play
from tests.chaos.report import Outcome, Result, table
from tests.chaos.scenario import FOLDER, Scenario, ScenarioError, find, load, names, short_form

_SECONDS = os.environ.get("BOOKBUS_CHAOS_SECONDS")

_PATIENCE = 10.0
"""`python -m tests.chaos.run` checks the time limits; here they must hold on a busy machine."""


def _scenarios() -> dict[str, Scenario]:
    loaded = {name: load(FOLDER / f"{name}.toml") for name in names()}
    if _SECONDS is not None:
        return loaded
    short = {name: short_form(scenario) for name, scenario in loaded.items()}
    return {name: scenario for name, scenario in short.items() if scenario.fault}


@pytest.mark.parametrize(("name", "scenario"), _scenarios().items(), ids=_scenarios())
async def test_readers_see_of_each_fault_only_what_its_scenario_allows(name: str, scenario: Scenario) -> None:
    result = await play(name, scenario, float(_SECONDS or 0), _PATIENCE)

    print(table([result]))  # noqa: T201 - the figures of a long run are read by a person
    assert result.all_failures == [], result.log
    assert result.count("compared") > 0


def test_the_scenarios_play_every_fault_that_a_feeder_can_notice() -> None:
    actions = [action for scenario in map(load, find([])) for fault in scenario.fault for action in fault.begin]

    kinds = {*KINDS, *UPBIT_FRAME_FAULTS} - set(SILENT_FAULTS)
    assert {action.exchange["kind"] for action in actions if action.exchange} == kinds


def test_an_unknown_scenario_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match=r"no scenario 'rain'; there are: .*exchange-cut"):
        find(["rain"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("about = 1", "Expected `str`"),
        ('about = "x"\n[[fault]]\nname = "y"\nbegin = [{ redis = "kill", feeder = "start" }]', "one thing"),
        ('about = "x"\n[[fault]]\nname = "y"\nbegin = [{ way = { to = "moon", cut = true } }]', "no way moon"),
        ('about = "x"\n[[fault]]\nname = "y"\nbegin = []\nnotices = 1', "notices"),
    ],
    ids=["type", "two things", "way", "field"],
)
def test_an_invalid_scenario_is_an_error_that_names_its_file(tmp_path, text: str, complaint: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "own.toml"
    path.write_text(text)

    with pytest.raises(ScenarioError, match=rf"own\.toml: .*{complaint}"):
        load(path)


def test_the_table_shows_the_worst_repetition_of_a_fault() -> None:
    def outcome(noticed: float | None, recovered: float, *failures: str) -> Outcome:
        return Outcome(
            "cut", noticed, recovered, frozenset({"suspect"}), {"compared": 7, "missed": 1}, recovered, list(failures)
        )

    result = Result("redis", [outcome(0.1, 2.0), outcome(None, 1.0, "too late"), outcome(0.3, 0.5)])

    assert table([result]).splitlines()[2].split(" | ") == [
        "| redis   ",
        "cut  ",
        "3    ",
        "0.30     ",
        "2.00       ",
        "suspect    ",
        "21      ",
        "0    ",
        "2.00    ",
        "3     ",
        "0     ",
        "FAILED 1 |",
    ]
    assert result.all_failures == ["redis: cut: too late"]
