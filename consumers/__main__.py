"""The readers' command line: `python -m consumers`."""

import typer

from bookbus.consumers.analysis.analyze_command import analyze
from bookbus.consumers.analysis.compare_command import compare
from bookbus.consumers.monitor.arbitrage import arbitrage
from bookbus.consumers.monitor.list_command import list_readers
from bookbus.consumers.monitor.show import show
from bookbus.consumers.monitor.tail import tail
from bookbus.consumers.paper.calibrate_command import calibrate
from bookbus.consumers.paper.run_command import run

app = typer.Typer(
    help="Order books from Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (run, show, tail, arbitrage, calibrate, analyze, compare):
    app.command()(command)
app.command("list")(list_readers)


def main() -> None:
    """Entry point of `bookbus`."""
    app()


if __name__ == "__main__":
    main()
