"""A cluster: books are spread over its nodes, and followed when their slots move or their node dies."""

from schemas.redis_names import RedisNames
from tests.support.server_fleet import cluster
from tests.support.watched_bus import SYMBOLS, watched_bus

BTC = RedisNames().book("binance", "BTC-USDT")


async def test_books_are_followed_when_their_slot_moves_and_when_their_node_dies() -> None:
    with cluster() as servers:
        async with watched_bus(servers.url) as bus:
            source = servers.owner(BTC)
            target = next(server for server in servers.primaries if server is not source)
            assert len({servers.owner(RedisNames().book("binance", symbol)) for symbol in SYMBOLS}) == 3

            await bus.survives(lambda: servers.move_slot(BTC, target), lambda: servers.owner(BTC) is target)

            await bus.survives(target.kill, lambda: servers.owner(BTC) in servers.replicas)
