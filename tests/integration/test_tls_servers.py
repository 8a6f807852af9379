"""Books over TLS where the bus is several servers: none of them has a plain port, and each has to prove who it is."""

import asyncio
import shutil
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.__main__ import make_app
from bookbus.feeders.bus.publisher import Publisher
from bookbus.schemas.redis_names import RedisNames
from tests.support.server_fleet import BINARY, MakeServer, cluster, place, replicated, watched
from tests.support.tls_server import TlsServer, make_certificates
from tests.support.waiting import await_for, wait_for
from tests.support.watched_bus import SYMBOLS, watched_bus

app = make_app()

SERVER = BINARY or shutil.which("redis-server")
# How servers note that a client did not get in, and that it spoke without TLS.
NOT_IN = "Error accepting a client connection"
WITHOUT_TLS = "wrong version number"

pytestmark = pytest.mark.skipif(
    SERVER is None, reason="the embedded server has no TLS; this needs redis-server on PATH"
)


@dataclass(frozen=True)
class Bus:
    """Running servers, and their addresses for feeders and readers."""

    servers: list[TlsServer]
    own: Path
    """The authority that vouches for the servers."""
    other: Path
    """One that has another one's word."""
    write_to: str
    read_from: str

    def feeder(self, authority: Path) -> str:
        """The URL of a feeder that trusts this authority."""
        return f"{self.write_to}?ssl_ca_certs={authority}"

    def reader(self, authority: Path) -> str:
        """The URL of a reader that trusts this authority."""
        return f"{self.read_from}?ssl_ca_certs={authority}"

    @property
    def logs(self) -> str:
        """What the servers said so far."""
        return "".join(server.log for server in self.servers)


@pytest.fixture(scope="module", params=["replicas", "sentinel", "cluster"])
def bus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    """Each kind of bus, over TLS alone."""
    assert SERVER is not None
    own, other = (make_certificates(tmp_path_factory.mktemp("tls") / name, "IP:127.0.0.1") for name in "ab")
    made: list[TlsServer] = []

    def make(options: Sequence[str] = (), configuration: str | None = None) -> TlsServer:
        made.append(TlsServer(own, Path(SERVER), options=options, configuration=configuration))
        return made[-1]

    with _urls(request.param, make) as (write_to, read_from):
        yield Bus(made, own / "ca.crt", other / "ca.crt", write_to, read_from)


@contextmanager
def _urls(kind: str, make: MakeServer) -> Iterator[tuple[str, str]]:
    """Servers of this kind, and without options where to write and where to read."""
    if kind == "replicas":
        with replicated(make=make) as servers:
            primary, replica = map(place, servers.servers)
            yield f"rediss://{primary}/0", f"rediss://{replica},{primary}/0"
    else:
        with watched(make=make) if kind == "sentinel" else cluster(2, make) as fleet:
            url = fleet.url.replace("redis+", "rediss+")
            yield url, url


async def test_books_go_over_tls_to_every_server(bus: Bus) -> None:
    async with watched_bus(bus.feeder(bus.own), bus.reader(bus.own)) as live:
        assert live.all_right_and_live()


def test_readers_refuse_servers_of_another_authority_in_one_line(bus: Bus) -> None:
    provider = RedisMarketDataProvider(bus.reader(bus.other), "binance", SYMBOLS)

    with _nobody_gets_in(bus), pytest.raises(BusConnectionError) as refusal:
        provider.start()

    assert "certificate" in str(refusal.value).lower()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("command", [["run", "--symbols", "BTC"], ["health"]], ids=lambda command: str(command[0]))
def test_feeders_refuse_servers_of_another_authority_in_one_line(bus: Bus, command: list[str]) -> None:
    with _nobody_gets_in(bus):
        result = CliRunner().invoke(app, [*command, "--redis", bus.feeder(bus.other)])

    assert result.exit_code == 1
    assert result.output.startswith("error: ")
    assert "certificate" in result.output.lower()
    assert result.output.count("\n") == 1, result.output


async def test_a_feeder_at_work_refuses_them_in_one_line(bus: Bus, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(bus.feeder(bus.other), RedisNames(), "feeder")
    work = asyncio.create_task(publisher.run())
    with _nobody_gets_in(bus):
        try:
            await await_for(lambda: caplog.records, what="a word about it")
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    (record,) = caplog.records
    assert "certificate" in record.getMessage()
    assert "\n" not in record.getMessage()
    assert not publisher.connected


def test_a_server_logs_clients_without_tls(tmp_path: Path) -> None:
    assert SERVER is not None
    server = TlsServer(make_certificates(tmp_path / "own", "IP:127.0.0.1"), Path(SERVER))
    with server, socket.create_connection(("127.0.0.1", server.port)) as plain:
        plain.sendall(b"PING\r\n")
        wait_for(lambda: WITHOUT_TLS in server.log, what="a note of plain words")


@contextmanager
def _nobody_gets_in(bus: Bus) -> Iterator[None]:
    """Somebody tries and does not get in, nor tries without TLS instead. The errors say why: not every client tells."""
    before = bus.logs.count(NOT_IN)
    yield
    wait_for(lambda: bus.logs.count(NOT_IN) > before, what="a note of the refusal")
    assert WITHOUT_TLS not in bus.logs
