"""A small HTTP/1.1 server with answers that can be broken on purpose, and the base of the exchanges' REST APIs."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http import HTTPStatus
from typing import Generic, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec

from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.settings import SimulatorSettings

_MAXIMUM_HEAD = 64 * 1024
_MAXIMUM_BODY = 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    client: str
    headers: dict[str, str] = field(default_factory=dict)
    """By name in lower case."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """`hang` drops the connection after so many seconds without an answer; `cut` sends half the body."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json;charset=UTF-8"
    hang: float | None = None
    cut: bool = False


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(status, msgspec.json.encode(value), headers or {})


class HttpServer:
    """Serves `handler` until closed."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen. Returns the port."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=_MAXIMUM_HEAD)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self._connections.add(task)
        try:
            client = writer.get_extra_info("peername")[0]
            while await self._answer_one(reader, writer, client):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass  # the client went away, or does not speak HTTP
        except asyncio.CancelledError:
            pass  # closing
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: str) -> bool:
        """Answer one request. Returns whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = request_line.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", "0"))
        if not 0 <= length <= _MAXIMUM_BODY:
            raise ValueError(f"a body of {length} bytes")
        body = await reader.readexactly(length)
        url = urlsplit(target)
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        response = await self._handler(HttpRequest(method, url.path, query, body, client, headers))
        keep = headers.get("connection", "").lower() != "close" and response.hang is None and not response.cut
        if response.hang is not None:
            await asyncio.sleep(response.hang)
            writer.transport.abort()
            return False
        writer.write(_encode(response, keep))
        await writer.drain()
        return keep


def _encode(response: HttpResponse, keep: bool) -> bytes:
    try:
        phrase = HTTPStatus(response.status).phrase
    except ValueError:
        phrase = "Unknown"
    headers = {
        "Content-Type": response.content_type,
        "Content-Length": str(len(response.body)),
        "Date": formatdate(usegmt=True),
        "Connection": "keep-alive" if keep else "close",
        **response.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = response.body[: len(response.body) // 2] if response.cut else response.body
    return f"HTTP/1.1 {response.status} {phrase}\r\n{lines}\r\n".encode("latin-1") + body


MarketT = TypeVar("MarketT")

_HANG = 60.0
"""Seconds without an answer, unless the fault says how many."""


class ApiError(Exception):
    """A request that is answered with an error of the exchange."""

    def __init__(self, status: int, code: str | int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class RestApi(ABC, Generic[MarketT]):
    """The public requests of an exchange, with the faults that happen to them."""

    def __init__(self, settings: SimulatorSettings, markets: Mapping[str, MarketT], faults: FaultBoard) -> None:
        self._markets = markets
        self._faults = faults
        self._delay = settings.rest_delay
        self._statuses: Counter[int] = Counter()

    @abstractmethod
    def _respond(self, request: HttpRequest) -> HttpResponse:
        """The answer to a request without a fault."""

    @abstractmethod
    def _faulty_status(self, fault: Fault) -> HttpResponse:
        """The answer with the status that the fault names."""

    def status(self) -> dict[str, object]:
        """How many answers had which status."""
        return {"rest_statuses": {str(status): count for status, count in self._statuses.items()}}

    async def answer(self, request: HttpRequest) -> HttpResponse:
        response = await self._respond_with_faults(request, request.query.get("symbol", ""))
        self._statuses[response.status] += 1
        return response

    async def _respond_with_faults(self, request: HttpRequest, symbol: str) -> HttpResponse:
        if fault := self._faults.match("rest_timeout", symbol=symbol):
            return HttpResponse(0, hang=fault.number(_HANG))
        if fault := self._faults.match("rest_status", symbol=symbol):
            return self._faulty_status(fault)
        response = self._respond(request)
        delay = self._delay
        if fault := self._faults.match("rest_delay", symbol=symbol):
            delay += fault.number(1.0)
        if delay:
            await asyncio.sleep(delay)
        if self._faults.match("rest_truncated", symbol=symbol):
            return replace(response, cut=True)
        return response
