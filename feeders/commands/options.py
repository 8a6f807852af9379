"""Shared by the commands: options, logging, running until a signal, one-line errors."""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.redis_names import DEFAULT_PREFIX
from bookbus.schemas.redis_url import DEFAULT_URL, masked, redacted, secrets_of, with_password

if TYPE_CHECKING:
    from bookbus.feeders.markets import SymbolSelection


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
LogLevel = Annotated[
    str, typer.Option(envvar="BOOKBUS_LOG_LEVEL", help="debug, info, warning or error; goes to standard error.")
]
Symbols = Annotated[
    str,
    typer.Option(envvar="BOOKBUS_SYMBOLS", help="Comma-separated: BTC, BTC-USDT, BTCUSDT, all:USDT, top:50."),
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


def split_symbols(symbols: str) -> tuple[str, ...]:
    """The names between the commas, without repetitions."""
    return tuple(dict.fromkeys(name.strip() for name in symbols.split(",") if name.strip()))


def select_symbols(symbols: str, shard: str = "1/1") -> "SymbolSelection":
    """The symbols that the options select. Exits with an error if an option is wrong or selects nothing."""
    # Needs the libraries of the REST client, which not every command uses.
    from bookbus.feeders.markets import parse_selection, parse_shard

    try:
        selection = parse_selection(split_symbols(symbols) or fail("no symbol given: use --symbols BTC,ETH"))
        return replace(selection, shard=parse_shard(shard))
    except (SymbolError, ValueError) as error:
        fail(str(error))


def run_until_signal(work: Coroutine[Any, Any, None]) -> None:
    """Run until done, SIGINT (exit code 130), SIGTERM or SIGHUP (exit code 0); on uvloop if it is installed.

    An ignored SIGHUP stays ignored, as by `nohup`.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    ending = (signal.SIGINT, signal.SIGTERM) if ignored else (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    received: list[int] = []

    async def main() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            received.append(number)
            task.cancel()

        for number in ending:
            loop.add_signal_handler(number, stop, number)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    try:
        import uvloop
    except ImportError:
        asyncio.run(main())
    else:
        uvloop.run(main())
    if received and received[0] == signal.SIGINT:
        raise typer.Exit(130)


async def require_redis(url: str) -> None:
    """Exits with an error that says what to do if the server does not answer."""
    # Needs redis-py, which not every command uses.
    from bookbus.feeders.bus.servers import CONTROL_ERRORS, AuthenticationError, control_client

    try:
        redis = control_client(url)
    except ValueError as error:
        fail(f"--redis {masked(url)}: {error}")
    try:
        await redis.ping()
    except AuthenticationError as error:
        reply = redacted(error, secrets_of(url))
        fail(
            f"{masked(url)} refuses this login ({reply:.80}): name a user in its address, "
            "redis://USER@host:6379/0, and set BOOKBUS_REDIS_PASSWORD"
        )
    except CONTROL_ERRORS as error:
        reply = redacted(error, secrets_of(url))
        fail(
            f"no Redis at {masked(url)} ({reply}): start one with `make redis` or `docker compose up redis`, "
            "or name another with --redis"
        )
    finally:
        await redis.aclose()
