"""The calibrate command on a recorded file: what it writes, what it prints, what it says of a mistake."""

import gzip
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from bookbus.consumers.commands.calibrate import calibrate
from bookbus.consumers.paper.calibration.table import load_table
from bookbus.consumers.paper.calibration.tape import tape_hash
from tests.support.binance_capture import write_capture
from tests.support.tapes import ZONE, SyntheticTape, synthetic_book

app = typer.Typer()
app.command()(calibrate)


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captures") / "monday.jsonl.gz"
    write_capture(path, SyntheticTape(1, seconds=400.0, entry_rate=0.8, exit_rate=1.2).events())
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def calibrated(capture: Path, out: Path) -> Result:
    options = ("--horizon", "4", "--minimum-samples", "10", "--order-notional", "1000")
    return run(capture, "--out", out, "--zones", f"{ZONE},7-9/9-12", *options)


def test_a_recording_becomes_a_table(capture: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.json"

    result = calibrated(capture, out)

    assert result.exit_code == 0, result.output
    table = load_table(out)
    # 47 whole slots of 8.4 s, of which 33 end within 280 s.
    assert [zone.samples for zone in table.zones] == [33, 33]
    assert [zone.usable for zone in table.zones] == [True, False]
    assert table.tapes[0].sha256 == tape_hash(capture)
    assert "Z2 is unusable: 0 exits, 10 are needed" in result.output
    assert f"written to {out}" in result.output
    assert "entries: Brier " in result.output


def test_a_table_is_not_validated_on_its_own_recording_however_it_is_stored(capture: Path, tmp_path: Path) -> None:
    out, copy = tmp_path / "table.json", tmp_path / "friday.jsonl"
    calibrated(capture, out)
    copy.write_bytes(gzip.decompress(capture.read_bytes()))

    result = run(copy, "--validate", out)

    assert result.exit_code == 1
    assert result.output == "error: the table was fitted on monday.jsonl.gz: friday.jsonl cannot validate it\n"


def test_a_table_is_scored_on_another_recording(capture: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "table.json", tmp_path / "tuesday.jsonl.gz"
    calibrated(capture, out)
    write_capture(other, SyntheticTape(2, 400.0, 0.8, 1.2, start_us=1_800_000_000_000_000).events())

    result = run(other, "--validate", out)

    assert result.exit_code == 0, result.output
    assert "on 94 not fitted on" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either --out to write a table or --validate to score one"),
        (("--out", "x", "--validate", "y"), "give either --out"),
        (("--out", "x", "--zones", "1-2"), "'1-2' is not a zone; write it like 0-1/2-5"),
        (("--out", "x", "--symbols", "NO-SUCH-THING"), "NO-SUCH-THING"),
        (("--validate", "none.json"), "cannot read none.json: No such file"),
    ],
)
def test_a_mistake_is_one_line(capture: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(capture, *arguments)

    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert message in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"", "holds no frame"),
        (b"nonsense\n", "not a recorded frame"),
        (gzip.compress(b"x" * 1_000_000)[:500], "cannot read"),
    ],
)
def test_what_is_no_recording_is_one_line(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "capture.jsonl.gz"
    if content is not None:
        path.write_bytes(content)

    result = run(path, "--out", tmp_path / "table.json")

    assert result.exit_code == 1
    assert message in result.output
    assert result.output.count("\n") == 1


def test_a_recording_without_trades_says_so(tmp_path: Path) -> None:
    path = tmp_path / "books.jsonl.gz"
    write_capture(path, [synthetic_book(1_700_000_000_000_000 + number) for number in range(5)])

    result = run(path, "--out", tmp_path / "table.json")

    assert "books.jsonl.gz has no trades, so that no fill can be decided" in result.output
