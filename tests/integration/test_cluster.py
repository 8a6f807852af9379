"""A cluster: books are spread over its nodes, and followed when their slots move or their node dies.

`BOOKBUS_FLEET_LONG=1` adds what takes longer.
"""

import os
import shlex

import pytest

from bookbus.feeders.commands.acl import ROLES, acl_file
from bookbus.feeders.redis_server import LocalServer
from bookbus.schemas.redis_names import RedisNames
from tests.support.server_fleet import Cluster, ask, cluster
from tests.support.watched_bus import SYMBOLS, watched_bus

LONG = pytest.mark.long(os.environ.get("BOOKBUS_FLEET_LONG"), "BOOKBUS_FLEET_LONG=1 asks for it")

BTC = RedisNames().book("binance", "BTC-USDT")


async def test_books_stay_live_when_their_slot_moves_and_when_their_node_is_killed() -> None:
    with cluster() as servers:
        async with watched_bus(servers.url) as bus:
            source = servers.owner(BTC)
            target = next(server for server in servers.primaries if server is not source)
            assert len({servers.owner(RedisNames().book("binance", symbol)) for symbol in SYMBOLS}) == 3

            await bus.survives(lambda: servers.move_slot(BTC, target), lambda: servers.owner(BTC) is target)

            await bus.survives(target.kill, lambda: servers.owner(BTC) in servers.replicas)


@LONG
async def test_a_hung_node_is_disconnected_and_used_again_later() -> None:
    with cluster() as servers:
        async with watched_bus(servers.url) as bus:
            node = servers.owner(BTC)
            assert node is not None

            await bus.survives(node.pause, lambda: servers.owner(BTC) in servers.replicas)

            await bus.survives(node.resume, lambda: node in _replicas(servers))


@LONG
async def test_every_node_may_restart_without_its_data() -> None:
    with cluster() as servers:
        async with watched_bus(servers.url) as bus:
            for replica in servers.replicas:
                replica.kill()
            for primary in servers.primaries:
                await bus.survives(lambda primary=primary: (primary.kill(), primary.start()))  # type: ignore[misc]
                await bus.survives(lambda primary=primary: ask(primary, "FLUSHALL"))  # type: ignore[misc]


@LONG
async def test_the_rights_of_feeders_and_readers_are_enough_for_a_cluster() -> None:
    with cluster() as servers:
        rules = acl_file(RedisNames(), {role: f"{role}-password" for role in ROLES}).splitlines()
        for server in servers.servers:
            for _, name, *rights in (line.split(" ", 2) for line in rules):
                if name != "default":
                    ask(server, "ACL", "SETUSER", name, *shlex.split(rights[0].replace("(", "'(").replace(")", ")'")))
        feeder, runner = (servers.url.replace("://", f"://{role}:{role}-password@") for role in ("feeder", "runner"))
        async with watched_bus(feeder, runner) as bus:
            source = servers.owner(BTC)
            target = next(server for server in servers.primaries if server is not source)

            await bus.survives(lambda: servers.move_slot(BTC, target), lambda: servers.owner(BTC) is target)

            assert "NOPERM" not in bus.feeder.log


def _replicas(servers: Cluster) -> list[LocalServer]:
    return [server for server in servers.servers if ask(server, "ROLE")[0] == "slave"]
