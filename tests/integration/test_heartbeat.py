"""A feeder's sign of life, on a real server."""

import asyncio
import logging
from itertools import count
from types import SimpleNamespace

import pytest
import redis

from bookbus.feeders.bus import heartbeat as heartbeat_module
from bookbus.feeders.bus.heartbeat import Heartbeat
from bookbus.schemas.heartbeat import FeederHeartbeat
from bookbus.schemas.redis_names import RedisNames

NAMES = RedisNames("md")
BOOK = NAMES.book("binance", "BTC-USDT")


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
        counters={},
    )


async def test_it_ends_at_any_cancellation_and_deletes_its_heartbeat(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        for turns in range(0, 120, 3):
            heartbeat = Heartbeat(redis_url, NAMES, beat, lambda: [BOOK], lambda: None)
            task = asyncio.create_task(heartbeat.run())
            for _ in range(turns):
                await asyncio.sleep(0)

            task.cancel()
            await asyncio.wait((task,), timeout=5)
            await heartbeat.end()

            assert task.cancelled(), turns
            assert not client.exists(NAMES.feeder("feeder-1"))


@pytest.mark.parametrize(("step", "told"), [(0.1, True), (2.8, False)], ids=["too soon to expire", "a late answer"])
async def test_only_a_missing_heartbeat_that_cannot_have_expired_means_lost_data(
    redis_url: str, step: float, told: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ticks = count(0.0, step)
    monkeypatch.setattr(heartbeat_module, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    resent: list[bool] = []
    heartbeat = Heartbeat(redis_url, NAMES, beat, lambda: [BOOK], lambda: resent.append(True))

    with redis.Redis.from_url(redis_url) as client, caplog.at_level(logging.WARNING):
        await heartbeat._beat()
        client.flushall()
        await heartbeat._beat()
    await heartbeat.end()

    assert resent == [True]
    assert ("Redis lost its data" in caplog.text) == told


async def test_the_trading_status_is_written_into_the_hash_of_books_that_are_there(redis_url: str) -> None:
    gone = NAMES.book("binance", "GONE-USDT")
    said = {BOOK: "trading", gone: "halted", NAMES.book("binance", "ETH-USDT"): "halted"}
    heartbeat = Heartbeat(redis_url, NAMES, beat, lambda: [BOOK, gone], lambda: None, trading=lambda: said)

    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.hset(BOOK, mapping={"seq": 1, "update_id": 5})
        await heartbeat._beat()
        assert client.hgetall(BOOK) == {"seq": "1", "update_id": "5", "trading": "trading"}
        assert set(client.keys("md:book:*")) == {BOOK}

        said[BOOK] = "halted"
        client.hset(gone, "seq", 1)
        await heartbeat._beat()
        assert client.hget(BOOK, "trading") == "halted"
        assert client.hget(gone, "trading") == "halted"

        del said[BOOK]
        await heartbeat._beat()
        assert client.hget(BOOK, "trading") == "unknown"

    await heartbeat.end()


async def test_the_trading_status_is_written_again_after_another_wrote_it(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(heartbeat_module, "time", SimpleNamespace(monotonic=lambda: now))
    heartbeat = Heartbeat(redis_url, NAMES, beat, lambda: [BOOK], lambda: None, trading=lambda: {BOOK: "halted"})

    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.hset(BOOK, "seq", 1)
        await heartbeat._beat()
        client.hset(BOOK, "trading", "trading")

        await heartbeat._beat()
        assert client.hget(BOOK, "trading") == "trading"
        now = 31.0
        await heartbeat._beat()
        assert client.hget(BOOK, "trading") == "halted"

    await heartbeat.end()


async def test_a_book_that_is_dropped_leaves_the_list_and_no_other_does(redis_url: str) -> None:
    other = NAMES.book("binance", "ETH-USDT")
    books = [BOOK, other]
    heartbeat = Heartbeat(redis_url, NAMES, beat, lambda: books, lambda: None)

    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        await heartbeat._beat()
        books.remove(other)
        await heartbeat._beat()
        assert client.smembers("md:books") == {BOOK, other}  # not known for a moment, as after a stall

        heartbeat.forget(other)
        await heartbeat._beat()
        assert client.smembers("md:books") == {BOOK}

        books.append(other)
        await heartbeat._beat()
        assert client.smembers("md:books") == {BOOK, other}
    await heartbeat.end()
