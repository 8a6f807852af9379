"""Starts a command line: imports the named command alone, and says in one line what is missing."""

import io
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

from bookbus import __version__
from bookbus._extras import advice

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended."""


def start(program: str, description: str, commands: Mapping[str, str], extra: str) -> None:
    """Run the command that the arguments name. `commands` has the function of each, as `module:function`; `extra` is
    what the program needs."""
    interrupt = signal.getsignal(signal.SIGINT)
    _end_at_once_when_interrupted(interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 shows a question mark for what it cannot show.
            stream.reconfigure(errors="replace")
    named = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    try:
        app = make_app(description, commands, [named] if named in commands else commands)
        signal.signal(signal.SIGINT, interrupt)
        app()
    except KeyboardInterrupt:
        # While typer prepares the command, which has handlers of its own once it runs.
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        sys.exit(f"error: {advice(' '.join(filter(None, [program, named])), error, extra)}")
    finally:
        _end_at_once_when_interrupted(interrupt)


def _end_at_once_when_interrupted(handler: object) -> None:
    """Before and after a command, Ctrl-C has nothing to clean up; where it is ignored, it stays so."""
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def make_app(description: str, commands: Mapping[str, str], names: Iterable[str]) -> "typer.Typer":
    """The command line with the commands of these names. Raises ModuleNotFoundError if a package is missing."""
    import typer

    app = typer.Typer(
        help=description,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for name in names:
        module, _, function = commands[name].partition(":")
        app.command(name)(getattr(import_module(module), function))

    def print_version(wanted: bool) -> None:
        if wanted:
            typer.echo(__version__)
            raise typer.Exit

    @app.callback()
    def options(
        version: Annotated[
            bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None:
        pass

    return app
