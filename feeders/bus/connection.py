"""RESP2 over one socket: batches of commands out, their replies back in order, a deadline on both."""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any, cast

import hiredis

from bookbus.schemas.redis_url import RedisServer, TlsOptions, redacted

ReplyError = hiredis.ReplyError
Reply = bytes | int | list[Any] | ReplyError | None
OnReplies = Callable[[list[Reply]], None]

CONNECT_TIMEOUT = 2.0
REPLY_TIMEOUT = 2.0

_NOTHING_YET = object()


class RedisConnectionError(ConnectionError):
    """The connection failed or ended; the message names the server and the cause."""


def pack_command(*arguments: str | bytes | int) -> bytes:
    parts = [b"*%d\r\n" % len(arguments)]
    parts.extend(pack_argument(argument) for argument in arguments)
    return b"".join(parts)


def pack_argument(argument: str | bytes | int) -> bytes:
    data = argument if isinstance(argument, bytes) else str(argument).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


class RespConnection(asyncio.Protocol):
    """One connection, made by `open_connection`."""

    def __init__(self, masked: str, reply_timeout: float) -> None:
        self._masked = masked
        self._reply_timeout = reply_timeout
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(notEnoughData=_NOTHING_YET)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[int, OnReplies]] = deque()
        self._replies: list[Reply] = []
        self._last_progress = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._cause: str | None = None
        self._closed = asyncio.Event()
        self.writable = True
        self.on_writable: Callable[[], None] = _do_nothing

    def send(self, data: bytes, count: int, on_replies: OnReplies) -> None:
        """Write `data`, which holds `count` commands; `on_replies` gets all their replies at once.

        It is not called if the connection ends before the last reply.
        """
        if self._transport is None or self._transport.is_closing():
            return
        if not self._waiting:
            self._last_progress = self._loop.time()
        self._waiting.append((count, on_replies))
        if self._deadline is None:
            self._deadline = self._loop.call_later(self._reply_timeout, self._check_deadline)
        self._transport.write(data)

    async def call(self, *arguments: str | bytes | int) -> Reply:
        """Send one command and return its reply, which may be an error. Raises RedisConnectionError."""
        answer: asyncio.Future[Reply] = self._loop.create_future()

        def set_result(replies: list[Reply]) -> None:
            if not answer.done():
                answer.set_result(replies[0])

        self.send(pack_command(*arguments), 1, set_result)
        closed = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((answer, closed), return_when=asyncio.FIRST_COMPLETED)
        finally:
            closed.cancel()
        if not answer.done():
            raise await self.wait_closed()
        return answer.result()

    def close(self, cause: str = "closed") -> None:
        """Close after everything written is sent."""
        self._set_cause(cause)
        if self._transport is not None:
            self._transport.close()

    def abort(self, cause: str) -> None:
        self._set_cause(cause)
        if self._transport is not None:
            self._transport.abort()

    @property
    def unsent_bytes(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    async def wait_closed(self) -> RedisConnectionError:
        """Wait for the end of this connection. Returns why it ended."""
        await self._closed.wait()
        return RedisConnectionError(f"{self._masked}: {self._cause}")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._last_progress = self._loop.time()
        replies = self._replies
        self._reader.feed(data)
        while (reply := self._next_reply()) is not _NOTHING_YET:
            replies.append(reply)
            if not self._waiting:
                self.abort("sent a reply to no command")
                return
            if len(replies) == self._waiting[0][0]:
                _, on_replies = self._waiting.popleft()
                self._replies = []
                on_replies(replies)
                replies = self._replies
                if self._cause is not None:
                    return

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True
        self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_cause("closed the connection" if exc is None else _reason(exc))
        self._waiting.clear()
        if self._deadline is not None:
            self._deadline.cancel()
        self._closed.set()

    def _next_reply(self) -> Any:
        try:
            return self._reader.gets()
        except (hiredis.ProtocolError, TypeError):  # TypeError: a map or a set with an unhashable key
            self.abort("does not speak the Redis protocol")
            return _NOTHING_YET

    def _check_deadline(self) -> None:
        self._deadline = None
        if not self._waiting:
            return
        left = self._last_progress + self._reply_timeout - self._loop.time()
        if left <= 0:
            self.abort(f"did not answer within {self._reply_timeout:g} s")
        else:
            self._deadline = self._loop.call_later(left, self._check_deadline)

    def _set_cause(self, cause: str) -> None:
        if self._cause is None:
            self._cause = cause


@cache
def tls_context(options: TlsOptions) -> ssl.SSLContext:
    """The context for these options. Raises ValueError if a certificate cannot be read."""
    try:
        context = ssl.create_default_context(cafile=options.ca_file, capath=options.ca_path)
        if options.certificate is not None:
            context.load_cert_chain(options.certificate, options.key)
    except OSError as error:
        raise ValueError(f"cannot read the certificates that the Redis URL names: {error.strerror}") from None
    context.check_hostname = options.check_hostname
    if not options.check_certificate:
        context.verify_mode = ssl.CERT_NONE
    return context


async def open_connection(
    server: RedisServer, *, connect_timeout: float = CONNECT_TIMEOUT, reply_timeout: float = REPLY_TIMEOUT
) -> RespConnection:
    """Connect and log in. Raises RedisConnectionError with one line that names the server."""
    loop = asyncio.get_running_loop()
    tls = tls_context(server.login.tls) if server.login.tls is not None else None

    def make() -> RespConnection:
        return RespConnection(server.masked, reply_timeout)

    try:
        async with asyncio.timeout(connect_timeout):
            if server.path is not None:
                _, connection = await loop.create_unix_connection(make, server.path)
            else:
                _, connection = await loop.create_connection(make, server.host, server.port, ssl=tls)
    except TimeoutError:
        raise RedisConnectionError(f"{server.masked}: no connection within {connect_timeout:g} s") from None
    except OSError as error:
        raise RedisConnectionError(f"{server.masked}: {_reason(error)}") from None
    try:
        await _log_in(connection, server)
    except BaseException:
        connection.abort("login failed")
        raise
    return connection


async def _log_in(connection: RespConnection, server: RedisServer) -> None:
    for command in server.login.commands():
        reply = await connection.call(*command)
        if isinstance(reply, ReplyError):
            # Some servers repeat what they do not understand.
            raise RedisConnectionError(
                f"{server.masked}: refused {command[0]} ({redacted(reply, [server.login.password])})"
            )


def _reason(error: BaseException) -> str:
    if isinstance(error, socket.gaierror):
        return "host name not found"
    if isinstance(error, ssl.SSLError):
        return str(error)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _do_nothing() -> None:
    pass
