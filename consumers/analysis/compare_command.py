"""`compare`: how the fills of several paper runs differ."""

from pathlib import Path
from typing import Annotated

import typer

from bookbus.consumers.analysis.report import COMPARISON_NOTE, comparison_page
from bookbus.consumers.analysis.tables import difference_table, run_table, side_table
from bookbus.consumers.commands.analyze import read_or_fail, session_of, show, write_or_fail
from bookbus.consumers.commands.options import fail

EXAMPLES = """
How the fills of several paper runs differ: the same figures beside each other, and tests against the first run.
It makes sense for runs of the same symbols.

\b
  python -m consumers compare runs/fill_events_A.jsonl runs/fill_events_B.jsonl
  python -m consumers compare A.jsonl B.jsonl C.jsonl --report reports
"""


def compare(
    events_files: Annotated[list[Path], typer.Argument(help="fill_events_SESSION.jsonl of two runs or more.")],
    report: Annotated[
        Path | None, typer.Option(envvar="BOOKBUS_REPORT", help="Directory for a page with plots.")
    ] = None,
) -> None:
    if len(events_files) < 2:
        fail("name the fill events of two runs or more")
    runs = [(chr(ord("A") + place), read_or_fail(path)) for place, path in enumerate(events_files)]
    show("Runs", run_table(runs))
    show("By side", side_table(runs))
    show("Differences", difference_table(runs))
    typer.echo(COMPARISON_NOTE)
    if report is not None:
        write_or_fail(report, f"comparison_{session_of(events_files[0])}.html", lambda: comparison_page(runs))


compare.__doc__ = EXAMPLES
