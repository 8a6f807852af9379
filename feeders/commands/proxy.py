"""`proxy`: a TCP proxy that adds network faults between a client and Redis or an exchange."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from random import Random
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

import msgspec
import typer

from bookbus.command_line import LogLevel, fail, start_logging
from bookbus.feeders.commands.options import run_until_signal
from bookbus.feeders.simulator.core.connection import reset
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, HttpServer, json_response

_DEFAULT_PORTS = {"redis": 6379, "ws": 80, "http": 80, "wss": 443, "https": 443}
_ENCRYPTED = ("rediss", "wss", "https")


def proxy(
    target: Annotated[str, typer.Argument(help="Address to forward to: HOST:PORT, or a URL.")],
    host: Annotated[str, typer.Option(envvar="BOOKBUS_PROXY_HOST", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(envvar="BOOKBUS_PROXY_PORT", help="For clients; 0 takes a free one.")] = 0,
    control_port: Annotated[
        int, typer.Option(envvar="BOOKBUS_PROXY_CONTROL_PORT", help="For control; 0 takes a free one.")
    ] = 0,
    seed: Annotated[int, typer.Option(envvar="BOOKBUS_SEED", help="The same seed gives the same jitter.")] = 1,
    log_level: LogLevel = "warning",
) -> None:
    """A TCP proxy that adds delay, slowness, loss or cuts, controlled while it runs.

    When it is ready it prints one line of JSON with its addresses; let a feeder or a reader connect there instead.
    Times are in seconds; each POST to /control/network replaces all settings. Ctrl-C stops it.

    \b
      python -m feeders proxy redis://127.0.0.1:6379/0 --port 6390 --control-port 6391
      curl -d '{"latency":0.1,"jitter":0.05}' 127.0.0.1:6391/control/network     delay, each way
      curl -d '{"bytes_a_second":20000}' 127.0.0.1:6391/control/network          slow drip
      curl -d '{"half_open":true}' 127.0.0.1:6391/control/network                accepts, and discards everything
      curl -d '{"cut":true}' 127.0.0.1:6391/control/network                      ends connections, accepts none
      curl -d '{}' 127.0.0.1:6391/control/network                                no faults
      curl -X POST 127.0.0.1:6391/control/reset                                  half a message, then a TCP reset
      curl 127.0.0.1:6391/control/network                                        the settings now
    """
    start_logging(log_level)
    url = _target(target)
    try:
        run_until_signal(_serve(url, host, port, control_port, seed))
    except OSError as error:
        fail(f"cannot listen on {host}: {error.strerror or error}")


def _target(text: str) -> SplitResult:
    """Parse a target; the result has a host and a port. Ends the program with an error if it is not valid."""
    url = urlsplit(text if "://" in text else f"tcp://{text}")
    try:
        port = url.port or _DEFAULT_PORTS.get(url.scheme)
    except ValueError as error:
        fail(f"{text}: {error}")
    if not url.hostname or port is None:
        fail(f"{text}: name the target as HOST:PORT or as a URL, for example redis://127.0.0.1:6379/0")
    if url.scheme in _ENCRYPTED:
        fail(f"{text}: an encrypted connection would be refused here, for its certificate names another host")
    return url._replace(netloc=f"{url.hostname}:{port}")


async def _serve(url: SplitResult, host: str, port: int, control_port: int, seed: int) -> None:
    assert url.hostname is not None and url.port is not None  # noqa: S101, PT018 - checked before
    async with Proxy(url.hostname, url.port, host=host, port=port, seed=seed) as forwarding:
        control = HttpServer(_Control(forwarding).answer)
        control_port = await control.start(host, control_port)
        try:
            ready = {"address": f"{host}:{forwarding.port}", "control_url": f"http://{host}:{control_port}"}
            if url.scheme != "tcp":
                ready["url"] = url._replace(netloc=ready["address"]).geturl()
            typer.echo(msgspec.json.encode(ready).decode())
            await asyncio.Event().wait()
        finally:
            await control.close()


class _Control:
    """The HTTP endpoint that controls one proxy."""

    def __init__(self, proxy: "Proxy") -> None:
        self._proxy = proxy

    async def answer(self, request: HttpRequest) -> HttpResponse:
        match request.method, request.path:
            case "GET", "/control/network":
                return json_response({"network": self._proxy.network, "connects": self._proxy.connects})
            case "POST", "/control/network":
                try:
                    await self._proxy.change(msgspec.json.decode(request.body, type=Network))
                except (ValueError, msgspec.MsgspecError) as error:
                    return json_response({"error": str(error)}, 400)
                return json_response({"ok": True})
            case "POST", "/control/reset":
                self._proxy.reset_mid_frame()
                return json_response({"ok": True})
        return json_response({"error": "known: GET and POST /control/network, POST /control/reset"}, 404)


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
