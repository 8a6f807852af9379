"""The readers' command line: `python -m consumers`."""

from typing import Annotated

import typer

from bookbus import __version__
from bookbus.consumers.commands.analyze import analyze, compare
from bookbus.consumers.commands.arbitrage import arbitrage
from bookbus.consumers.commands.calibrate import calibrate
from bookbus.consumers.commands.list import list_readers
from bookbus.consumers.commands.run import run
from bookbus.consumers.commands.show import show
from bookbus.consumers.commands.tail import tail

app = typer.Typer(
    help="Read order books from Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (run, show, tail, arbitrage, calibrate, analyze, compare):
    app.command()(command)
app.command("list")(list_readers)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of `bookbus`."""
    app()


if __name__ == "__main__":
    main()
