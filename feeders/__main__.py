"""The feeders' command line: `python -m feeders`."""

from typing import Annotated

import typer

from bookbus import __version__
from bookbus.feeders.commands.acl import acl
from bookbus.feeders.commands.audit import audit
from bookbus.feeders.commands.demo import demo
from bookbus.feeders.commands.health import health
from bookbus.feeders.commands.proxy import proxy
from bookbus.feeders.commands.record import record
from bookbus.feeders.commands.redis import redis
from bookbus.feeders.commands.replay import replay
from bookbus.feeders.commands.run import run
from bookbus.feeders.commands.simulate import simulate
from bookbus.feeders.commands.smoke import smoke

app = typer.Typer(
    help="Publish order books of exchanges to Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (run, record, replay, simulate, proxy, redis, demo, smoke, health, acl, audit):
    app.command()(command)


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
    """Entry point of `bookbus-feeder`."""
    app()


if __name__ == "__main__":
    main()
