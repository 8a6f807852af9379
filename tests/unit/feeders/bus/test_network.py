"""Which network a feeder's addresses are, and the claim that lets one network publish under a prefix."""

import asyncio
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import fakeredis
import pytest
import redis
from redis.asyncio import Redis

from bookbus.feeders.bus import network as network_module
from bookbus.feeders.bus.network import (
    HOLD_AFTER,
    TAKE_AFTER,
    ExchangeNetwork,
    NetworkClaim,
    NetworkTakenError,
    choose_network,
    network_of,
)
from bookbus.feeders.exchanges import binance_ws_adapter, bybit_ws_adapter, upbit_ws_adapter
from bookbus.feeders.redis_server import LocalServer
from bookbus.schemas.redis_names import RedisNames

NAMES = RedisNames("md")
KEY = NAMES.network("binance")
BINANCE = binance_ws_adapter.VENUE
LIVE, TESTNET = ExchangeNetwork("live"), ExchangeNetwork("testnet")


@pytest.mark.parametrize(
    ("url", "network"),
    [
        ("wss://data-stream.binance.vision", ExchangeNetwork("live")),
        ("wss://stream.binance.com:9443", ExchangeNetwork("live")),
        ("wss://STREAM.binance.com.:443/", ExchangeNetwork("live")),
        ("wss://stream.testnet.binance.vision", ExchangeNetwork("testnet")),
        ("https://testnet.binance.vision/api", ExchangeNetwork("testnet")),
        ("wss://demo-stream.binance.com", ExchangeNetwork("demo")),
        ("wss://stream.binance.us:9443", ExchangeNetwork("stream.binance.us", "stream.binance.us:9443")),
        ("ws://127.0.0.1:9443/", ExchangeNetwork("simulator", "localhost:9443 on here")),
        ("ws://localhost:9443", ExchangeNetwork("simulator", "localhost:9443 on here")),
        ("ws://[::1]:9443", ExchangeNetwork("simulator", "localhost:9443 on here")),
        ("ws://[::ffff:127.0.0.1]:9443", ExchangeNetwork("simulator", "localhost:9443 on here")),
        ("ws://0.0.0.0:9443", ExchangeNetwork("simulator", "localhost:9443 on here")),
        ("ws://127.0.0.1:9444/other", ExchangeNetwork("simulator", "localhost:9444/other on here")),
        ("ws://exchange:9443", ExchangeNetwork("exchange", "exchange:9443")),
        ("ws://10.0.0.7:9443", ExchangeNetwork("10.0.0.7", "10.0.0.7:9443")),
        ("capture:btc_eth.jsonl.gz", ExchangeNetwork("recording")),
    ],
)
def test_a_network_is_derived_from_an_address(url: str, network: ExchangeNetwork) -> None:
    assert network_of(BINANCE.networks, url, "here") == network


@pytest.mark.parametrize("venue", [binance_ws_adapter.VENUE, bybit_ws_adapter.VENUE, upbit_ws_adapter.VENUE])
def test_an_exchanges_own_addresses_are_live(venue: Any) -> None:
    assert choose_network(venue.networks, None, venue.ws_url, venue.rest_url) == LIVE


TESTNET_WS, TESTNET_REST = "wss://stream.testnet.binance.vision", "https://testnet.binance.vision"


@pytest.mark.parametrize(
    ("name", "ws_url", "rest_url", "network"),
    [
        (None, TESTNET_WS, TESTNET_REST, TESTNET),
        ("testnet", TESTNET_WS, TESTNET_REST, TESTNET),
        ("live", "ws://10.0.0.7:9443", BINANCE.rest_url, LIVE),
        ("live", "ws://127.0.0.1:9443", "http://127.0.0.1:9444", LIVE),
        ("simulator", "ws://exchange:9443", "http://exchange:9444", ExchangeNetwork("simulator")),
        (None, "ws://exchange:9443", "http://exchange:9444", ExchangeNetwork("exchange", "exchange:9443")),
        (None, "ws://exchange:9443", "http://snapshots:9444", ExchangeNetwork("exchange", "exchange:9443")),
    ],
)
def test_addresses_of_one_network_are_taken(
    name: str | None, ws_url: str, rest_url: str, network: ExchangeNetwork
) -> None:
    assert choose_network(BINANCE.networks, name, ws_url, rest_url) == network


@pytest.mark.parametrize(
    ("name", "ws_url", "rest_url", "message"),
    [
        (
            None,
            TESTNET_WS,
            BINANCE.rest_url,
            "--rest-url https://data-api.binance.vision is of network live, the feeder's",
        ),
        (None, BINANCE.ws_url, TESTNET_REST, "--rest-url https://testnet.binance.vision is of network testnet"),
        (None, "ws://127.0.0.1:1", BINANCE.rest_url, "is of network live, the feeder's is simulator"),
        (None, BINANCE.ws_url, "http://127.0.0.1:1", "is of network simulator, the feeder's is live"),
        (None, "ws://exchange:1", BINANCE.rest_url, "is of network live, the feeder's is exchange"),
        ("testnet", BINANCE.ws_url, BINANCE.rest_url, "--ws-url wss://data-stream.binance.vision is of network live"),
        ("simulator", BINANCE.ws_url, BINANCE.rest_url, "name --ws-url and --rest-url of one network"),
        ("live", TESTNET_WS, TESTNET_REST, "is of network testnet, the feeder's is live"),
        ("live", "ws://127.0.0.1:1", TESTNET_REST, "is of network testnet, the feeder's is live"),
        ("a b", BINANCE.ws_url, BINANCE.rest_url, "--network 'a b': use letters"),
        ("", BINANCE.ws_url, BINANCE.rest_url, "--network '': use letters"),
    ],
)
def test_addresses_of_two_networks_are_refused(name: str | None, ws_url: str, rest_url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_network(BINANCE.networks, name, ws_url, rest_url)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture(params=["fakeredis", "server"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Makes asyncio clients of one empty server."""
    made: list[Any] = []
    shared = fakeredis.FakeServer()
    real: LocalServer | None = request.getfixturevalue("redis_server") if request.param == "server" else None

    def client() -> Any:
        made.append(fakeredis.FakeAsyncRedis(server=shared) if real is None else Redis.from_url(real.url))
        return made[-1]

    yield client
    for each in made:
        await each.aclose()


ids = count(1)


def claim(
    server: Any,
    clock: Clock,
    network: ExchangeNetwork = LIVE,
    feeder: str = "",
    *,
    endpoint: str = "wss://exchange",
    sleep: Any = None,
) -> NetworkClaim:
    return NetworkClaim(
        "redis://127.0.0.1:1/0",
        NAMES,
        "binance",
        network,
        feeder or f"feeder-{next(ids)}",
        networks=BINANCE.networks,
        endpoint=endpoint,
        clock=clock,
        sleep=sleep or clock.sleep,
        redis=server(),
    )


async def test_the_first_network_holds_the_prefix_and_further_feeders_of_it_join(server: Any) -> None:
    clock, redis = Clock(), server()
    first, second = claim(server, clock, feeder="A"), claim(server, clock, feeder="B")

    await first.acquire()
    await second.acquire()
    await first._step()

    assert first.may_publish()
    assert second.may_publish()
    assert clock.now == 1000.0
    assert await redis.hgetall(KEY) == {
        b"network": b"live",
        b"source": b"",
        b"feeder": b"A",
        b"count": b"3",
        b"feeder:A": b"3",
        b"feeder:B": b"2",
    }
    assert await redis.ttl(KEY) == -1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (LIVE, TESTNET),
        (LIVE, ExchangeNetwork("simulator", "localhost:1")),
        (ExchangeNetwork("simulator", "localhost:1"), LIVE),
        (ExchangeNetwork("simulator", "localhost:1"), ExchangeNetwork("simulator", "localhost:2")),
        (ExchangeNetwork("exchange", "exchange:1"), ExchangeNetwork("exchange", "exchange:2")),
        (ExchangeNetwork("simulator"), ExchangeNetwork("simulator", "localhost:2")),
        (ExchangeNetwork("recording"), LIVE),
    ],
)
async def test_another_network_is_refused_while_the_first_claims(
    server: Any, first: ExchangeNetwork, second: ExchangeNetwork
) -> None:
    clock = Clock()
    owner = claim(server, clock, first, "A")
    await owner.acquire()

    async def sleep(seconds: float) -> None:
        clock.now += seconds
        await owner._step()

    stranger = claim(server, clock, second, "B", sleep=sleep)
    with pytest.raises(NetworkTakenError, match="which feeder A publishes; books of network"):
        await stranger.acquire()

    assert clock.now - 1000.0 < TAKE_AFTER
    assert not stranger.may_publish()
    assert owner.may_publish()


async def test_only_one_of_two_networks_that_start_together_gets_the_prefix(server: Any) -> None:
    for _ in range(20):
        await server().flushall()
        clock = Clock()
        claims = [
            claim(server, clock, network) for network in (LIVE, TESTNET, ExchangeNetwork("simulator", "localhost:1"))
        ]

        looks = await asyncio.gather(*(each._call("look") for each in claims))
        await asyncio.gather(*(each._step() for each in claims))

        assert {look.status for look in looks} == {"absent"}
        assert sum(each.may_publish() for each in claims) == 1


async def test_a_network_is_taken_over_once_nobody_claims_it(server: Any) -> None:
    clock, redis = Clock(), server()
    owner = claim(server, clock, LIVE, "A")
    await owner.acquire()
    await redis.hset("md:trades:binance:BTC-USDT", "x", 1)
    await redis.hset("md:trades:bybit:BTC-USDT", "x", 1)
    await redis.sadd("md:books", "md:book:binance:BTC-USDT", "md:book:bybit:BTC-USDT")

    stranger = claim(server, clock, TESTNET, "B")
    await stranger.acquire()

    assert clock.now - 1000.0 >= TAKE_AFTER
    assert stranger.may_publish()
    assert not await redis.exists("md:trades:binance:BTC-USDT")
    assert await redis.exists("md:trades:bybit:BTC-USDT")
    assert await redis.smembers("md:books") == {b"md:book:bybit:BTC-USDT"}
    assert {b"network": b"testnet", b"feeder": b"B"}.items() <= (await redis.hgetall(KEY)).items()
    assert not await redis.hexists(KEY, "cleaning")


async def test_a_claim_between_the_last_look_and_the_takeover_prevents_it(server: Any) -> None:
    clock = Clock()
    owner, stranger = claim(server, clock, LIVE, "A"), claim(server, clock, TESTNET, "B")
    await owner.acquire()
    seen = await stranger._call("claim")

    await owner._step()
    reply = await stranger._call("claim", str(seen.claims))

    assert (reply.status, reply.network) == ("other", "live")


async def test_a_watch_begins_again_after_polls_that_were_not_answered(server: Any) -> None:
    clock, redis = Clock(), server()
    await claim(server, clock, LIVE, "A").acquire()
    stranger = claim(server, clock, TESTNET, "B")
    await stranger._step()

    clock.now += 100.0  # paused, or the server was away: the owner may have claimed all the time but just now
    await stranger._step()
    clock.now += 1.0
    await stranger._step()

    assert await redis.hget(KEY, "network") == b"live"


async def test_a_clean_stop_of_the_last_feeder_lets_another_network_in_at_once(server: Any) -> None:
    clock = Clock()
    first, second = claim(server, clock, LIVE, "A"), claim(server, clock, LIVE, "B")
    await first.acquire()
    await second.acquire()

    await first._end()
    stranger = claim(server, clock, TESTNET, "C")
    assert (await stranger._call("look")).status == "other"

    await second._end()
    before = clock.now
    await stranger.acquire()
    assert clock.now - before <= 2.0


async def test_a_feeder_that_died_does_not_keep_the_last_one_from_releasing(server: Any) -> None:
    clock, redis = Clock(), server()
    dead, last = claim(server, clock, LIVE, "A"), claim(server, clock, LIVE, "B")
    await dead.acquire()
    await last.acquire()

    for _ in range(20):
        await last._step()
    await last._end()

    assert {b"released": b"1"}.items() <= (await redis.hgetall(KEY)).items()


async def test_the_next_claim_of_the_network_takes_a_release_back(server: Any) -> None:
    clock = Clock()
    first = claim(server, clock, LIVE, "A")
    await first.acquire()
    await first._end()

    await claim(server, clock, LIVE, "B").acquire()

    assert (await claim(server, clock, TESTNET, "C")._call("look")).status == "other"


async def test_nothing_is_published_before_the_old_books_are_removed(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, may_end = Clock(), asyncio.Event()

    async def remove(*_: Any, **__: Any) -> None:
        await may_end.wait()

    monkeypatch.setattr(network_module, "remove_books", remove)
    old = claim(server, clock, LIVE, "A")
    await old.acquire()
    await old._end()
    cleaner, twin = claim(server, clock, TESTNET, "B"), claim(server, clock, TESTNET, "C")

    for each in (cleaner, twin, cleaner, twin):
        await each._step()
    assert not cleaner.may_publish()
    assert not twin.may_publish()

    may_end.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for each in (cleaner, twin):
        await each._step()
    assert cleaner.may_publish()
    assert twin.may_publish()


async def test_another_feeder_goes_on_with_the_removal_if_the_first_one_dies(server: Any) -> None:
    clock, redis = Clock(), server()
    old = claim(server, clock, LIVE, "A")
    await old.acquire()
    await old._end()
    await redis.hset(KEY, "released", "1")
    assert (await claim(server, clock, TESTNET, "B")._call("claim")).status == "cleaning"

    twin = claim(server, clock, TESTNET, "C")
    await twin.acquire()

    assert twin.may_publish()
    assert clock.now - 1000.0 < 20.0


@pytest.mark.parametrize(
    ("since_claim", "gap", "may_publish"),
    [
        (HOLD_AFTER + 0.1, 1.1, False),  # paused
        (HOLD_AFTER - 0.1, 1.1, True),  # nobody can have taken over
        (HOLD_AFTER + 10.0, 0.9, True),  # the server does not answer claims, but this process ran all the time
    ],
)
async def test_after_a_pause_nothing_is_published_until_the_next_claim(
    server: Any, since_claim: float, gap: float, may_publish: bool
) -> None:
    clock, calls = Clock(), []
    held = claim(server, clock)
    held.on_hold, held.on_regained = lambda: calls.append("hold"), lambda: calls.append("regained")
    await held.acquire()
    until = clock.now + since_claim - gap
    while clock.now < until:
        clock.now = min(clock.now + 0.5, until)
        assert held.may_publish()

    clock.now += gap

    assert held.may_publish() == may_publish
    await held._step()
    assert held.may_publish()
    assert calls == ["regained"] + ["hold", "regained"] * (not may_publish)


async def test_a_reply_of_before_the_pause_does_not_count_as_a_claim(server: Any) -> None:
    clock = Clock()
    held = claim(server, clock)
    await held.acquire()
    reply = await held._call("claim")

    clock.now += 60.0
    assert not held.may_publish()
    await held._apply(reply)

    assert not held.may_publish()


async def test_a_feeder_that_was_paused_learns_that_another_network_took_over(server: Any) -> None:
    clock = Clock()
    paused = claim(server, clock, LIVE, "A")
    await paused.acquire()
    other = claim(server, clock, TESTNET, "B")
    await other.acquire()

    assert not paused.may_publish()
    with pytest.raises(NetworkTakenError, match="of network testnet, which feeder B publishes"):
        await _alternate(clock, paused, other)
    assert "testnet" in paused.refused


async def _alternate(clock: Clock, *claims: NetworkClaim) -> None:
    for _ in range(3):
        for each in claims:
            await each._step()
        clock.now += 0.5


async def test_a_feeder_keeps_its_prefix_if_an_old_claim_comes_back_from_a_replica(server: Any) -> None:
    clock, redis = Clock(), server()
    held = claim(server, clock, LIVE, "A")
    await held.acquire()
    await redis.delete(KEY)
    await redis.hset(KEY, mapping={"network": "simulator", "source": "localhost:1", "feeder": "Z", "count": 7})

    await held._step()
    assert not held.may_publish()

    while not held.may_publish():
        clock.now += 0.5
        await held._step()
        await asyncio.sleep(0.001)
        assert clock.now < 1030.0
    assert await redis.hget(KEY, "network") == b"live"


async def test_data_that_was_lost_is_claimed_again(server: Any) -> None:
    clock, redis = Clock(), server()
    held = claim(server, clock, LIVE, "A")
    await held.acquire()
    await redis.flushall()

    await held._step()

    assert held.may_publish()
    assert await redis.hget(KEY, "network") == b"live"


@pytest.mark.parametrize(
    ("beat", "is_refused"),
    [
        ({"endpoint": "wss://data-stream.binance.vision"}, False),
        ({"endpoint": "ws://127.0.0.1:9443", "host": "here"}, True),
        ({"endpoint": "ws://exchange:9443"}, True),
        ({"endpoint": "wss://stream.testnet.binance.vision"}, True),
        ({"endpoint": "ws://proxy:1", "network": "live"}, False),
        ({"endpoint": "wss://data-stream.binance.vision", "network": "testnet"}, True),
        ({"endpoint": "ws://127.0.0.1:9443", "exchange": "bybit"}, False),
        ({"endpoint": "ws://127.0.0.1:9443", "refused": "of another network"}, False),
        ({"endpoint": "wss://exchange"}, False),  # the very same address
    ],
)
async def test_a_running_feeder_that_claims_nothing_counts_by_its_heartbeat(
    server: Any, beat: dict[str, str], is_refused: bool
) -> None:
    clock, redis, times = Clock(), server(), count(1)
    fields = {"exchange": "binance", "feeder": "older"} | beat

    async def sleep(seconds: float) -> None:
        await clock.sleep(seconds)
        await redis.hset("md:feeder:older", "time_us", next(times))

    await redis.hset("md:feeder:older", mapping=fields | {"time_us": 0})
    new = claim(server, clock, LIVE, sleep=sleep)
    if is_refused:
        with pytest.raises(NetworkTakenError, match="which feeder older publishes"):
            await new.acquire()
        assert not await redis.exists(KEY)
    else:
        await new.acquire()
        assert clock.now == 1000.0


async def test_the_heartbeat_of_a_feeder_that_died_does_not_refuse_the_next_one(server: Any) -> None:
    clock, redis = Clock(), server()
    dead = {"exchange": "binance", "feeder": "older", "endpoint": "ws://127.0.0.1:9443", "time_us": 5}
    await redis.hset("md:feeder:older", mapping=dead)

    new = claim(server, clock, LIVE)
    await new.acquire()

    assert new.may_publish()
    assert clock.now - 1000.0 <= 3.0


async def test_it_is_kept_during_a_block_and_ends_the_block_when_it_is_lost(redis_url: str) -> None:
    clock = Clock()
    with redis.Redis.from_url(redis_url) as client:
        held = claim(lambda: Redis.from_url(redis_url), clock, sleep=asyncio.sleep)

        async def lose() -> None:
            async with held.kept():
                while True:
                    client.hset(KEY, "network", "testnet")
                    client.hincrby(KEY, "count", 1)
                    await asyncio.sleep(0.001)

        with pytest.raises(NetworkTakenError, match="of network testnet"):
            await asyncio.wait_for(lose(), 10)
        assert not client.hexists(KEY, "released")


async def test_the_end_of_the_block_releases_it(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        async with claim(lambda: Redis.from_url(redis_url), Clock(), sleep=asyncio.sleep).kept():
            assert not client.hexists(KEY, "released")

        assert client.hget(KEY, "released") == b"1"


async def test_a_cancelled_block_ends_as_cancelled_and_releases_it(redis_url: str) -> None:
    entered = asyncio.Event()

    async def hold() -> None:
        async with claim(lambda: Redis.from_url(redis_url), Clock(), sleep=asyncio.sleep).kept():
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(hold())
    await asyncio.wait_for(entered.wait(), 5)
    task.cancel()
    await asyncio.wait((task,), timeout=5)

    assert task.cancelled()
    with redis.Redis.from_url(redis_url) as client:
        assert client.hget(KEY, "released") == b"1"
