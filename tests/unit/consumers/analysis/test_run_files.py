"""Files of a run are read with doubt: what cannot be true is counted, and never taken for data."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.analysis.run_files import RunFileError, event_error, read_run
from tests.support.paper_runs import SESSION, at, decision, encoded, fill_event, good_events, kpi, write_run

GOOD = encoded([fill_event(1)])


def changed(old: str, new: str) -> bytes:
    text = encoded([fill_event(2)]).decode()
    assert text.count(old) == 1
    return text.replace(old, new).encode()


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (GOOD[:200], "truncated"),
        (b"null", "Expected `object`"),
        (b'{"x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}", "while deserializing"),
        (changed('"zone_id":null', r'"zone_id":"\ud800"'), "surrogate"),
        (b'{"timestamp": "\xff"}', "utf-8"),
        (changed('"fee":0.1', '"fee":NaN'), "invalid"),
        (changed('"fee":0.1', '"fee":1e999'), "out of range"),
        (changed('"fee":0.1', '"fee":1e300'), "fee is 1e+300"),
        (changed('"fee":0.1', '"fee":"0.1"'), "Expected `float`"),
        (changed('"side":"buy"', '"side":"hold"'), "Invalid enum value"),
        (changed('"trade_id":"T2",', ""), "missing required field"),
        (changed(at(2), "yesterday"), "is no time"),
        (changed(at(2), "2024-08-09T00:00:02"), "has no offset"),
        (changed('"order_quantity":1.0', '"order_quantity":0.0'), "order_quantity is 0"),
        (changed('"filled_quantity":1.0', '"filled_quantity":1.1'), "1.1 of 1 are filled"),
        (changed('"filled_quantity":1.0', '"filled_quantity":0.5'), "not the share"),
        (changed('"effective_price":100.0', '"effective_price":null'), "without a price"),
        (changed('"available_volume":2.0', '"available_volume":-2.0'), "available_volume is negative"),
        (changed(SESSION, "another"), "session another among those"),
        (GOOD, "order O1 a second time"),
    ],
)
def test_bad_line_is_skipped_and_counted_with_its_reason(tmp_path: Path, line: bytes, why: str) -> None:
    path = tmp_path / "fill_events_a.jsonl"
    path.write_bytes(GOOD + line.rstrip() + b"\n" + encoded([fill_event(3)]))

    run = read_run(path)

    assert [event.order_id for event in run.events] == ["O1", "O3"]
    assert run.lines.bad == 1
    assert run.lines.first_bad[0].startswith("line 2: ")
    assert why in run.lines.first_bad[0]


def test_file_without_any_good_line_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "fill_events_a.jsonl"
    path.write_bytes(b'{"a": 1}\n')

    with pytest.raises(RunFileError, match="no line is a fill event; line 1: "):
        read_run(path)


def test_empty_file_is_a_run_without_orders(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, []))

    assert (run.events, run.lines.bad, run.kpi) == ((), 0, None)


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="No such file"):
        read_run(tmp_path / "fill_events_a.jsonl")


def test_kpi_that_were_asked_for_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match="No such file"):
        read_run(write_run(tmp_path, [fill_event()]), tmp_path / "kpi.json")


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b'{"session_id": 5}', b'{"x":' + b"[" * 100_000])
def test_broken_kpi_are_an_error(tmp_path: Path, text: bytes) -> None:
    path = write_run(tmp_path, [fill_event()])
    (tmp_path / f"kpi_{SESSION}.json").write_bytes(text)

    with pytest.raises(RunFileError, match="not a KPI file"):
        read_run(path)


def test_kpi_of_another_session_are_an_error(tmp_path: Path) -> None:
    events = good_events()

    with pytest.raises(RunFileError, match="the KPI are of session other"):
        read_run(write_run(tmp_path, events, figures=kpi(events, session_id="other")))


def test_markouts_and_decisions_beside_the_events_are_read(tmp_path: Path) -> None:
    path = write_run(tmp_path, [fill_event(1)], decisions=[decision(1, 0.5, None)])
    looks: list[dict[str, object]] = [{"markout_1s_bps": 2.5}, {"markout_5s_bps": None}]
    lines = [msgspec.json.encode({"trade_id": "T1", "order_id": "O1"} | look) for look in looks]
    (tmp_path / f"markouts_{SESSION}.jsonl").write_bytes(b"\n".join([*lines, b"{"]))

    run = read_run(path)

    assert run.events == (msgspec.structs.replace(fill_event(1), markout_1s_bps=2.5),)
    assert run.decisions == (decision(1, 0.5, None),)


@given(st.binary(max_size=300))
def test_no_line_whatever_it_holds_breaks_the_reading(tmp_path_factory: pytest.TempPathFactory, line: bytes) -> None:
    path = tmp_path_factory.mktemp("run") / "fill_events_a.jsonl"
    path.write_bytes(GOOD + line)

    run = read_run(path)

    assert len(run.events) == 1
    assert run.lines.bad == sum(bool(part.strip()) for part in line.split(b"\n"))


@given(st.floats(), st.floats(), st.floats())
def test_event_that_is_taken_holds_together(order: float, filled: float, ratio: float) -> None:
    event = fill_event(order_quantity=order, filled_quantity=filled, fill_ratio=ratio)

    if not event_error(event):
        assert 0 <= filled <= order * 1.000001
        assert -1e-9 <= ratio <= 1.00001
