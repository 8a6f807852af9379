"""The readers' command line: `python -m consumers`."""

from typing import TYPE_CHECKING

from bookbus import program

if TYPE_CHECKING:
    import typer

DESCRIPTION = "Read order books from Redis."
COMMANDS = {
    "paper": "bookbus.consumers.commands.run:run",
    "run": "bookbus.consumers.commands.run:run",
    "books": "bookbus.consumers.commands.books:books",
    "show": "bookbus.consumers.commands.show:show",
    "tail": "bookbus.consumers.commands.tail:tail",
    "arbitrage": "bookbus.consumers.commands.arbitrage:arbitrage",
    "calibrate": "bookbus.consumers.commands.calibrate:calibrate",
    "analyze": "bookbus.consumers.commands.analyze:analyze",
    "compare": "bookbus.consumers.commands.analyze:compare",
    "web": "bookbus.consumers.commands.web:web",
    "serve": "bookbus.consumers.commands.web:serve",
    "export": "bookbus.consumers.commands.export:export",
    "list": "bookbus.consumers.commands.list:list_readers",
}
"""The function of each command."""


def make_app() -> "typer.Typer":
    """The whole command line."""
    return program.make_app(DESCRIPTION, COMMANDS, COMMANDS)


def main() -> None:
    """Entry point of `bookbus`."""
    program.start("bookbus", DESCRIPTION, COMMANDS, extra="monitor")


if __name__ == "__main__":
    main()
