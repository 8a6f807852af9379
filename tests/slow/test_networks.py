"""Feeder processes of two networks on one prefix: one of them publishes, the other one is refused or takes over."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
import redis

from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from tests.support.feeder_process import FeederProcess
from tests.support.simulated_exchange import exchange
from tests.support.waiting import await_for

BOOK = "md:book:binance:BTC-USDT"
OTHER = "md:book:binance:ETH-USDT"
LIMIT = 30.0


@pytest.fixture
async def exchanges() -> AsyncIterator[tuple[BinanceSimulator, BinanceSimulator]]:
    async with exchange("BTCUSDT", "ETHUSDT") as first, exchange("BTCUSDT", "ETHUSDT", seed=2) as second:
        yield first, second


@pytest.fixture
def client(redis_server: LocalServer) -> redis.Redis:
    return redis.Redis.from_url(redis_server.url, decode_responses=True)


def feeder(server: LocalServer, of: BinanceSimulator, name: str, *more: str, symbols: str = "BTC") -> FeederProcess:
    source = ("--ws-url", of.ws_url, "--rest-url", of.rest_url)
    return FeederProcess("--redis", server.url, *source, "--feeder-id", name, "--symbols", symbols, *more)


def publishes(client: redis.Redis, name: str, book: str = BOOK) -> bool:
    return str(client.hget(book, "feeder")).startswith(f"{name}-") and client.hget(book, "state") == "live"


async def test_of_two_networks_that_start_in_the_same_second_one_publishes(
    redis_server: LocalServer, client: redis.Redis, exchanges: tuple[BinanceSimulator, BinanceSimulator]
) -> None:
    both = [feeder(redis_server, of, name) for of, name in zip(exchanges, "AB", strict=True)]
    try:
        await await_for(lambda: any(each.process.poll() is not None for each in both), LIMIT, "a refusal")
        (refused,) = (each for each in both if each.process.poll() is not None)

        assert refused.process.returncode == 1
        assert "need another --prefix or another --redis" in refused.log.splitlines()[-1]
        name = "B" if refused is both[0] else "A"
        health = await asyncio.to_thread(
            subprocess.run,
            [
                sys.executable,
                "-m",
                "feeders",
                "health",
                "--redis",
                redis_server.url,
                "--feeder-name",
                "AB".replace(name, ""),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert health.returncode == 1
        assert "refused: binance books under the prefix 'md' are of network simulator" in health.stderr
        await await_for(lambda: publishes(client, name), LIMIT, "a live book")
    finally:
        for each in both:
            each.close()


async def test_another_network_takes_over_once_the_first_is_killed_and_removes_its_books(
    redis_server: LocalServer, client: redis.Redis, exchanges: tuple[BinanceSimulator, BinanceSimulator]
) -> None:
    first = feeder(redis_server, exchanges[0], "A", symbols="BTC,ETH")
    second = None
    try:
        await await_for(lambda: publishes(client, "A") and publishes(client, "A", OTHER), LIMIT, "the first's books")
        first.process.kill()
        second = feeder(redis_server, exchanges[1], "B")
        await await_for(lambda: publishes(client, "B"), LIMIT, "the second's book")

        assert not client.exists(OTHER)
        await await_for(lambda: client.smembers("md:books") == {BOOK}, LIMIT, "the list of books")
    finally:
        first.close()
        if second is not None:
            second.close()


async def test_a_feeder_that_was_paused_meanwhile_writes_nothing_and_ends(
    redis_server: LocalServer, client: redis.Redis, exchanges: tuple[BinanceSimulator, BinanceSimulator]
) -> None:
    first = feeder(redis_server, exchanges[0], "A", symbols="BTC,ETH")
    second = None
    try:
        await await_for(lambda: publishes(client, "A") and publishes(client, "A", OTHER), LIMIT, "the first's books")
        first.signal(signal.SIGSTOP)
        second = feeder(redis_server, exchanges[1], "B")
        await await_for(lambda: publishes(client, "B"), LIMIT, "the second's book")

        first.signal(signal.SIGCONT)
        await await_for(lambda: first.process.poll() is not None, LIMIT, "the end of the first")

        assert first.process.returncode == 1
        assert "are of network simulator" in first.log.splitlines()[-1]
        assert publishes(client, "B")
        assert not client.exists(OTHER)
        assert client.smembers("md:books") == {BOOK}
        (refused,) = client.keys("md:feeder:A-*")
        assert "need another --prefix" in str(client.hget(refused, "refused"))
    finally:
        first.close()
        if second is not None:
            second.close()


async def test_a_second_feeder_of_the_same_network_runs_beside_the_first(
    redis_server: LocalServer, client: redis.Redis, exchanges: tuple[BinanceSimulator, BinanceSimulator]
) -> None:
    both = [feeder(redis_server, exchanges[0], name, "--network", "live") for name in "AB"]
    try:
        await await_for(lambda: len(client.keys("md:feeder:*")) == 2, LIMIT, "two heartbeats")
        await await_for(lambda: publishes(client, "A") or publishes(client, "B"), LIMIT, "a live book")

        assert {client.hget(key, "network") for key in client.keys("md:feeder:*")} == {"live"}
        assert all(each.process.poll() is None for each in both)
        assert [each.stop() for each in both] == [0, 0]
        assert client.hget("md:network:binance", "released") == "1"
    finally:
        for each in both:
            each.close()


async def test_symbols_that_were_dropped_while_the_feeder_was_down_are_closed_by_the_next_one(
    redis_server: LocalServer, client: redis.Redis, exchanges: tuple[BinanceSimulator, BinanceSimulator]
) -> None:
    first = feeder(redis_server, exchanges[0], "A", "--topics", "book,quote", symbols="BTC,ETH")
    second = None
    quotes = [name.replace("book", "quote") for name in (BOOK, OTHER)]
    try:
        await await_for(
            lambda: all(publishes(client, "A", name) for name in (BOOK, OTHER, *quotes)), LIMIT, "the first's books"
        )
        await await_for(lambda: client.smembers("md:books") == {BOOK, OTHER}, LIMIT, "the list of both books")
        first.process.kill()
        second = feeder(redis_server, exchanges[0], "B")
        left = (OTHER, *quotes)
        await await_for(
            lambda: all(client.hget(name, "state") == "closed" for name in left), 60.0, "the end of the rest"
        )
        await await_for(lambda: client.smembers("md:books") == {BOOK}, LIMIT, "the list of books")

        assert publishes(client, "B")
        assert int(str(client.ttl(OTHER))) > 0
    finally:
        first.close()
        if second is not None:
            second.close()
