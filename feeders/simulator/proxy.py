"""A TCP proxy with network faults: what it forwards can be late, slow, lost or cut, switched while it runs."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from random import Random

import msgspec

from bookbus.feeders.simulator.core.connection import reset

_CHUNK = 64 * 1024
_CHUNKS_UNDER_WAY = 64
"""Chunks read from a sender and not yet delivered; at this number the sender waits."""
_DRIP_INTERVAL = 0.02
_BEFORE_RESET = 0.02
"""Seconds for the first half of a message to arrive before the reset, which would overtake it."""


class Network(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Faults of the network; the defaults have none. Times in seconds."""

    latency: float = 0.0
    """Delay in each direction."""
    jitter: float = 0.0
    """Greatest additional delay, random for each chunk; the order is kept."""
    bytes_a_second: float | None = None
    """Speed of each connection and direction; messages are cut anywhere."""
    half_open: bool = False
    """Connections are accepted and stay open; everything sent is discarded."""
    cut: bool = False
    """Connections end, and none is accepted."""

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
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def __aenter__(self) -> "Proxy":
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop_listening()
        await self._end(self._connections)

    async def change(self, network: Network) -> None:
        """Replace all faults of the network."""
        before, self.network = self.network, network
        if network.cut:
            self._stop_listening()
            await self._end(self._connections)
        elif self._server is None:
            await self._listen()
        if before.half_open and not network.half_open:
            # Discarded bytes are lost: a connection that went on would join parts that do not belong together.
            await self._end(connection for connection in self._connections if connection.has_lost)

    def reset_mid_frame(self) -> None:
        """Each open connection sends half of the next chunk to its client, then a TCP reset."""
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
            await connection.forward(reader, self._target)
        except (OSError, asyncio.CancelledError):
            pass  # either side went away, or the network was cut
        finally:
            self._connections.discard(connection)
            connection.close()


class _Connection:
    """One client and its connection to the target."""

    def __init__(self, proxy: Proxy, task: "asyncio.Task[None]", client: asyncio.StreamWriter) -> None:
        self.task = task
        self.has_lost = False
        """Whether bytes were discarded."""
        self.reset_due = False
        self._proxy = proxy
        self._client = client
        self._upstream: asyncio.StreamWriter | None = None

    async def forward(self, client: asyncio.StreamReader, target: tuple[str, int]) -> None:
        """Forward both ways until either side ends."""
        upstream, self._upstream = await asyncio.open_connection(*target)
        tasks = [
            asyncio.create_task(self._forward_one_way(client, self._upstream)),
            asyncio.create_task(self._forward_one_way(upstream, self._client, to_client=True)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        """Abort both connections."""
        for writer in (self._client, self._upstream):
            if writer is not None:
                writer.transport.abort()

    async def _forward_one_way(
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
                    reset(writer.transport)
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
