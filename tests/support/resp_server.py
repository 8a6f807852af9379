"""A RESP2 server whose replies a test controls: from fakeredis, errors, or none."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import fakeredis
import hiredis
import redis

Command = list[bytes]
Answer = Callable[[Command], Any]


class RespServer:
    """Listens on a Unix socket. `answer` returns the reply; an exception returned or raised is an error reply."""

    def __init__(self, path: Path, answer: Answer | None = None) -> None:
        self.path = path
        self.redis = fakeredis.FakeRedis(server=fakeredis.FakeServer())
        self.answer: Answer = answer or self.answer_by_fakeredis
        self.commands: list[Command] = []
        self.connections = 0
        self.answering = asyncio.Event()
        """Cleared, the server hangs: it accepts commands and does not reply."""
        self.answering.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        """Stop listening and close all connections."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.drop()

    def drop(self) -> None:
        """Close every connection."""
        for writer in self._writers:
            writer.transport.abort()

    def calls(self, name: bytes) -> list[Command]:
        """The commands of this name so far."""
        return [command for command in self.commands if command[0] == name]

    def answer_by_fakeredis(self, command: Command) -> Any:
        try:
            return self.redis.execute_command(*command)  # type: ignore[no-untyped-call]
        except redis.exceptions.NoScriptError:
            return redis.ResponseError("NOSCRIPT No matching script.")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        parser = hiredis.Reader(notEnoughData=None)
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                parser.feed(data)
                replies = []
                while (command := parser.gets()) is not None:
                    assert isinstance(command, list)
                    self.commands.append(command)
                    replies.append(_packed(self._reply(command)))
                await self.answering.wait()
                writer.write(b"".join(replies))
        self._writers.discard(writer)
        writer.close()

    def _reply(self, command: Command) -> Any:
        try:
            return self.answer(command)
        except redis.RedisError as error:
            return error


@asynccontextmanager
async def resp_server(directory: Path, answer: Answer | None = None) -> AsyncIterator[RespServer]:
    """A server for one test."""
    server = RespServer(directory / "redis.sock", answer)
    await server.start()
    try:
        yield server
    finally:
        server.answering.set()
        await server.stop()


@asynccontextmanager
async def in_background(work: Awaitable[None]) -> AsyncIterator["asyncio.Task[None]"]:
    """Runs `work` during the block and cancels it at the end; raises its failure."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _packed(reply: Any) -> bytes:
    match reply:
        case None:
            return b"$-1\r\n"
        case bool() | int():
            return b":%d\r\n" % reply
        case Exception():
            return f"-{reply}\r\n".encode()
        case str():
            return f"+{reply}\r\n".encode()
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case list():
            return b"*%d\r\n" % len(reply) + b"".join(map(_packed, reply))
    raise TypeError(f"no reply can be made of {reply!r}")
