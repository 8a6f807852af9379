"""The smoke run from exchange to verdict; a short one fails for being short, and for nothing else it can help."""

import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest


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
