"""The command lines of feeders and consumers: common options, logging, exit on a signal, one-line errors."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


END_LIMIT = 10.0
"""Seconds from the signal that ends a command to its end."""


def end_within(limit: float, code: int, *, silently: bool = False) -> threading.Event:
    """End the process with this code, and with one line or `silently`, unless the event is set within `limit` seconds.

    What a signal raises or cancels can be swallowed, by a library or where Python ignores exceptions.
    """
    ended = threading.Event()

    def leave() -> None:
        if ended.wait(limit):
            return
        if not silently:
            with suppress(OSError, ValueError):
                sys.stderr.write(f"error: told to end, but did not within {limit:g} s: ended without cleaning up\n")
                sys.stderr.flush()
        os._exit(code)

    with suppress(RuntimeError):  # no thread can be started
        threading.Thread(target=leave, name="bookbus-exit", daemon=True).start()
    return ended


@contextmanager
def ended_by_signal() -> Iterator[None]:
    """SIGINT exits with code 130, SIGTERM and SIGHUP with code 0, without a traceback, after at most END_LIMIT."""
    ending: list[threading.Event] = []

    def end(number: int, _: object) -> None:
        ending.append(end_within(END_LIMIT, 130 if number == signal.SIGINT else 0))
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(0)

    numbers = termination_signals()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for event in ending:
            event.set()


def termination_signals() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP unless it is ignored, as by `nohup`."""
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [signal.SIGTERM] if ignored else [signal.SIGTERM, signal.SIGHUP]
