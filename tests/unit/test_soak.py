"""How a long run chooses its faults, and judges what it saw."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from bookbus.feeders.simulator.core.faults import KINDS, Fault
from bookbus.feeders.simulator.upbit.faults import UPBIT_FRAME_FAULTS
from tests.chaos.soak.episodes import Episode, episodes
from tests.chaos.soak.reader import Report, spans
from tests.chaos.soak.resources import Sample, memory_slope, usual
from tests.chaos.soak.verdict import Outcome, failures, table
from tests.chaos.soak.watch import Played, Suspect, unexplained

MARKETS = {"binance": ("BTCUSDT", "ETHUSDT", "SOLUSDT"), "upbit": ("KRW-BTC", "KRW-ETH", "KRW-XRP")}
HOUR = 3600.0


def first(count: int, seed: int = 1) -> list[tuple[float, Episode]]:
    """The first episodes of a run."""
    return list(islice(episodes(seed, MARKETS), count))


def samples(memory: Sequence[float], **counts: Any) -> list[Sample]:
    """One sample every ten seconds from the sixth minute on."""
    return [replace(Sample(300.0 + 10.0 * number, mb, 20, 10, 3, 8), **counts) for number, mb in enumerate(memory)]


def _report(**changes: Any) -> Report:
    return replace(Report(compared=1, ages_judged=1), **changes)


def passed_run(**changes: Any) -> Outcome:
    """A run that nothing is to be said against."""
    memory = [70.0 + (number * 7 % 5) / 10 for number in range(330)]
    good = Outcome(
        HOUR,
        samples={"binance feeder": samples(memory)},
        reports={"5 binance readers": Report(compared=1000, ages_judged=1000)},
        faults=Counter({"drop": 3}),
        recoveries=[0.5],
        exit_codes={"binance feeder": 0},
    )
    return replace(good, **changes)


def test_one_seed_gives_the_same_faults_each_time_and_another_seed_others() -> None:
    assert first(50) == first(50)
    assert first(50) != first(50, seed=2)


def test_every_fault_that_is_chosen_is_one_the_exchanges_know() -> None:
    chosen = {fault["kind"] for _, episode in first(2000) for fault in episode.faults}

    assert chosen <= {*KINDS, *UPBIT_FRAME_FAULTS}
    assert len(chosen) > 30
    for _, episode in first(2000):
        for fault in episode.faults:
            Fault(**fault)


def test_faults_of_symbols_touch_them_alone_and_faults_of_the_bus_touch_no_book() -> None:
    for _, episode in first(500):
        symbols = {symbol for fault in episode.faults for symbol in fault.get("symbols", ())}

        assert set(episode.touches or ()) == symbols
        assert (episode.touches is None) == (episode.bus is None and not symbols)
        assert episode.bus is None or not episode.faults


def test_a_suspect_book_is_explained_only_by_a_fault_of_its_own_at_that_time() -> None:
    played = [
        Played(Episode("drop", "binance", touches=("BTCUSDT",)), 100.0, 110.0),
        Played(Episode("reset", "upbit", touches=None), 200.0, 210.0),
        Played(Episode("crash", bus="crash"), 300.0, 310.0),
        Played(Episode("reset", "binance", touches=None), 400.0),
    ]
    explained = [Suspect(105.0, "binance", "BTCUSDT"), Suspect(205.0, "upbit", "KRW-XRP"), Suspect(999, "binance", "X")]
    false = [
        Suspect(105.0, "binance", "ETHUSDT"),
        Suspect(111.0, "binance", "BTCUSDT"),
        Suspect(99.0, "binance", "BTCUSDT"),
        Suspect(205.0, "binance", "BTCUSDT"),
        Suspect(305.0, "binance", "BTCUSDT"),
    ]

    assert unexplained([*explained, *false], played) == false


def test_memory_that_grows_has_a_slope_and_memory_that_wavers_has_none() -> None:
    grows = memory_slope(samples([50 + number * 10 / HOUR * 6 for number in range(120)]), 300.0)
    wavers = memory_slope(samples([50 + number % 2 for number in range(120)]), 300.0)

    assert grows is not None
    assert wavers is not None
    assert grows.per_hour == pytest.approx(6.0)
    assert grows.error < 0.001
    assert abs(wavers.per_hour) < 0.1


def test_a_run_too_short_to_tell_has_no_slope() -> None:
    assert memory_slope(samples([50.0] * 20), 300.0) is None
    assert memory_slope(samples([50.0] * 60), 900.0) is None


def test_what_leaks_raises_the_usual_count_and_what_comes_and_goes_does_not() -> None:
    assert usual([10, 10, 10, 11, 12, 13, 13, 14, 14, 14, 14, 14]) == (10, 14)
    assert usual([4, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 30]) == (10, 10)
    assert usual([1] * 7) is None


def test_ids_from_before_and_after_a_restart_are_asked_for_apart() -> None:
    assert spans([200_000_005, 100_000_001, 200_000_001, 100_000_007]) == [
        (100_000_001, 100_000_007),
        (200_000_001, 200_000_005),
    ]


def test_a_run_without_complaint_passes_and_is_told() -> None:
    outcome = passed_run()

    assert failures(outcome) == []
    assert "5 binance readers: 1,000 books compared, 0 wrong" in "\n".join(table(outcome))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"reports": {"readers": Report(ages_judged=1)}}, "readers compared nothing"),
        (
            {"reports": {"readers": _report(wrong=["binance BTC-USDT at 7"])}},
            "wrong book: binance BTC-USDT at 7",
        ),
        ({"reports": {"readers": _report(stale=["BTCUSDT at 7"])}}, "stale as live: BTCUSDT at 7"),
        ({"reports": {"readers": Report(1)}}, "readers judged no age"),
        (
            {"reports": {"readers": _report(unknown=2)}},
            "readers: 2 live books unknown to the exchange",
        ),
        ({"reports": {"readers": _report(older=1)}}, "readers: 1 older books after newer ones"),
        ({"reports": {"readers": _report(not_live=["stale"])}}, "readers: not live at the end: stale"),
        ({"false_suspects": ["binance X"]}, "suspect without a fault: binance X"),
        ({"not_recovered": ["reset"]}, "not live again in time: reset"),
        ({"late_readers": ["stale"]}, "not live without a fault: stale"),
        ({"exit_codes": {"feeder": 1}}, "feeder ended with code 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_whatever_is_wrong_fails_the_run(changes: dict[str, Any], complaint: str) -> None:
    assert failures(passed_run(**changes)) == [complaint]


def test_memory_that_rose_once_and_stayed_is_no_growth() -> None:
    rose = [70.0 + (number > 60) * 5.0 for number in range(330)]

    slope = memory_slope(samples(rose), 300.0)

    assert slope is not None
    assert slope.per_hour > 1.0
    assert failures(passed_run(samples={"feeder": samples(rose)})) == []


def test_growth_fails_the_run() -> None:
    memory = [70 + number / 60 for number in range(330)]
    grown = [*samples(memory)[:200], *samples(memory, descriptors=25, threads=4, tasks=9)[200:]]

    complaints = failures(passed_run(samples={"feeder": grown}))

    assert complaints[0].startswith("feeder: memory grows by 6.0")
    assert complaints[1:] == [
        "feeder: files grow: 20 at first, 25 at last",
        "feeder: threads grow: 3 at first, 4 at last",
        "feeder: tasks grow: 8 at first, 9 at last",
    ]
