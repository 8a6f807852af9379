"""The feeders' command line: `python -m feeders`."""

import typer

from feeders.commands.acl import acl
from feeders.commands.audit import audit
from feeders.commands.demo import demo
from feeders.commands.health import health
from feeders.commands.record import record
from feeders.commands.redis import redis
from feeders.commands.replay import replay
from feeders.commands.run import run
from feeders.commands.smoke import smoke
from feeders.simulator.command import simulate
from feeders.simulator.proxy_command import proxy

app = typer.Typer(
    help="Exchange order books onto Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (run, record, replay, simulate, proxy, redis, demo, smoke, health, acl, audit):
    app.command()(command)


def main() -> None:
    """Entry point of `bookbus-feeder`."""
    app()


if __name__ == "__main__":
    main()
