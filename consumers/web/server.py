"""The HTTP server: JSON of the bus, a WebSocket that sends what changed, and the page that shows it.

It only reads. Requests that another site makes through the user's browser are refused by Host and Origin.
"""

import asyncio
import hmac
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from bookbus import __version__
from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.redis_provider import ALL, RedisMarketDataProvider
from bookbus.consumers.web.bus import FeederRow, read_feeders, read_readers
from bookbus.consumers.web.view import SAMPLE_INTERVAL, BookRow, BusView, changes
from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.redis_names import DEFAULT_PREFIX, RedisNames

logger = logging.getLogger(__name__)

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_FEEDERS_INTERVAL = 1.0
_READERS_INTERVAL = 3.0
_MOST_STREAMS = 50
_MOST_MESSAGE = 4096
_SEND_LIMIT = 5.0
_COOKIE = "bookbus_token"

_PAGE = {
    "/": ("index.html", "text/html"),
    "/app.js": ("app.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
}

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

_encode = msgspec.json.Encoder().encode


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`exchanges` are the ids whose books are shown. With `token` every request must carry it; `page` is whether the
    page is served beside the interface."""

    redis: str
    prefix: str = DEFAULT_PREFIX
    exchanges: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 8300
    token: str = ""
    page: bool = True


class BusServer:
    """Serves one bus until `stop`."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError for an invalid address, prefix or exchange."""
        self.settings = settings
        self.names = RedisNames.on(settings.redis, settings.prefix)
        self.providers = {
            exchange: RedisMarketDataProvider(settings.redis, exchange, ALL, prefix=settings.prefix)
            for exchange in settings.exchanges
        }
        self.view = BusView(self.providers)
        self.rows: list[BookRow] = []
        self.at = 0.0
        self.feeders: list[FeederRow] = []
        self.feeders_error = ""
        self.error = ""
        """Why the bus cannot be read; empty if it can."""
        self._start_error = ""
        self.port = settings.port
        self._streams: set[web.WebSocketResponse] = set()
        self._sampled = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._readers_read: tuple[float, bytes] = (0.0, b"")

    async def start(self) -> None:
        """Listen, and read the bus. Raises OSError if the port is taken."""
        self._runner = web.AppRunner(self._application(), access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.settings.host, self.settings.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._tasks = [asyncio.create_task(self._connect()), asyncio.create_task(self._sample())]
        self._tasks.append(asyncio.create_task(self._follow_feeders()))

    async def run(self) -> None:
        """Until it is cancelled; raises what no part of it expected."""
        await asyncio.gather(*self._tasks)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in list(self._streams):
            with suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(stream.close(code=WSCloseCode.GOING_AWAY), 1.0)
        if self._runner is not None:
            await self._runner.cleanup()
        for provider in self.providers.values():
            await provider.astop()

    # reading the bus

    async def _connect(self) -> None:
        """Start every provider, again and again until the server is there."""
        waiting = list(self.providers.values())
        while waiting:
            for provider in list(waiting):
                try:
                    await provider.astart()
                except BusConnectionError as error:
                    self._start_error = str(error)
                else:
                    self._start_error = ""
                    waiting.remove(provider)
            await asyncio.sleep(_FEEDERS_INTERVAL)

    async def _sample(self) -> None:
        next_look = 0.0
        while True:
            self.rows, self.at = self.view.sample(), time.time()
            if self.at >= next_look or self.at < next_look - 2 * _FEEDERS_INTERVAL:
                next_look = self.at + _FEEDERS_INTERVAL
                self.error = self._find_error()
            self._sampled.set()
            self._sampled.clear()
            await asyncio.sleep(SAMPLE_INTERVAL)

    async def _follow_feeders(self) -> None:
        """Ask for the heartbeats of the feeders that were heard, while somebody looks."""
        while True:
            if self._streams:
                await self._read_feeders()
            await asyncio.sleep(_FEEDERS_INTERVAL)

    async def _read_feeders(self) -> None:
        heard = {name for provider in self.providers.values() for name in provider.feeders()}
        try:
            self.feeders = await asyncio.to_thread(read_feeders, self.settings.redis, self.names, heard)
            self.feeders_error = ""
        except BusConnectionError as error:
            self.feeders, self.feeders_error = [], str(error)

    # requests

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._guard], client_max_size=_MOST_MESSAGE)
        application.router.add_get("/api/health", self._get_health)
        application.router.add_get("/api/books", self._get_books)
        application.router.add_get("/api/books/{exchange}/{symbol}", self._get_book)
        application.router.add_get("/api/events", self._get_events)
        application.router.add_get("/api/feeders", self._get_feeders)
        application.router.add_get("/api/readers", self._get_readers)
        application.router.add_get("/api/stream", self._stream)
        if self.settings.page:
            for path in _PAGE:
                application.router.add_get(path, _get_file)
        return application

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if refused := self._refused(request):
            return _answer({"error": refused}, 403)
        token = self.settings.token
        given = self._given_token(request)
        if token and not hmac.compare_digest(given.encode(), token.encode()):
            return _answer({"error": "give the token: Authorization: Bearer TOKEN, or ?token=TOKEN once"}, 401)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            response = _answer({"error": error.reason}, error.status)
        if token and "token" in request.query and not response.prepared:
            response.set_cookie(_COOKIE, token, httponly=True, samesite="Strict", path="/")
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    def _refused(self, request: web.Request) -> str:
        """Why the request does not come from a page of this server; empty if it may."""
        host = urlsplit(f"//{request.host}").hostname or ""
        own = {self.settings.host, *(_LOOPBACK if self.settings.host in _LOOPBACK else ())}
        if self.settings.host in _LOOPBACK and host not in own:
            return f"this server answers on {self.settings.host} alone"
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            return "requests of other sites are refused"
        return ""

    def _given_token(self, request: web.Request) -> str:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return bearer.strip()
        return request.query.get("token") or request.cookies.get(_COOKIE, "")

    async def _get_health(self, _: web.Request) -> web.Response:
        errors = {name: provider.get_connection_status().error for name, provider in self.providers.items()}
        live = sum(row.urgency == 0 for row in self.rows)
        wrong = {name: error for name, error in errors.items() if error}
        body = {"version": __version__, "books": len(self.rows), "live": live, "errors": wrong}
        return _answer(body, 503 if wrong else 200)

    async def _get_books(self, _: web.Request) -> web.Response:
        return _answer({"at": self.at, "books": self.rows})

    async def _get_book(self, request: web.Request) -> web.Response:
        exchange, symbol = request.match_info["exchange"], request.match_info["symbol"]
        try:
            book = self.view.book(exchange, symbol)
        except SymbolError as error:
            return _answer({"error": str(error)}, 404)
        if book is None:
            known = ", ".join(self.providers)
            return _answer({"error": f"no book {symbol} of {exchange} is on the bus; exchanges: {known}"}, 404)
        return _answer(book)

    async def _get_events(self, _: web.Request) -> web.Response:
        return _answer(list(self.view.events))

    async def _get_feeders(self, _: web.Request) -> web.Response:
        await self._read_feeders()
        if self.feeders_error:
            return _answer({"error": self.feeders_error}, 503)
        return _answer(self.feeders)

    async def _get_readers(self, _: web.Request) -> web.Response:
        at, body = self._readers_read
        if time.monotonic() - at > _READERS_INTERVAL or not body:
            try:
                body = _encode(await asyncio.to_thread(read_readers, self.settings.redis, self.names))
            except BusConnectionError as error:
                return _answer({"error": str(error)}, 503)
            self._readers_read = time.monotonic(), body
        return web.Response(body=body, content_type="application/json")

    # the stream

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """All rows first, then those that changed, a few times a second; `{"open": "binance:BTC-USDT"}` also asks for
        one book in full with each message."""
        if len(self._streams) >= _MOST_STREAMS:
            return _answer({"error": f"{_MOST_STREAMS} streams are open"}, 503)
        stream = web.WebSocketResponse(heartbeat=5.0, max_msg_size=_MOST_MESSAGE, compress=True, timeout=1.0)
        await stream.prepare(request)
        self._streams.add(stream)
        wanted = _Wanted()
        reading = asyncio.create_task(wanted.read(stream))
        sending = asyncio.create_task(self._send(stream, wanted))
        try:
            await asyncio.wait((reading, sending), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.discard(stream)
            for task in (reading, sending):
                task.cancel()
            await asyncio.gather(reading, sending, return_exceptions=True)
            await stream.close()
        return stream

    async def _send(self, stream: web.WebSocketResponse, wanted: "_Wanted") -> None:
        sent: dict[tuple[str, str], BookRow] = {}
        first = True
        events = 0.0
        while True:
            rows = self.rows
            now = {(row.exchange, row.symbol): row for row in rows}
            message: dict[str, Any] = {"at": self.at, "books": changes(sent, rows), "feeders": self.feeders}
            message["gone"] = [f"{exchange}:{symbol}" for exchange, symbol in sent.keys() - now.keys()]
            message["error"] = self.error
            message["events"] = [event for event in list(self.view.events) if event.at > events]
            if message["events"]:
                events = message["events"][-1].at
            if first:
                message["version"], first = __version__, False
            if wanted.book:
                with suppress(SymbolError):
                    message["book"] = self.view.book(*wanted.book)
            sent = now
            # A page that takes nothing for so long is gone; others are not held up.
            await asyncio.wait_for(stream.send_str(_encode(message).decode()), _SEND_LIMIT)
            await self._sampled.wait()

    def _find_error(self) -> str:
        states = [provider.get_connection_status() for provider in self.providers.values()]
        return self._start_error or next((state.error for state in states if state.is_running and state.error), "")


class _Wanted:
    """The book whose ladder a page shows now."""

    def __init__(self) -> None:
        self.book: tuple[str, str] | None = None

    async def read(self, stream: web.WebSocketResponse) -> None:
        async for message in stream:
            if message.type is not WSMsgType.TEXT:
                continue
            try:
                request = msgspec.json.decode(message.data, type=dict[str, str])
            except msgspec.MsgspecError:
                continue
            exchange, _, symbol = request.get("open", "").partition(":")
            self.book = (exchange, symbol) if exchange and symbol else None


async def _get_file(request: web.Request) -> web.Response:
    name, content_type = _PAGE[request.path]
    body = files("bookbus.consumers.web").joinpath("static", name).read_bytes()
    return web.Response(body=body, content_type=content_type, charset="utf-8")


def _answer(body: Any, status: int = 200) -> web.Response:
    return web.Response(body=_encode(body), status=status, content_type="application/json", headers=_HEADERS)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[BusServer]:
    """A running server. Raises ValueError for invalid settings, OSError if the port is taken."""
    server = BusServer(settings)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


def address(server: BusServer) -> str:
    """The address to open in a browser, with the token if there is one."""
    host = server.settings.host
    shown = f"[{host}]" if ":" in host else host
    token = f"?token={server.settings.token}" if server.settings.token else ""
    return f"http://{shown}:{server.port}/{token}"
