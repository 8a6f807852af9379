"""The smoke run from exchange to verdict; a short one fails for being short, and for nothing else it can help."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.support.waiting import wait_for


def using(directory: Path) -> list[str]:
    """The processes that were started with this directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(directory) in line]


@pytest.mark.parametrize("source", ["redis", "upbit", "multi"])
def test_a_short_smoke_run_reaches_its_verdict(tmp_path: Path, source: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "feeders", "smoke", "--source", source, "--seconds", "3", "--output-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    kpi = msgspec.json.decode(next(tmp_path.glob("kpi_*.json")).read_bytes())
    assert (kpi["end_reason"], kpi["l2_source"], kpi["fatal_errors"]) == ("duration", source, 0), done.stderr
    assert kpi["fill_events_count"] >= 2
    assert done.returncode == 1
    assert re.search(r"Duration +at least 300 s +3\.\d s +failed", done.stdout), done.stdout
    assert re.search(r"Fatal errors +none +0 +passed", done.stdout)


@pytest.mark.parametrize(
    ("number", "code", "ended_by"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_smoke_run_that_is_ended_leaves_results_and_no_process(
    tmp_path: Path, number: signal.Signals, code: int, ended_by: str
) -> None:
    command = [sys.executable, "-m", "feeders", "smoke", "--seconds", "60", "--output-dir", str(tmp_path)]
    with (tmp_path / "log").open("w+") as log:
        smoke = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(lambda: any(path.stat().st_size for path in tmp_path.glob("fill_events_*")), 60, "the first fill")
            # Ctrl-C reaches every process of the terminal, SIGTERM the one that it was sent to.
            if number == signal.SIGINT:
                os.killpg(smoke.pid, number)
            else:
                smoke.send_signal(number)
            assert smoke.wait(30) == code
        finally:
            smoke.kill()
            smoke.wait()
        log.seek(0)
        text = log.read()

    kpi = msgspec.json.decode(next(tmp_path.glob("kpi_*.json")).read_bytes())
    assert (kpi["end_reason"], kpi["open_trades"]) == (ended_by, 0), text
    assert "Traceback" not in text
    assert not using(tmp_path)
