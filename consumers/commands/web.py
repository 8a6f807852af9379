"""`web` and `serve`: the live page, and the JSON and WebSocket interface that it uses."""

import asyncio
import webbrowser
from typing import Annotated

import typer

from bookbus.command_line import (
    PREFIX_DEFAULT,
    REDIS_DEFAULT,
    LogLevel,
    Prefix,
    RedisUrl,
    ended_by_signal,
    fail,
    split_names,
    start_logging,
)
from bookbus.consumers.web.server import Settings, address, serving
from bookbus.schemas.instruments import EXCHANGES

Exchanges = Annotated[str, typer.Option(envvar="BOOKBUS_EXCHANGES", help="Exchange ids whose books are shown.")]
Host = Annotated[
    str, typer.Option(envvar="BOOKBUS_WEB_HOST", help="Address to listen on; another than loopback needs a token.")
]
Port = Annotated[int, typer.Option(envvar="BOOKBUS_WEB_PORT", min=0, max=65535, help="Port; 0 takes a free one.")]
Token = Annotated[
    str, typer.Option(envvar="BOOKBUS_WEB_TOKEN", help="Every request must carry it; nothing is asked without one.")
]

_EXCHANGES = ",".join(EXCHANGES)
_PORT = 8300
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def web(
    exchanges: Exchanges = _EXCHANGES,
    host: Host = "127.0.0.1",
    port: Port = _PORT,
    token: Token = "",
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    log_level: LogLevel = "warning",
) -> None:
    """The live page: every book with its state, its ladder and history, feeders and readers, until Ctrl-C.

    It only reads. It listens on this machine alone unless --host names another address, which needs --token.

    \b
      python -m consumers web
      python -m consumers web --open --port 8400
      python -m consumers web --redis redis://viewer@10.0.0.5:6379/0
    """
    _run(
        Settings(redis=redis, prefix=prefix, exchanges=_named(exchanges), host=host, port=port, token=token),
        open_page,
        log_level,
    )


def serve(
    exchanges: Exchanges = _EXCHANGES,
    host: Host = "127.0.0.1",
    port: Port = _PORT,
    token: Token = "",
    redis: RedisUrl = REDIS_DEFAULT,
    prefix: Prefix = PREFIX_DEFAULT,
    log_level: LogLevel = "warning",
) -> None:
    """The same interface without the page: books, feeders and readers as JSON, for programs in any language.

    \b
      python -m consumers serve
      curl -s http://127.0.0.1:8300/api/books/binance/BTC-USDT
      python -m consumers serve --host 0.0.0.0 --token SECRET
    """
    settings = Settings(
        redis=redis, prefix=prefix, exchanges=_named(exchanges), host=host, port=port, token=token, page=False
    )
    _run(settings, False, log_level)


def _run(settings: Settings, open_page: bool, log_level: str) -> None:
    start_logging(log_level)
    if settings.host not in _LOOPBACK and not settings.token:
        fail(f"--host {settings.host} shows the books to others: give a --token, or BOOKBUS_WEB_TOKEN")
    try:
        with ended_by_signal():
            asyncio.run(_serve(settings, open_page))
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}; choose another --port")


async def _serve(settings: Settings, open_page: bool) -> None:
    async with serving(settings) as server:
        url = address(server)
        typer.echo(f"{'page' if settings.page else 'interface'}: {url if settings.page else url + 'api/books'}")
        if open_page:
            webbrowser.open(url)
        await server.run()


def _named(exchanges: str) -> tuple[str, ...]:
    named = split_names(exchanges) or fail("--exchanges names nothing")
    if unknown := [name for name in named if name not in EXCHANGES]:
        fail(f"unknown exchange {', '.join(unknown)}: use {', '.join(EXCHANGES)}")
    return named
