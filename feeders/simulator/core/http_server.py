"""A small HTTP/1.1 server: requests with a body, keep-alive, and answers that can be broken on purpose."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qsl, urlsplit

import msgspec

from bookbus.feeders.simulator.core.faults import Fault, FaultBoard, FaultError
from bookbus.feeders.simulator.core.feed import BookAt
from bookbus.feeders.simulator.core.market import SimulatedInstrument

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
    """What to answer. `hang` seconds pass without an answer, then the connection drops; `cut` sends half the body."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "application/json;charset=UTF-8"
    hang: float | None = None
    cut: bool = False


Handler = Callable[[HttpRequest], Awaitable[HttpResponse]]


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> HttpResponse:
    """An answer that carries `value` as JSON."""
    return HttpResponse(status, msgspec.json.encode(value), headers or {})


class HttpServer:
    """Serves `handler` until closed."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port."""
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
        """Whether the connection stays open."""
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
        "Connection": "keep-alive" if keep else "close",
        **response.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = response.body[: len(response.body) // 2] if response.cut else response.body
    return f"HTTP/1.1 {response.status} {phrase}\r\n{lines}\r\n".encode("latin-1") + body


_HANG = 60.0


class VenueRest(ABC):
    """A venue says what it answers, and how it refuses."""

    def __init__(self, faults: FaultBoard, delay: float) -> None:
        """`delay`: seconds between taking an answer from the books and sending it."""
        self._faults = faults
        self._delay = delay
        self.statuses: Counter[int] = Counter()

    @abstractmethod
    def _respond(self, request: HttpRequest) -> HttpResponse:
        """The answer when nothing goes wrong."""

    @abstractmethod
    def _faulty_status(self, fault: Fault) -> HttpResponse:
        """The answer to a request that fails with the status the fault names."""

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """One request, faults included."""
        response = await self._spoiled(request, request.query.get("symbol", ""))
        self.statuses[response.status] += 1
        return response

    async def _spoiled(self, request: HttpRequest, symbol: str) -> HttpResponse:
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


class Controlled(Protocol):
    """What the endpoint acts on."""

    def inject(self, fault: Fault) -> None:
        """Play a fault. Raises FaultError."""

    def clear(self) -> None:
        """End all faults that last or wait."""

    def status(self) -> dict[str, object]:
        """Connections, counts, what has been played."""

    def book_at(self, symbol: str, update_id: int) -> BookAt | None:
        """The true book. Raises KeyError for an unknown symbol."""

    def known_ids(self, symbol: str, since: int) -> list[int]:
        """Ids whose true book is remembered. Raises KeyError for an unknown symbol."""

    def instrument(self, symbol: str) -> SimulatedInstrument:
        """Raises KeyError for an unknown symbol."""


_decode_fault = msgspec.json.Decoder(Fault).decode


def answer_control(exchange: Controlled, request: HttpRequest) -> HttpResponse:
    """One request to `/control/…`."""
    try:
        match request.method, request.path:
            case "GET", "/control/status":
                return json_response(exchange.status())
            case "GET", "/control/truth":
                return _truth(exchange, request.query)
            case "POST", "/control/fault":
                exchange.inject(_decode_fault(request.body))
                return json_response({"ok": True})
            case "POST", "/control/clear":
                exchange.clear()
                return json_response({"ok": True})
    except KeyError as error:
        return _error(404, f"unknown symbol or missing parameter: {error}")
    except (FaultError, ValueError, msgspec.MsgspecError) as error:
        return _error(400, str(error))
    return _error(404, "known: GET /control/status, GET /control/truth, POST /control/fault, POST /control/clear")


def _truth(exchange: Controlled, query: dict[str, str]) -> HttpResponse:
    """`symbol` and `update_id` for one book; `symbol` and `since` for all from that id on, up to `until` if given."""
    symbol = query["symbol"]
    instrument = exchange.instrument(symbol)
    depth = int(query["depth"]) if "depth" in query else None
    if "since" in query:
        known = exchange.known_ids(symbol, int(query["since"]))
        if "until" in query:
            known = [each for each in known if each <= int(query["until"])]
        found = (exchange.book_at(symbol, each) for each in known)
        return json_response({"symbol": symbol, "books": [_book(instrument, book, depth) for book in found if book]})
    book = exchange.book_at(symbol, int(query["update_id"]))
    if book is None:
        return _error(404, f"the book of {symbol} at {query['update_id']} is not known, or forgotten")
    return json_response({"symbol": symbol} | _book(instrument, book, depth))


def _book(instrument: SimulatedInstrument, book: BookAt, depth: int | None) -> dict[str, object]:
    def side(levels: list[tuple[int, int]]) -> list[tuple[str, str]]:
        return [(instrument.price_text(ticks), instrument.quantity_text(steps)) for ticks, steps in levels[:depth]]

    return {"update_id": book.update_id, "bids": side(book.bids), "asks": side(book.asks)}


def _error(status: int, message: str) -> HttpResponse:
    return json_response({"error": message}, status)
