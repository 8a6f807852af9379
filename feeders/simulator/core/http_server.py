"""A small HTTP/1.1 server: requests with a body, keep-alive, and answers that can be broken on purpose."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import parse_qsl, urlsplit

import msgspec

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
