"""`analyze` and `compare` as they are called, and their pages."""

import base64
import re
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner

from bookbus.consumers.__main__ import make_app
from bookbus.consumers.analysis.report import comparison_page, run_page
from bookbus.consumers.analysis.run_files import read_run
from tests.support.paper_runs import SESSION, fill_event, good_events, kpi, unfilled, write_run

app = make_app()

PNG = b"\x89PNG\r\n\x1a\n"


def call(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments])


def good_run(directory: Path, session: str = SESSION) -> Path:
    events = [msgspec.structs.replace(one, session_id=session) for one in good_events()]
    return write_run(directory, events, figures=kpi(events, session_id=session), session=session)


def pictures(text: str) -> list[bytes]:
    return [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]


def test_good_run_ends_with_exit_code_zero(tmp_path: Path) -> None:
    result = call("analyze", "--events-file", good_run(tmp_path))

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "PASSED"


def test_run_that_fails_one_row_does_not(tmp_path: Path) -> None:
    events = good_events()
    path = write_run(tmp_path, events, figures=kpi(events, reconnects=2))

    result = call("analyze", "--events-file", path)

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "NOT PASSED"


def test_run_without_kpi_does_not_pass(tmp_path: Path) -> None:
    assert call("analyze", "--events-file", write_run(tmp_path, good_events())).exit_code == 1


def test_kpi_may_lie_elsewhere(tmp_path: Path) -> None:
    events = good_events()
    elsewhere = tmp_path / "figures.json"
    elsewhere.write_bytes(msgspec.json.encode(kpi(events)))

    assert call("analyze", "--events-file", write_run(tmp_path, events), "--kpi", elsewhere).exit_code == 0


def test_bad_lines_are_told(tmp_path: Path) -> None:
    path = good_run(tmp_path)
    path.write_bytes(path.read_bytes() + b'{"timestamp": NaN}\n')

    result = call("analyze", "--events-file", path)

    assert result.exit_code == 1
    assert "1 bad lines skipped: line 41: " in result.stderr


@pytest.mark.parametrize("command", ["analyze", "compare"])
def test_file_that_is_none_ends_with_one_line(tmp_path: Path, command: str) -> None:
    path = tmp_path / "fill_events_a.jsonl"
    path.write_bytes(b"\x00\x01\n")

    arguments = ["--events-file", path] if command == "analyze" else [path, path]
    result = call(command, *arguments)

    assert result.exit_code == 1
    assert re.fullmatch(r"error: .* no line is a fill event; line 1: .*\n", result.stderr)


def test_compare_needs_two_runs(tmp_path: Path) -> None:
    result = call("compare", good_run(tmp_path))

    assert (result.exit_code, result.stderr) == (1, "error: name the fill events of two runs or more\n")


def test_compare_tells_every_later_run_from_the_first(tmp_path: Path) -> None:
    paths = [good_run(tmp_path / name, name) for name in ("mock", "upbit", "binance")]

    result = call("compare", *paths)

    assert result.exit_code == 0
    assert all(name in result.stdout for name in ("mock", "upbit", "binance", "against A", "Cliff's"))


def test_report_is_one_page_with_every_plot(tmp_path: Path) -> None:
    result = call("analyze", "--events-file", good_run(tmp_path), "--report", tmp_path / "new" / "reports")

    page = tmp_path / "new" / "reports" / f"analysis_{SESSION}.html"
    text = page.read_text()
    assert f"report: {page}" in result.stdout.replace("\n", "")
    assert [picture[:8] for picture in pictures(text)] == [PNG] * 6
    assert '<strong class="passed">PASSED</strong>' in text
    assert re.findall(r'(?:src|href)="(?!data:)', text) == []


def test_comparison_report_draws_each_measure_of_each_side(tmp_path: Path) -> None:
    paths = [good_run(tmp_path / name, name) for name in ("one", "two")]

    assert call("compare", *paths, "--report", tmp_path).exit_code == 0
    assert len(pictures((tmp_path / "comparison_one.html").read_text())) == 6


def test_report_that_cannot_be_written_ends_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    result = call("analyze", "--events-file", good_run(tmp_path), "--report", tmp_path / "file")

    assert result.exit_code == 1
    assert result.stderr.startswith("error: cannot write into ")


def test_without_the_extra_the_figures_are_there_and_the_report_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    path = good_run(tmp_path)

    assert call("analyze", "--events-file", path).exit_code == 0
    result = call("analyze", "--events-file", path, "--report", tmp_path)

    assert (result.exit_code, result.stderr) == (
        1,
        "error: plots need the `analysis` extra: pip install 'bookbus[analysis]'\n",
    )


@pytest.mark.parametrize(
    "events",
    [
        [],
        [unfilled(1, available_volume=None, book_age_ms=None, arrival_mid=None)],
        [fill_event(1, available_volume=0.0, slippage_bps=0.0)],
        [fill_event(1, symbol="$_{<b>", exchange="$x^$", zone_id="</td>$\\frac")],
        [fill_event(number, symbol=f"S{number}-USDT") for number in range(9)],
    ],
    ids=["empty", "nothing known", "zero", "hostile names", "many markets"],
)
def test_odd_runs_are_drawn_too(tmp_path: Path, events: list[Any]) -> None:
    run = read_run(write_run(tmp_path, events))

    text = run_page(run, [])

    assert len(pictures(text)) == 6
    assert "<b>x" not in text
    assert "</td>$" not in text
    assert len(pictures(comparison_page([("A", run), ("B", run)]))) == 6
