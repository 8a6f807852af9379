"""Shared by the feeders' commands: selecting symbols, running until a signal, checking the server."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bookbus.command_line import END_LIMIT, end_within, fail, split_names, termination_signals
from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.redis_url import masked, redacted, secrets_of

_CLOSE_LIMIT = 2.0
"""Seconds that the loop has to close once everything that ran on it has ended."""

_CLEANUP_LIMIT = 5.0
"""Seconds that the work has to clean up, publishing its last states for example, before it is cancelled again."""

_CANCEL_INTERVAL = 0.25

if TYPE_CHECKING:
    from bookbus.feeders.markets import SymbolSelection

Symbols = Annotated[
    str,
    typer.Option(envvar="BOOKBUS_SYMBOLS", help="Comma-separated: BTC, BTC-USDT, BTCUSDT, all:USDT, top:50."),
]

Depth = Annotated[int, typer.Option(envvar="BOOKBUS_DEPTH", min=1, max=5000, help="Levels per side.")]
WsUrl = Annotated[
    str | None, typer.Option(envvar="BOOKBUS_WS_URL", help="WebSocket base URL instead of the exchange's.")
]
RestUrl = Annotated[
    str | None, typer.Option(envvar="BOOKBUS_REST_URL", help="REST base URL instead of the exchange's.")
]

NetworkName = Annotated[
    str | None,
    typer.Option(
        envvar="BOOKBUS_NETWORK",
        help="Network of the exchange that these URLs are, like live behind a proxy; by default derived from them.",
    ),
]


def select_symbols(symbols: str, shard: str = "1/1") -> "SymbolSelection":
    """The symbols that the options select. Exits with an error if an option is wrong or selects nothing."""
    # Needs the libraries of the REST client, which not every command uses.
    from bookbus.feeders.markets import parse_selection, parse_shard

    try:
        selection = parse_selection(split_names(symbols) or fail("no symbol given: use --symbols BTC,ETH"))
        return replace(selection, shard=parse_shard(shard))
    except (SymbolError, ValueError) as error:
        fail(str(error))


def run_until_signal(work: Coroutine[Any, Any, None], limit: float = END_LIMIT) -> None:
    """Run until done, SIGINT (exit code 130), SIGTERM or SIGHUP (exit code 0); on uvloop if it is installed.

    A library may swallow a cancellation: what still runs after _CLEANUP_LIMIT seconds is cancelled again and again, and
    the process ends after `limit` seconds at the latest.
    """
    received: list[int] = []
    ending: list[threading.Event] = []

    async def main() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def stop(number: int) -> None:
            if not received:
                ending.append(end_within(limit, 130 if number == signal.SIGINT else 0))
                loop.call_later(min(_CLEANUP_LIMIT, limit / 2), cancel_again)
            received.append(number)
            task.cancel()

        def cancel_again() -> None:
            if not task.done():
                for running in asyncio.all_tasks(loop) - {own}:
                    running.cancel()
                loop.call_later(_CANCEL_INTERVAL, cancel_again)

        own = asyncio.current_task()

        for number in (signal.SIGINT, *termination_signals()):
            loop.add_signal_handler(number, stop, number)
        with contextlib.suppress(asyncio.CancelledError):
            try:
                await task
            finally:
                if received:
                    # The loop waits for the system's resolver, which may take long.
                    code = 130 if received[0] == signal.SIGINT else 0
                    ending.append(end_within(_CLOSE_LIMIT, code, silently=True))

    try:
        try:
            import uvloop
        except ImportError:
            asyncio.run(main())
        else:
            uvloop.run(main())
    finally:
        for event in ending:
            event.set()
    if received and received[0] == signal.SIGINT:
        raise typer.Exit(130)


def end_if_cancelled() -> None:
    """Raises CancelledError if this task was cancelled and a library that it called went on regardless."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


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
    end_if_cancelled()
