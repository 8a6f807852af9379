"""`analyze` and `compare`: statistics of paper runs, and acceptance of one."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table as ShownTable
from rich.text import Text

from bookbus.command_line import fail
from bookbus.consumers.analysis.acceptance import judge, passed
from bookbus.consumers.analysis.plots import PlotsMissingError
from bookbus.consumers.analysis.report import (
    COMPARISON_NOTE,
    Table,
    comparison_page,
    difference_table,
    run_page,
    run_table,
    side_table,
    time_table,
    verdict_table,
    write_page,
    zone_table,
)
from bookbus.consumers.analysis.run_files import RunFileError, RunFiles, read_run

_COLOURS = {"passed": "green", "failed": "bold red", "unknown": "yellow"}


def analyze(
    events_file: Annotated[
        Path, typer.Option(envvar="BOOKBUS_EVENTS_FILE", help="fill_events_SESSION.jsonl of a run.")
    ],
    kpi: Annotated[Path | None, typer.Option(envvar="BOOKBUS_KPI", help="kpi_SESSION.json, if elsewhere.")] = None,
    report: Annotated[
        Path | None, typer.Option(envvar="BOOKBUS_REPORT", help="Directory for a page with plots.")
    ] = None,
) -> None:
    """Statistics of a paper run, and whether it is accepted. Exit code 0 only if every row of the verdict passes.

    KPI, decisions and mark-outs are read from the directory of the fill events.

    \b
      python -m consumers analyze --events-file runs/fill_events_20240808_235414.jsonl
      python -m consumers analyze --events-file runs/fill_events_20240808_235414.jsonl --report reports
    """
    run = _read(events_file, kpi)
    rows = judge(run)
    _show("By side", side_table([(run.session_id, run)]))
    _show("By zone", zone_table(run))
    _show("Times", time_table(run))
    _show("Verdict", verdict_table(rows))
    if run.lines.bad:
        typer.echo(f"{run.lines.bad} bad lines skipped: {'; '.join(run.lines.first_bad)}", err=True)
    if report is not None:
        _write(report, f"analysis_{_session_of(events_file)}.html", lambda: run_page(run, rows))
    typer.echo("PASSED" if passed(rows) else "NOT PASSED")
    raise typer.Exit(0 if passed(rows) else 1)


def compare(
    events_files: Annotated[list[Path], typer.Argument(help="fill_events_SESSION.jsonl of two runs or more.")],
    report: Annotated[
        Path | None, typer.Option(envvar="BOOKBUS_REPORT", help="Directory for a page with plots.")
    ] = None,
) -> None:
    """Compare the fills of several paper runs: figures of each run, and tests against the first one. The runs should
    have the same symbols.

    \b
      python -m consumers compare runs/fill_events_A.jsonl runs/fill_events_B.jsonl
      python -m consumers compare A.jsonl B.jsonl C.jsonl --report reports
    """
    if len(events_files) < 2:
        fail("name the fill events of two runs or more")
    runs = [(chr(ord("A") + place), _read(path)) for place, path in enumerate(events_files)]
    _show("Runs", run_table(runs))
    _show("By side", side_table(runs))
    _show("Differences", difference_table(runs))
    typer.echo(COMPARISON_NOTE)
    if report is not None:
        _write(report, f"comparison_{_session_of(events_files[0])}.html", lambda: comparison_page(runs))


def _read(events_file: Path, kpi: Path | None = None) -> RunFiles:
    """Ends the program with one line if the run cannot be read."""
    try:
        return read_run(events_file, kpi)
    except RunFileError as error:
        fail(str(error))


def _session_of(events_file: Path) -> str:
    """From the file name: the content is not trusted as a name of a new file."""
    return events_file.stem.removeprefix("fill_events_")


def _write(directory: Path, name: str, make_page: Callable[[], str]) -> None:
    """Write a page and print its path. Ends the program with one line if that fails."""
    try:
        typer.echo(f"report: {write_page(directory, name, make_page())}")
    except PlotsMissingError as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write into {directory}: {error.strerror or error}")


def _show(title: str, content: Table) -> None:
    shown = ShownTable(title=title, title_justify="left", box=None, pad_edge=False)
    for place, head in enumerate(content.heads):
        shown.add_column(head, justify="left" if place < content.text_columns else "right", overflow="fold")
    for row in content.rows:
        shown.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    console = Console()
    console.print(shown)
    console.print()
