"""Servers whose clock is set while they run, and a replica that lags: an old book is never live."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from bookbus.consumers.redis_provider import Mode, RedisMarketDataProvider
from bookbus.feeders.redis_server import LocalServer, find_server
from bookbus.schemas.snapshot import BookStatus
from tests.support.lagging_link import lagging_link
from tests.support.server_fleet import ask
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
MODES: tuple[Mode, ...] = ("push", "pull")


class SetServer:
    """A server of the test's own, whose clock is a file."""

    def __init__(self, server: LocalServer, offset: Path) -> None:
        self.server = server
        self._offset = offset

    def set_clock(self, seconds: int) -> None:
        """Set the server's clock so many seconds before (negative) or after the machine's."""
        before = self._now()
        new = self._offset.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self._offset)
        wait_for(lambda: abs(self._now() - before - seconds) < 5, what="the server's new clock")

    def _now(self) -> int:
        return int(ask(self.server, "TIME")[0])


@pytest.fixture
def set_server(tmp_path: Path) -> Iterator[SetServer]:
    if LIBRARY is None:
        pytest.skip("needs Debian's package faketime")
    offset, binary = tmp_path / "offset", tmp_path / "server"
    offset.write_text("+0\n")
    environment = f"FAKETIME_TIMESTAMP_FILE={offset} FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1"
    binary.write_text(f'#!/bin/sh\nexec env {environment} LD_PRELOAD={LIBRARY} {find_server()} "$@"\n')
    binary.chmod(0o755)
    with LocalServer(binary=binary) as server:
        yield SetServer(server, offset)


@pytest.mark.parametrize("seconds", [-600, 600])
@pytest.mark.parametrize("mode", MODES)
def test_a_dead_feeders_book_is_not_live_again_when_the_servers_clock_is_set(
    set_server: SetServer, mode: Mode, seconds: int
) -> None:
    url = set_server.server.url
    with redis.Redis.from_url(url) as client:
        writer = BusWriter(client)
        writer.update()
        with writer.confirming():
            provider = RedisMarketDataProvider(url, "binance", ["BTC"], mode, max_age=2.0)
            provider.start()
            assert provider.read("BTC").status is BookStatus.LIVE
        with provider:
            wait_for(lambda: provider.read("BTC").status is not BookStatus.LIVE)

            set_server.set_clock(seconds)

            statuses: set[BookStatus] = set()

            def told() -> bool:
                statuses.add(provider.read("BTC").status)
                return provider.get_connection_status().clock_jumps == 1

            wait_for(told, what="the jump")
            with RedisMarketDataProvider(url, "binance", ["BTC"], mode) as late:
                statuses |= {late.read("BTC").status, provider.read("BTC").status}
            assert BookStatus.LIVE not in statuses

            with writer.confirming():
                wait_for(lambda: provider.read("BTC").status is BookStatus.LIVE, what="a book of the living feeder")


@pytest.mark.parametrize("seconds", [-600, 600])
@pytest.mark.parametrize("mode", MODES)
def test_a_living_feeders_book_stays_live_when_the_servers_clock_is_set(
    set_server: SetServer, mode: Mode, seconds: int
) -> None:
    url = set_server.server.url
    with redis.Redis.from_url(url) as client:
        writer = BusWriter(client)
        writer.update()
        with writer.confirming(), RedisMarketDataProvider(url, "binance", ["BTC"], mode) as provider:
            assert provider.read("BTC").status is BookStatus.LIVE
            set_server.set_clock(seconds)

            def told() -> bool:
                assert provider.read("BTC").status is BookStatus.LIVE
                return provider.get_connection_status().clock_jumps == 1

            wait_for(told, what="the jump")


@pytest.mark.parametrize("mode", MODES)
def test_a_replica_that_lags_is_stale_although_its_link_is_up(mode: Mode) -> None:
    with LocalServer() as primary, LocalServer() as replica, lagging_link(primary.port) as link:
        ask(replica, "REPLICAOF", "127.0.0.1", link.port)
        wait_for(lambda: ask(replica, "ROLE")[3] == "connected", 20, "the link")
        with redis.Redis.from_url(primary.url) as client:
            writer = BusWriter(client)
            writer.update()
            with writer.confirming(), RedisMarketDataProvider(replica.url, "binance", ["BTC"], mode) as provider:
                wait_for(lambda: provider.read("BTC").status is BookStatus.LIVE, 20, "a live book")

                link.lag = 6.0
                # Beyond what a book may be old before it is stale, and until the late data arrives.
                wait_for(lambda: provider.read("BTC").status is not BookStatus.LIVE, 20, "a stale book")
                offset = ask(replica, "ROLE")[4]
                wait_for(lambda: ask(replica, "ROLE")[4] != offset, 20, "late data")
                for _ in range(50):
                    assert provider.read("BTC").status is not BookStatus.LIVE
                    writer.confirm()
                assert ask(replica, "ROLE")[3] == "connected"

                def told() -> bool:
                    writer.heartbeat(["BTC-USDT"])
                    return "behind its primary" in provider.read("BTC").reason

                wait_for(told, 20, "the remark")
