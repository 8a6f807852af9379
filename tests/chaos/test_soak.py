"""A short soak run: its parts work together."""

import asyncio
from pathlib import Path

from tests.chaos.soak.run import Soak
from tests.chaos.soak.verdict import failures

SECONDS = 12.0


def test_a_short_run_with_faults_compares_books_and_finds_nothing_wrong(tmp_path: Path) -> None:
    lines: list[str] = []

    outcome = asyncio.run(Soak(tmp_path, seed=3, symbols=3, readers=2, say=lines.append).run(SECONDS))

    logs = "\n".join(path.read_text() for path in tmp_path.glob("*.log"))
    assert failures(outcome) == [], logs
    assert sum(report.compared for report in outcome.reports.values()) > 100
    assert outcome.faults.total() > 0
    assert len(lines) == 2  # the start, and one of progress
    assert {name.split()[1] for name in outcome.samples} == {"feeder", "readers"}
    assert "Traceback" not in logs
