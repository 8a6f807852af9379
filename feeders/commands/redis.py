"""`redis`: a local Redis server, private or shared."""

from pathlib import Path
from typing import Annotated

import typer

from bookbus.command_line import fail
from bookbus.feeders.markets import default_cache_directory
from bookbus.feeders.redis_server import SHARED_PORT, LocalRedisError, LocalServer, start_shared, stop_shared


def redis(
    port: Annotated[
        int | None,
        typer.Option(envvar="BOOKBUS_REDIS_PORT", help="Port; by default a free one, or 6379 in the background."),
    ] = None,
    shared: Annotated[bool, typer.Option("--shared", help="Run in the background after this command ends.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the server in the background.")] = False,
) -> None:
    """Run the embedded server and print its URL; Ctrl-C stops it.

    \b
      python -m feeders redis                 in the foreground, on a free port
      python -m feeders redis --port 6400     in the foreground, on this port
      python -m feeders redis --shared        in the background on 6379, unless a server already answers there
      python -m feeders redis --stop          stop the server in the background
    """
    if shared and stop:
        fail("--shared starts and --stop stops a server: give one of them")
    try:
        if shared or stop:
            (_start_shared if shared else _stop_shared)(port or SHARED_PORT, default_cache_directory())
        else:
            _run_private(port)
    except LocalRedisError as error:
        fail(str(error))


def _start_shared(port: int, cache: Path) -> None:
    started = start_shared(port, cache)
    verb = "started a server in the background" if started else "a server already answers"
    typer.echo(f"{verb}: redis://127.0.0.1:{port}/0")


def _stop_shared(port: int, cache: Path) -> None:
    typer.echo("stopped" if stop_shared(port, cache) else f"no server runs on port {port}")


def _run_private(port: int | None) -> None:
    with LocalServer(port or None) as server:
        typer.echo(f"{server.url}")
        try:
            code = server.wait()
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    fail(f"the server ended by itself (exit code {code})")
