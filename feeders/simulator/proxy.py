"""A TCP proxy that is a bad network: what passes it can be late, slow, lost or cut, as asked for while it runs."""

import asyncio
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from random import Random

import msgspec

_CHUNK = 64 * 1024
_CHUNKS_UNDER_WAY = 64
"""So much is taken from a sender before the receiver got it; then the sender has to wait."""
_DRIP_INTERVAL = 0.02
_BEFORE_RESET = 0.02
"""Seconds for the first half of a message to arrive before the reset, which would overtake it."""


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the way is like; the defaults are a good one. Seconds."""

    latency: float = 0.0
    """Added each way."""
    jitter: float = 0.0
    """At most so much more, drawn for each piece; order is kept."""
    bytes_a_second: float | None = None
    """Slow drip: each connection and direction gets no more through, in pieces cut anywhere."""
    half_open: bool = False
    """Connections are accepted and stay open; whatever is sent is swallowed."""
    cut: bool = False
    """Connections end, and nobody listens."""

    def __post_init__(self) -> None:
        if self.latency < 0 or self.jitter < 0 or (self.bytes_a_second is not None and self.bytes_a_second <= 0):
            raise ValueError("latency and jitter cannot be below zero, bytes_a_second must be above it")


GOOD = Network()


class Proxy:
    """`async with Proxy("127.0.0.1", 6379) as proxy:` — clients connect to `proxy.port`."""

    def __init__(self, target_host: str, target_port: int, *, host: str = "127.0.0.1", port: int = 0, seed: int = 1):
        self._target = (target_host, target_port)
        self._host = host
        self.port = port
        self.network = GOOD
        self.rng = Random(seed)  # noqa: S311 - the same seed gives the same delays
        self.connects = 0
        """Connections accepted so far."""
        self.resets_wanted = 0
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def __aenter__(self) -> "Proxy":
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop_listening()
        await self._end(self._connections)

    async def change(self, network: Network) -> None:
        """Be like this from now on."""
        before, self.network = self.network, network
        if network.cut:
            self._stop_listening()
            await self._end(self._connections)
        elif self._server is None:
            await self._listen()
        if before.half_open and not network.half_open:
            # What was swallowed does not come back: going on would join what never belonged together.
            await self._end(connection for connection in self._connections if connection.has_lost)

    def reset_mid_frame(self) -> None:
        """Each open connection gets half of the next piece to its client, then a TCP reset."""
        for connection in self._connections:
            connection.reset_due = True

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, self._host, self.port)
        self.port = int(self._server.sockets[0].getsockname()[1])

    def _stop_listening(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()

    async def _end(self, connections: "Iterable[_Connection]") -> None:
        tasks = [connection.task for connection in connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        self.connects += 1
        connection = _Connection(self, task, writer)
        self._connections.add(connection)
        try:
            await connection.carry(reader, self._target)
        except (OSError, asyncio.CancelledError):
            pass  # either end went away, or the way was cut
        finally:
            self._connections.discard(connection)
            connection.close()


class _Connection:
    """One client and its connection to the target."""

    def __init__(self, proxy: Proxy, task: "asyncio.Task[None]", client: asyncio.StreamWriter) -> None:
        self.task = task
        self.has_lost = False
        """Whether something sent was swallowed."""
        self.reset_due = False
        self._proxy = proxy
        self._client = client
        self._upstream: asyncio.StreamWriter | None = None

    async def carry(self, client: asyncio.StreamReader, target: tuple[str, int]) -> None:
        """Until either side ends."""
        upstream, self._upstream = await asyncio.open_connection(*target)
        ways = [
            asyncio.create_task(self._carry_one_way(client, self._upstream)),
            asyncio.create_task(self._carry_one_way(upstream, self._client, to_client=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    def close(self) -> None:
        """End both connections at once."""
        for writer in (self._client, self._upstream):
            if writer is not None:
                writer.transport.abort()

    async def _carry_one_way(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_client: bool = False
    ) -> None:
        loop = asyncio.get_running_loop()
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_UNDER_WAY)
        delivering = asyncio.create_task(self._deliver(under_way, writer))
        due = 0.0
        try:
            while data := await reader.read(_CHUNK):
                network = self._proxy.network
                if network.half_open:
                    self.has_lost = True
                    continue
                if to_client and self.reset_due:
                    writer.write(data[: len(data) // 2])
                    await asyncio.sleep(_BEFORE_RESET)
                    _reset(writer)
                    return
                delay = network.latency + self._proxy.rng.uniform(0.0, network.jitter)
                due = max(due, loop.time() + delay)
                await under_way.put((due, data))
            await under_way.join()
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    async def _deliver(self, under_way: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await under_way.get()
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            with suppress(OSError):
                await self._write(data, writer)
            under_way.task_done()

    async def _write(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        while data:
            speed = self._proxy.network.bytes_a_second
            portion = len(data) if speed is None else max(1, int(speed * _DRIP_INTERVAL))
            writer.write(data[:portion])
            await writer.drain()
            data = data[portion:]
            if speed is not None:
                await asyncio.sleep(_DRIP_INTERVAL)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End with a TCP reset."""
    raw: socket.socket = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
