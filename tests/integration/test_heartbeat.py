"""A feeder's sign of life, on a real server."""

import asyncio

import redis

from feeders.heartbeat import Heartbeat
from schemas.heartbeat import FeederHeartbeat
from schemas.redis_names import RedisNames

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


async def test_it_ends_whenever_it_is_cancelled_and_leaves_no_sign_of_life(redis_url: str) -> None:
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
