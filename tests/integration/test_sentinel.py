"""Sentinels name another primary: feeder and readers follow, and nothing is restarted by hand.

`BOOKBUS_FLEET_LONG=1` adds what waits for the slow clock of the Sentinels.
"""

import os

import pytest

from bookbus.consumers.redis_provider import RedisMarketDataProvider
from tests.support.server_fleet import watched
from tests.support.watched_bus import RECOVERY_LIMIT, SYMBOLS, watched_bus

LONG = pytest.mark.long(os.environ.get("BOOKBUS_FLEET_LONG"), "BOOKBUS_FLEET_LONG=1 asks for it")


async def test_feeder_and_readers_follow_the_new_primary() -> None:
    with watched() as servers:
        old, new = servers.servers
        async with watched_bus(servers.url, servers.url, f"{servers.url}?read=nearest") as bus:
            with RedisMarketDataProvider(servers.url, "binance", SYMBOLS, mode="pull") as asking:
                await bus.survives(old.kill, lambda: servers.primary is new)

                bus.readers = [asking]
                await bus.become(bus.all_right_and_live, RECOVERY_LIMIT, "the books asked for")


@LONG
async def test_a_primary_that_hangs_is_left_and_joins_again_later() -> None:
    with watched() as servers:
        old, new = servers.servers
        async with watched_bus(servers.url, servers.url, f"{servers.url}?read=nearest") as bus:
            await bus.survives(old.pause, lambda: servers.primary is new)
            await bus.survives(old.resume, lambda: servers.replicas == [old])
            await bus.survives(servers.fail_over, lambda: servers.primary is old)
