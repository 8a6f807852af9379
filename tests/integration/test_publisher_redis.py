"""The publisher on a real server that dies, hangs, loses its data, changes its role, runs full, asks who is there."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from bookbus.feeders.bus.publish_script import Submission
from bookbus.feeders.bus.publisher import Publisher
from bookbus.feeders.redis_server import HOST, LocalServer, free_port
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.trade import Trade
from bookbus.schemas.wire import decode
from tests.support.builders import book
from tests.support.resp_server import in_background
from tests.support.tls_server import make_certificates, tls_options
from tests.support.waiting import await_for

NAMES = RedisNames()
SYMBOLS = [f"S{number}-USDT" for number in range(100)]


class Feed:
    """Stands for a feeder: it knows the newest book of each symbol, and submits them all to whom it connects."""

    def __init__(self, url: str, **options: Any) -> None:
        self.update_id = 0
        self.publisher = Publisher(url, NAMES, "A", on_connected=self.submit_all, **options)

    def submit_all(self) -> None:
        for symbol in SYMBOLS:
            self.publisher.submit(Submission("new", "book", book(symbol, update_id=self.update_id)))

    def move(self) -> None:
        self.update_id += 1
        self.submit_all()


@asynccontextmanager
async def feeding(url: str, **options: Any) -> AsyncIterator[Feed]:
    feed = Feed(url, **options)
    async with in_background(feed.publisher.run()):
        await await_for(lambda: feed.publisher.counters.accepted >= len(SYMBOLS))
        assert await feed.publisher.drain(5)
        yield feed


def books_in(url: str) -> dict[str, tuple[int, int]]:
    """Update id and seq of every book stored."""
    found: dict[str, tuple[int, int]] = {}
    with redis.Redis.from_url(url) as client:
        for symbol in SYMBOLS:
            data: Any = client.hget(NAMES.book("binance", symbol), "book")
            if data is not None:
                stored = decode(data)
                found[symbol] = (stored.update_id, stored.seq)
    return found


def all_at(url: str, update_id: int) -> bool:
    return [stored for stored, _ in books_in(url).values()] == [update_id] * len(SYMBOLS)


def seqs(url: str) -> list[int]:
    return [seq for _, seq in books_in(url).values()]


async def test_every_update_raises_every_seq_by_one(redis_url: str) -> None:
    async with feeding(redis_url) as feed:
        before = seqs(redis_url)
        for _ in range(20):
            feed.move()
            assert await feed.publisher.drain(5)

    assert all_at(redis_url, 20)
    assert seqs(redis_url) == [seq + 20 for seq in before]
    assert feed.publisher.counters.conflated == 0
    # One write for connecting, and one a turn.
    assert feed.publisher.counters.batches == 21


async def test_a_killed_server_gets_every_book_again_with_higher_seqs(own_redis_server: LocalServer) -> None:
    url = own_redis_server.url
    async with feeding(url) as feed:
        before = seqs(url)

        own_redis_server.kill()
        feed.move()
        own_redis_server.start()

        await await_for(lambda: feed.publisher.connected)
        assert await feed.publisher.drain(5)
    assert all_at(url, 1)
    assert all(after > earlier for after, earlier in zip(seqs(url), before, strict=True))


async def test_a_persistent_server_continues_its_seqs(tmp_path: Path) -> None:
    with LocalServer(directory=tmp_path, persistent=True) as server:
        async with feeding(server.url) as feed:
            before = seqs(server.url)

            server.stop()
            feed.move()
            server.start()

            await await_for(lambda: feed.publisher.connected)
            assert await feed.publisher.drain(5)
        assert seqs(server.url) == [seq + 1 for seq in before]


async def test_a_hung_server_is_disconnected_and_gets_the_newest_books_later(own_redis_server: LocalServer) -> None:
    url = own_redis_server.url
    async with feeding(url, reply_timeout=0.2) as feed:
        own_redis_server.pause()
        try:
            for _ in range(50):
                feed.move()
                await asyncio.sleep(0)
            await await_for(lambda: not feed.publisher.connected)
            feed.move()
        finally:
            own_redis_server.resume()

        await await_for(lambda: feed.publisher.connected)
        assert await feed.publisher.drain(5)
    assert all_at(url, 51)
    assert feed.publisher.counters.conflated > 0


async def test_a_flushed_server_takes_the_books_and_the_script_again(redis_url: str) -> None:
    async with feeding(redis_url) as feed:
        before = seqs(redis_url)
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()
            client.script_flush()

        feed.move()

        assert await feed.publisher.drain(5)
    assert all_at(redis_url, 1)
    assert all(after > earlier for after, earlier in zip(seqs(redis_url), before, strict=True))
    assert feed.publisher.counters.errors == 0


async def test_a_full_server_is_logged_once_and_gets_the_newest_books_later(
    own_redis_server: LocalServer, caplog: pytest.LogCaptureFixture
) -> None:
    url = own_redis_server.url
    async with feeding(url, retry_interval=0.05) as feed:
        with redis.Redis.from_url(url) as client:
            client.config_set("maxmemory", "1mb")
            feed.move()
            await await_for(lambda: feed.publisher.error_kinds["OOM"] > len(SYMBOLS))
            assert all_at(url, 0)

            client.config_set("maxmemory", "0")

        assert await feed.publisher.drain(5)
    assert all_at(url, 1)
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == ["redis", "redis"]
    assert "takes everything again (was: OOM)" in caplog.text
    assert feed.publisher.connected is False


async def test_a_server_that_became_a_replica_is_not_used_until_it_is_a_master(
    own_redis_server: LocalServer,
) -> None:
    url = own_redis_server.url
    async with feeding(url) as feed:
        with redis.Redis.from_url(url) as client:
            client.replicaof("127.0.0.1", "1")  # nobody there
            feed.move()
            await await_for(lambda: sum(feed.publisher.error_kinds.values()))

            client.replicaof("NO", "ONE")

        await await_for(lambda: all_at(url, 1))
    assert set(feed.publisher.error_kinds) <= {"READONLY", "MASTERDOWN"}


async def test_a_foreign_type_under_one_name_leaves_the_others_alone(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set(NAMES.book("binance", SYMBOLS[0]), "mine")
        feed = Feed(redis_url)
        async with in_background(feed.publisher.run()):
            await await_for(lambda: feed.publisher.counters.accepted == len(SYMBOLS) - 1)
            client.delete(NAMES.book("binance", SYMBOLS[0]))

            assert await feed.publisher.drain(5)

    assert all_at(redis_url, 0)
    assert set(feed.publisher.error_kinds) == {"WRONGTYPE"}


async def test_a_user_who_may_only_publish_books_is_enough() -> None:
    with LocalServer() as server:
        with redis.Redis.from_url(server.url) as client:
            commands = "+evalsha +script|load +hmget +hset +time +publish +expire +persist +xadd"
            rights = f"on >pw resetchannels ~md:* &md:* -@all {commands}"
            client.execute_command("ACL", "SETUSER", "feeder", *rights.split())
        url = f"redis://feeder:pw@{HOST}:{server.port}/0"

        async with feeding(url) as feed:
            feed.publisher.submit(Submission("state", "book", book(SYMBOLS[0], update_id=0, state="closed")))
            feed.publisher.submit_trade(Trade("binance", "BTC-USDT", "BTCUSDT", 1, 1.0, 1.0, "buy", 1, 1))
            assert await feed.publisher.drain(5)

        assert feed.publisher.counters.errors == 0
        assert all_at(server.url, 0)


async def test_a_wrong_password_is_one_line_without_it(caplog: pytest.LogCaptureFixture) -> None:
    with LocalServer(options=("--requirepass", "right")) as server:
        for login in (":wr0ng@", ""):
            caplog.clear()
            publisher = Publisher(f"redis://{login}{HOST}:{server.port}/0", NAMES, "A")
            publisher.submit(Submission("new", "book", book()))
            async with in_background(publisher.run()):
                await await_for(lambda: caplog.records)

            (record,) = caplog.records
            assert record.getMessage().startswith(f"redis://{login and ':***@'}{HOST}:{server.port}/0: ")
            assert "refused AUTH (WRONGPASS" in caplog.text or "NOAUTH" in caplog.text
            assert "wr0ng" not in caplog.text


async def test_a_refused_connection_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        port = taken.getsockname()[1]
        pauses: list[float] = []

        async def sleep(seconds: float) -> None:
            pauses.append(seconds)
            await asyncio.sleep(0)

        publisher = Publisher(f"redis://{HOST}:{port}/0", NAMES, "A", sleep=sleep)
        async with in_background(publisher.run()):
            await await_for(lambda: len(pauses) > 1100)

    (record,) = caplog.records
    assert record.getMessage().startswith(f"redis://{HOST}:{port}/0: connection refused; ")
    assert max(pauses) <= 2.0


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    with LocalServer(options=("--unixsocket", str(path))) as server:
        async with feeding(f"unix://{path}"):
            assert all_at(server.url, 0)


async def test_a_database_other_than_the_first_is_used(redis_url: str) -> None:
    other = redis_url.removesuffix("/0") + "/3"
    async with feeding(other):
        assert all_at(other, 0)
        assert books_in(redis_url) == {}


DEBIAN_SERVER = shutil.which("redis-server")


@pytest.mark.skipif(DEBIAN_SERVER is None, reason="the embedded server has no TLS; this needs redis-server on PATH")
async def test_tls_is_used_and_the_certificate_checked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert DEBIAN_SERVER is not None
    certificates = make_certificates(tmp_path / "tls", "DNS:localhost")
    port = free_port()
    with LocalServer(binary=Path(DEBIAN_SERVER), options=tls_options(port, certificates)) as server:
        async with feeding(f"rediss://localhost:{port}/0?ssl_ca_certs={certificates}/ca.crt"):
            assert all_at(server.url, 0)

        caplog.clear()
        stranger = Publisher(f"rediss://localhost:{port}/0", NAMES, "B")
        async with in_background(stranger.run()):
            await await_for(lambda: caplog.records)
        assert "certificate verify failed" in caplog.text
