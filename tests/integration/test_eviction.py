"""A server that evicts keys: it is reported at start, and readers find the books nevertheless."""

import logging
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis

from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.bus import heartbeat as heartbeat_module
from bookbus.feeders.bus.heartbeat import Heartbeat
from bookbus.feeders.redis_server import LocalServer
from bookbus.schemas.heartbeat import FeederHeartbeat
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import BookStatus
from tests.support.server_with_users import server_with_users
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

NAMES = RedisNames()
BOOK = NAMES.book("binance", "BTC-USDT")
SYMBOLS = [f"S{number}-USDT" for number in range(30)]


@pytest.fixture
def client(own_redis_server: LocalServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_redis_server.url) as client:
        yield client


def beat() -> FeederHeartbeat:
    return FeederHeartbeat(
        feeder="feeder-1",
        exchange="binance",
        endpoint="wss://exchange",
        states={"BTC-USDT": "live"},
        host="host",
        pid=1,
        started_us=1,
        time_us=2,
    )


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-ttl", "allkeys-random"])
async def test_a_policy_that_drops_books_is_reported_once(
    own_redis_server: LocalServer, client: redis.Redis, caplog: pytest.LogCaptureFixture, policy: str
) -> None:
    client.config_set("maxmemory-policy", policy)
    heartbeat = Heartbeat(own_redis_server.url, NAMES, beat, lambda: [BOOK], lambda: None)

    for _ in range(3):
        await heartbeat._beat()
    await heartbeat.end()

    wrong = f"Redis has maxmemory-policy {policy} and drops books when its memory is full: set noeviction"
    assert caplog.messages == ([] if policy == "noeviction" else [wrong])


async def test_a_user_who_may_not_read_the_policy_sends_heartbeats(
    own_redis_server: LocalServer, client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    client.acl_setuser(
        "old",
        enabled=True,
        passwords=["+pw"],
        keys=["md:*"],
        channels=["md:*"],
        commands=["+hset", "+expire", "+publish", "+sadd"],
    )
    heartbeat = Heartbeat(
        own_redis_server.url.replace("redis://", "redis://old:pw@"), NAMES, beat, lambda: [BOOK], lambda: None
    )

    await heartbeat._beat()
    await heartbeat.end()

    assert client.exists(NAMES.feeder("feeder-1"))
    assert caplog.records == []


async def test_the_feeders_user_may_read_the_policy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with server_with_users(tmp_path, ("--maxmemory-policy", "allkeys-lfu")) as guarded:
        heartbeat = Heartbeat(guarded.url("feeder"), NAMES, beat, lambda: [BOOK], lambda: None)
        await heartbeat._beat()
        await heartbeat.end()

    assert "maxmemory-policy allkeys-lfu" in caplog.text


async def test_keys_that_vanish_each_second_are_logged_once_a_while_and_books_are_sent_each_time(
    own_redis_server: LocalServer,
    client: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    client.config_set("maxmemory-policy", "allkeys-lru")
    ticks = count(0.0, 0.4)
    monkeypatch.setattr(heartbeat_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    resent: list[bool] = []
    heartbeat = Heartbeat(own_redis_server.url, NAMES, beat, lambda: [BOOK], lambda: resent.append(True))

    await heartbeat._beat()
    for _ in range(18):
        client.delete(NAMES.feeder("feeder-1"), NAMES.books)
        await heartbeat._beat()
    await heartbeat._beat()
    members = client.smembers(NAMES.books)
    await heartbeat.end()

    assert len(resent) == 18
    assert caplog.messages[1:] == ["Redis evicts keys (allkeys-lru): sending every book again"]
    assert members == {BOOK.encode()}


def test_a_new_reader_of_all_books_finds_them_without_their_list(
    own_redis_server: LocalServer, client: redis.Redis
) -> None:
    writer = BusWriter(client)
    for symbol in SYMBOLS:
        writer.update(symbol)
    client.delete(NAMES.books)

    with RedisMarketDataProvider(own_redis_server.url, "binance") as provider:
        assert provider.symbols == []
        writer.heartbeat(SYMBOLS)
        writer.heartbeat(["BTC-KRW"], exchange="upbit")
        wait_for(lambda: list(provider.symbols) == sorted(SYMBOLS), 10, "all books")
        for symbol in SYMBOLS:
            writer.update(symbol, update_id=200)
        wait_for(lambda: all(provider.read(name).status is BookStatus.LIVE for name in SYMBOLS), 10, "live books")
