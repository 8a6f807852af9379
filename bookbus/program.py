"""Starts a command line: imports the named command alone, and says in one line what is missing."""

import io
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from inspect import getdoc
from typing import TYPE_CHECKING, Annotated, Any

from bookbus import __version__
from bookbus._extras import advice

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130
"""Exit code of a program that Ctrl-C ended."""


def start(program: str, description: str, commands: Mapping[str, str], extra: str) -> None:
    """Run the command that the arguments name. `commands` has the function of each, as `module:function`; `extra` is
    what the program needs."""
    named = next((argument for argument in sys.argv[1:] if not argument.startswith("-")), "")
    interrupt = prepare()
    chosen = {named: commands[named]} if named in commands else commands
    run(lambda: make_app(description, chosen, chosen), interrupt, " ".join(filter(None, [program, named])), extra)


def prepare() -> Any:
    """Once at the start of a program: how it ends on Ctrl-C, and what a terminal without UTF-8 shows.

    Returns the handler of Ctrl-C that it replaced, for `run`.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    _end_at_once_when_interrupted(interrupt)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal without UTF-8 shows a question mark for what it cannot show.
            stream.reconfigure(errors="replace")
    return interrupt


def run(make: Callable[[], "typer.Typer"], interrupt: Any, named: str, extra: str, program: str | None = None) -> None:
    """Make a command line and run it; `named` is the program and the command, `interrupt` as from `prepare`."""
    try:
        app = make()
        signal.signal(signal.SIGINT, interrupt)
        app(prog_name=program)
    except KeyboardInterrupt:
        # While typer prepares the command, which has handlers of its own once it runs.
        sys.exit(INTERRUPTED)
    except ModuleNotFoundError as error:
        sys.exit(f"error: {advice(named, error, extra)}")
    finally:
        _end_at_once_when_interrupted(interrupt)


def _end_at_once_when_interrupted(handler: object) -> None:
    """Before and after a command, Ctrl-C has nothing to clean up; where it is ignored, it stays so."""
    if handler is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))


def make_app(
    description: str,
    commands: Mapping[str, str],
    names: Iterable[str],
    *,
    completion: bool = False,
    reword: Callable[[str], str] = str,
) -> "typer.Typer":
    """The command line with the commands of these names; one without a function has a name alone.

    Raises ModuleNotFoundError if a package is missing. `reword` is applied to the help of each command.
    """
    import typer

    app = typer.Typer(
        help=description,
        no_args_is_help=True,
        add_completion=completion,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for name in names:
        module, _, function = commands[name].partition(":")
        command = getattr(import_module(module), function) if module else lambda: None
        app.command(name, help=reword(getdoc(command) or ""))(command)

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
