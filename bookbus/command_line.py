"""The command lines of feeders and consumers: common options, logging, exit on a signal, one-line errors."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

import typer

from bookbus.kept_password import add_password
from bookbus.schemas.redis_names import DEFAULT_PREFIX
from bookbus.schemas.redis_url import DEFAULT_URL


def add_kept_password(url: str | None) -> str | None:
    """The URL with the password that the environment keeps for it."""
    try:
        return add_password(url, os.environ) if url else url
    except ValueError as error:
        fail(str(error))


def exchange_id(name: str | None) -> str | None:
    """An exchange's id, however it is written."""
    return name.strip().lower() if name else name


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
Exchange = Annotated[str, typer.Option(envvar="BOOKBUS_EXCHANGE", help="Exchange id.", callback=exchange_id)]
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
    """SIGINT exits with code 130, SIGTERM and SIGHUP with code 0, without a traceback."""
    before = {number: signal.signal(number, lambda *_: sys.exit(0)) for number in termination_signals()}
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def termination_signals() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP unless it is ignored, as by `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGHUP]
