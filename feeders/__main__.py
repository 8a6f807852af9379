"""The feeders' command line: `python -m feeders`."""

from typing import TYPE_CHECKING

from bookbus import program

if TYPE_CHECKING:
    import typer

DESCRIPTION = "Publish order books of exchanges to Redis."
COMMANDS = {
    "run": "bookbus.feeders.commands.run:run",
    "record": "bookbus.feeders.commands.record:record",
    "replay": "bookbus.feeders.commands.replay:replay",
    "simulate": "bookbus.feeders.commands.simulate:simulate",
    "proxy": "bookbus.feeders.commands.proxy:proxy",
    "redis": "bookbus.feeders.commands.redis:redis",
    "demo": "bookbus.feeders.commands.demo:demo",
    "smoke": "bookbus.feeders.commands.smoke:smoke",
    "health": "bookbus.feeders.commands.health:health",
    "acl": "bookbus.feeders.commands.acl:acl",
    "audit": "bookbus.feeders.commands.audit:audit",
}
"""The function of each command."""


def make_app() -> "typer.Typer":
    """The whole command line."""
    return program.make_app(DESCRIPTION, COMMANDS, COMMANDS)


def main() -> None:
    """Entry point of `bookbus-feeder`."""
    program.start("bookbus-feeder", DESCRIPTION, COMMANDS, extra="feeder")


if __name__ == "__main__":
    main()
