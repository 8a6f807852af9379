"""The command lines of feeders and consumers: common options, logging, exit on a signal, one-line errors."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bookbus import __version__
from bookbus.schemas.redis_names import DEFAULT_PREFIX
from bookbus.schemas.redis_url import DEFAULT_URL, with_password


def make_app(help_text: str) -> typer.Typer:
    """An application without commands; it has `--version`."""
    app = typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def _options(
        version: Annotated[
            bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
        ] = False,
    ) -> None:
        pass

    return app


def add_kept_password(url: str | None) -> str | None:
    """The URL, with a password from the environment if it names a user without one.

    `BOOKBUS_REDIS_PASSWORD_FILE` names a file and has priority over `BOOKBUS_REDIS_PASSWORD`.
    """
    password = os.environ.get("BOOKBUS_REDIS_PASSWORD", "")
    if path := os.environ.get("BOOKBUS_REDIS_PASSWORD_FILE"):
        try:
            password = Path(path).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            fail(f"cannot read BOOKBUS_REDIS_PASSWORD_FILE {path}: {getattr(error, 'strerror', None) or 'no text'}")
    return with_password(url, password) if url and password else url


RedisUrl = Annotated[
    str,
    typer.Option(
        "--redis",
        envvar="BOOKBUS_REDIS_URL",
        help="Redis URL: redis://, unix://, redis+sentinel:// or redis+cluster://; with rediss for TLS.",
        callback=add_kept_password,
    ),
]
Prefix = Annotated[str, typer.Option(envvar="BOOKBUS_PREFIX", help="First part of every key and channel.")]
Exchange = Annotated[str, typer.Option(envvar="BOOKBUS_EXCHANGE", help="Exchange id.")]
LogLevel = Annotated[
    str, typer.Option(envvar="BOOKBUS_LOG_LEVEL", help="debug, info, warning or error; goes to standard error.")
]

REDIS_DEFAULT = DEFAULT_URL
PREFIX_DEFAULT = DEFAULT_PREFIX


def fail(message: str) -> NoReturn:
    """Print one line to standard error and exit with code 1."""
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(1)


def start_logging(level: str) -> None:
    """Log to standard error."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        fail(f"unknown log level {level!r}: use debug, info, warning or error")
    logging.basicConfig(level=number, format="%(asctime)s %(levelname)-7s %(message)s", stream=sys.stderr)
    logging.getLogger("websockets").setLevel(max(number, logging.INFO))


def split_names(names: str) -> tuple[str, ...]:
    """The names between the commas, without repetitions."""
    return tuple(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """SIGINT exits with code 130 and SIGTERM with code 0, without a traceback."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit
