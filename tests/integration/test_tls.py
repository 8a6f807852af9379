"""Books over TLS with the certificates that `make certificates` makes; a server that proves nothing is refused."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bookbus.consumers.__main__ import make_app as make_consumers_app
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.__main__ import make_app as make_feeders_app
from bookbus.feeders.redis_server import free_port
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.schemas.snapshot import BookStatus
from tests.support.feeder_process import feeder_process
from tests.support.server_with_users import ServerWithUsers, server_with_users
from tests.support.tls_server import make_certificates, tls_options
from tests.support.waiting import await_for

consumers_app = make_consumers_app()
feeders_app = make_feeders_app()

LOCALHOST = "DNS:localhost"
SCRIPT = Path(__file__).parents[2] / "deploy" / "make_certificates.sh"
DEBIAN_SERVER = shutil.which("redis-server")

Run = Callable[..., tuple[int, str]]

pytestmark = pytest.mark.skipif(
    DEBIAN_SERVER is None, reason="the embedded server has no TLS; this needs redis-server on PATH"
)


class ServerOverTls:
    """A server with users and a certificate."""

    def __init__(self, guarded: ServerWithUsers, port: int, certificates: Path) -> None:
        self._guarded = guarded
        self._port = port
        self._certificates = certificates

    def url(self, role: str, authority: Path | None = None, host: str = "localhost") -> str:
        """Its address for who trusts this authority; its own one by default."""
        login = f"{role}:{self._guarded.passwords[role]}"
        trusted = authority or self._certificates / "ca.crt"
        return f"rediss://{login}@{host}:{self._port}/0?ssl_ca_certs={trusted}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerOverTls]:
    """A server over TLS."""
    assert DEBIAN_SERVER is not None
    directory = make_certificates(tmp_path_factory.mktemp("tls") / "own", LOCALHOST)
    port = free_port()
    options = tls_options(port, directory)
    with server_with_users(tmp_path_factory.mktemp("users"), options, Path(DEBIAN_SERVER)) as guarded:
        yield ServerOverTls(guarded, port, directory)


def run(package: str, *arguments: str) -> tuple[int, str]:
    """Exit code and everything printed by what a user starts."""
    result = subprocess.run([sys.executable, "-m", package, *arguments], capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout + result.stderr


def ask(package: str, *arguments: str) -> tuple[int, str]:
    """The same of a command that logs nothing, without the cost of a process."""
    result = CliRunner().invoke(feeders_app if package == "feeders" else consumers_app, arguments)
    return result.exit_code, result.output


async def test_books_go_over_tls(server: ServerOverTls) -> None:
    provider = RedisMarketDataProvider(server.url("runner"), "binance", ["BTC"])
    puller = RedisMarketDataProvider(server.url("viewer"), "binance", ["BTC"], mode="pull")
    async with BinanceSimulator(symbols=["BTCUSDT"], seed=1, rate=10.0) as exchange:
        with feeder_process(server.url("feeder"), exchange.ws_url, exchange.rest_url, ["BTC"]) as feeder:
            async with provider:
                await await_for(lambda: provider.read("BTC").status is BookStatus.LIVE, 20, "a live book")
            async with puller:
                # The exchange runs in this loop, and a first read waits for a confirmation.
                reading = await asyncio.to_thread(puller.read, "BTC")
                assert reading.status is BookStatus.LIVE, reading.reason
            assert feeder.stop() == 0, feeder.log


@pytest.mark.parametrize(
    ("package", "role", "arguments", "run"),
    [
        ("feeders", "feeder", ["run", "--symbols", "BTC"], run),
        ("feeders", "feeder", ["health"], ask),
        ("consumers", "runner", ["tail", "BTC"], run),
        ("consumers", "viewer", ["show", "BTC"], ask),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_server_of_another_authority_is_refused_in_one_line(
    server: ServerOverTls, tmp_path: Path, package: str, role: str, arguments: list[str], run: Run
) -> None:
    stranger = make_certificates(tmp_path / "stranger", LOCALHOST) / "ca.crt"

    code, output = run(package, *arguments, "--redis", server.url(role, stranger))

    assert code == 1
    assert output.startswith("error: ")
    assert "certificate" in output.lower()
    assert output.count("\n") == 1, output


@pytest.mark.parametrize(
    ("package", "role", "arguments"), [("feeders", "feeder", ["health"]), ("consumers", "viewer", ["show", "BTC"])]
)
def test_a_server_of_another_name_is_refused_in_one_line(
    server: ServerOverTls, package: str, role: str, arguments: list[str]
) -> None:
    code, output = ask(package, *arguments, "--redis", server.url(role, host="127.0.0.1"))

    assert code == 1
    assert "certificate" in output.lower()
    assert output.count("\n") == 1, output


def test_existing_certificates_are_not_replaced(tmp_path: Path) -> None:
    directory = make_certificates(tmp_path / "own", LOCALHOST)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}

    again = subprocess.run([SCRIPT, directory, "DNS:localhost"], capture_output=True, text=True, check=False)

    assert again.returncode == 1
    assert again.stderr == f"error: {directory}/ca.crt is there already: remove {directory} for new certificates\n"
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
    assert {name for name in before if (directory / name).stat().st_mode & 0o077} == {"ca.crt", "server.crt"}
