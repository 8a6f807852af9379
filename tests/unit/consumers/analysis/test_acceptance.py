"""The verdict: each row holds at its limit, fails beyond it, and is unknown where the files do not tell."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bookbus.consumers.analysis.acceptance import Row, judge, passed
from bookbus.consumers.analysis.run_files import RunFiles, read_run
from bookbus.consumers.paper.kpi import GapFigures
from bookbus.consumers.paper.records import FillEvent
from tests.support.paper_runs import encoded, fill_event, good_events, kpi, sale, unfilled, write_run

DURATION, FILLS, BUY, SELL, RECONNECTS, FATAL, BOOKS, GAP, SKIPPED, WHOLE = range(10)


def run_of(directory: Path, events: Sequence[FillEvent] = (), **changes: Any) -> RunFiles:
    made = list(events or good_events())
    return read_run(write_run(directory, made, figures=kpi(made, **changes)))


def failing(rows: list[Row]) -> dict[int, str]:
    return {number: row.outcome for number, row in enumerate(rows) if row.outcome != "passed"}


def test_run_at_every_limit_passes(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"gaps": GapFigures(1, 10.0, 0), "skipped_decisions": {"stale": 2}}

    rows = judge(run_of(tmp_path, **changes))

    assert failing(rows) == {}
    assert passed(rows)


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        (DURATION, {"actual_duration_seconds": 299.9}),
        (RECONNECTS, {"reconnects": 2}),
        (FATAL, {"fatal_errors": 1, "error": "ValueError: bug"}),
        (FATAL, {"error": "ValueError: bug"}),
        (BOOKS, {"orders_by_book_status": {"live": 39, "stale": 1}}),
        (BOOKS, {"orders_by_book_status": {"live": 40, "suspect": 1}}),
        (GAP, {"gaps": GapFigures(1, 10.1, 0)}),
        (SKIPPED, {"skipped_decisions": {"stale": 3}}),
        (SKIPPED, {"decisions": 30, "skipped_decisions": {"stale": 3, "open_trade": 10}}),
        (WHOLE, {"fill_events_count": 41}),
        (WHOLE, {"fill_events_sha256": "0" * 64}),
    ],
)
def test_one_figure_beyond_its_limit_fails_its_row_alone(tmp_path: Path, row: int, changes: dict[str, Any]) -> None:
    rows = judge(run_of(tmp_path, **changes))

    assert failing(rows) == {row: "failed"}
    assert not passed(rows)


@pytest.mark.parametrize(
    ("row", "changes"),
    [
        (BOOKS, {"orders_by_book_status": {"live": 39}}),
        (BOOKS, {"orders_by_book_status": {}}),
        (GAP, {"total_iterations": 0}),
        (SKIPPED, {"decisions": 0}),
        (SKIPPED, {"skipped_decisions": {"open_trade": 20}}),
    ],
)
def test_what_the_kpi_do_not_tell_is_unknown_and_not_passed(tmp_path: Path, row: int, changes: dict[str, Any]) -> None:
    rows = judge(run_of(tmp_path, **changes))

    assert failing(rows) == {row: "unknown"}
    assert not passed(rows)


def test_decisions_skipped_while_a_trade_is_open_are_no_trouble(tmp_path: Path) -> None:
    rows = judge(run_of(tmp_path, decisions=120, skipped_decisions={"open_trade": 60, "zone_refused": 40}))

    assert passed(rows)
    assert rows[SKIPPED].measured == "0.0% of 20: none; 100 more by design"


def test_orders_that_got_nothing_are_no_fills(tmp_path: Path) -> None:
    events = [*good_events()[:-1], unfilled(99, available_volume=1.0)]

    rows = judge(run_of(tmp_path, events))

    assert failing(rows) == {FILLS: "failed"}
    assert rows[FILLS].measured == "39 of 40 orders filled at least in part"


@pytest.mark.parametrize(("row", "side"), [(BUY, "buy"), (SELL, "sell")])
def test_volume_that_never_changes_fails(tmp_path: Path, row: int, side: str) -> None:
    events = [
        msgspec.structs.replace(one, available_volume=0.002) if one.side == side else one for one in good_events()
    ]

    assert failing(judge(run_of(tmp_path, events))) == {row: "failed"}


def test_spread_has_to_be_above_its_limit(tmp_path: Path) -> None:
    # Mean 10 in both; std 0.99 and 1.1 by hand: twice the square of the distance, over 2.
    events = [
        *[fill_event(number, available_volume=volume) for number, volume in enumerate((9.01, 10.0, 10.99), 1)],
        *[sale(number + 3, number, available_volume=volume) for number, volume in enumerate((8.9, 10.0, 11.1), 1)],
    ]

    rows = judge(run_of(tmp_path, events))

    assert (rows[BUY].outcome, rows[SELL].outcome) == ("failed", "passed")
    assert rows[BUY].measured == "0.099, 3 volumes"


def test_two_markets_that_stand_still_do_not_look_like_one_that_moves(tmp_path: Path) -> None:
    events = [
        msgspec.structs.replace(one, symbol=symbol, available_volume=volume)
        for one, (symbol, volume) in zip(
            good_events(),
            [("BTC-USDT", 0.002), ("BTC-USDT", 0.002), ("ETH-USDT", 5.0), ("ETH-USDT", 5.0)] * 10,
            strict=True,
        )
    ]

    assert failing(judge(run_of(tmp_path, events))) == {BUY: "failed", SELL: "failed"}


def test_order_on_a_book_older_than_the_limit_fails_whatever_its_status(tmp_path: Path) -> None:
    events = good_events()
    events[5] = msgspec.structs.replace(events[5], book_age_ms=5000.1)

    rows = judge(run_of(tmp_path, events))

    assert failing(rows) == {BOOKS: "failed"}
    assert rows[BOOKS].measured == "0 on a book that was not live, 1 on one older than 5000 ms"


def test_bad_line_fails_the_file(tmp_path: Path) -> None:
    events = good_events()
    path = write_run(tmp_path, events, figures=kpi(events))
    path.write_bytes(encoded(events) + b"{\n")

    rows = judge(read_run(path))

    assert failing(rows) == {WHOLE: "failed"}
    assert rows[WHOLE].measured.startswith("1 bad lines; line 41: ")


def test_without_kpi_only_what_the_events_show_is_known(tmp_path: Path) -> None:
    outcomes = failing(judge(read_run(write_run(tmp_path, good_events()))))

    unknown = (DURATION, RECONNECTS, FATAL, BOOKS, GAP, SKIPPED, WHOLE)
    assert outcomes == dict.fromkeys(unknown, "unknown")


def test_events_five_minutes_apart_show_the_duration_without_kpi(tmp_path: Path) -> None:
    events = [fill_event(1), fill_event(301)]

    assert judge(read_run(write_run(tmp_path, events)))[DURATION].outcome == "passed"


def test_run_without_orders_passes_no_row_that_needs_them(tmp_path: Path) -> None:
    rows = judge(read_run(write_run(tmp_path, [], figures=kpi([]))))

    assert failing(rows) == {FILLS: "failed", BUY: "unknown", SELL: "unknown", BOOKS: "unknown"}
