"""A primary with replicas: readers use the nearest one, and a feeder reports that its server is a replica."""

from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from tests.support.feeder_process import feeder_process
from tests.support.server_fleet import ask, place, replicated
from tests.support.waiting import await_for
from tests.support.watched_bus import NATIVES, RECOVERY_LIMIT, START_LIMIT, watched_bus


async def test_readers_of_a_replica_have_every_book_and_leave_it_when_it_dies() -> None:
    with replicated() as servers:
        primary, replica = servers.servers
        nearest = f"redis://{place(replica)},{place(primary)}/0"
        async with watched_bus(primary.url, replica.url, nearest) as bus:
            on_replica, moving = bus.readers
            # One of them has a single server to go to, and that is about to be away.
            bus.readers = [moving]

            await bus.survives(replica.kill)

            assert not on_replica.get_connection_status().connected


async def test_a_reader_leaves_a_replica_that_lost_its_primary() -> None:
    with replicated() as servers:
        primary, replica = servers.servers
        async with watched_bus(primary.url, f"redis://{place(replica)},{place(primary)}/0") as bus:
            # It follows nobody now: what it holds grows old, although it answers.
            await bus.survives(lambda: ask(replica, "REPLICAOF", "127.0.0.1", "1"))


async def test_a_feeder_that_was_given_a_replica_says_so_once_and_goes_on_when_it_may_write() -> None:
    with replicated() as servers:
        _, replica = servers.servers
        async with BinanceSimulator(symbols=NATIVES, seed=62, rate=10.0) as exchange:
            with feeder_process(replica.url, exchange.ws_url, exchange.rest_url, NATIVES) as feeder:
                complaint = f"{replica.url}: is a read-only replica, and feeders write to its primary"
                await await_for(lambda: complaint in feeder.log, START_LIMIT, "the complaint")
                await await_for(lambda: "8 of 8 books live" in feeder.log, START_LIMIT, "the exchange's books")
                warnings = [line for line in feeder.log.splitlines() if " WARNING " in line]

                ask(replica, "REPLICAOF", "NO", "ONE")

                await await_for(lambda: ask(replica, "SCARD", "md:books") == len(NATIVES), RECOVERY_LIMIT, "the books")
                assert len(warnings) == 1, feeder.log
                assert "takes books" in feeder.log
