"""Runs scenarios with faults and prints what readers saw: `python -m tests.chaos.run --help`."""

import asyncio
from typing import Annotated

import msgspec
import typer

from tests.chaos.play import play
from tests.chaos.report import Result, table
from tests.chaos.scenario import Scenario, ScenarioError, find, load

_LOG_LINES = 30
"""Lines of the feeders' log that are printed after a failure."""


def run(
    scenarios: Annotated[list[str] | None, typer.Argument(help="Names or files; by default all.")] = None,
    seconds: Annotated[float, typer.Option(help="Repeat each scenario for this time.")] = 0.0,
    symbols: Annotated[int | None, typer.Option(help="Number of symbols, if more than the scenario's.")] = None,
    patience: Annotated[float, typer.Option(help="Multiply the time limits, for a busy machine.")] = 1.0,
    list_: Annotated[bool, typer.Option("--list", help="List the scenarios.")] = False,
) -> None:
    """Inject the faults of scenarios into real processes and print what readers saw of each.

    Exit code 0 if all scenarios passed. Ctrl-C ends the run and prints the finished scenarios.

    \b
      python -m tests.chaos.run                               every scenario, each fault once
      python -m tests.chaos.run exchange-cut redis-restart    these scenarios
      python -m tests.chaos.run --seconds 30 --symbols 150    the long form: each scenario for 30 s
      python -m tests.chaos.run my-own.toml                   your own file
      python -m tests.chaos.run --list
    """
    try:
        files = [(path.stem, load(path)) for path in find(scenarios or [])]
    except ScenarioError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if list_:
        for name, scenario in files:
            typer.echo(f"{name:24} {len(scenario.fault):3} faults  {scenario.about}")
        return
    results: list[Result] = []
    try:
        for name, scenario in files:
            typer.echo(f"playing {name}: {scenario.about}", err=True)
            results.append(asyncio.run(play(name, _sized(scenario, symbols), seconds, patience)))
            for failure in results[-1].all_failures:
                typer.echo(f"FAILED {failure}", err=True)
            if results[-1].all_failures:
                typer.echo(_last_lines(results[-1].log), err=True)
    except KeyboardInterrupt:
        code = 130
    except RuntimeError as error:
        typer.echo(f"error: {error}", err=True)
        code = 1
    else:
        code = int(any(result.all_failures for result in results))
    if results:
        typer.echo(table(results))
        compared, wrong = (sum(result.count(name) for result in results) for name in ("compared", "wrong"))
        oldest = max((outcome.oldest for result in results for outcome in result.outcomes), default=0.0)
        typer.echo(f"{compared:,} books compared with the exchange's own, {wrong} wrong")
        typer.echo(f"no live book was older than {oldest:.1f} s")
    raise typer.Exit(code)


def _sized(scenario: Scenario, symbols: int | None) -> Scenario:
    return scenario if symbols is None else msgspec.structs.replace(scenario, symbols=max(symbols, scenario.symbols))


def _last_lines(log: str) -> str:
    return "\n".join(log.splitlines()[-_LOG_LINES:])


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.command()(run)

if __name__ == "__main__":
    app()
