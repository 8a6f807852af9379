"""Streams that stall while their socket answers pings: readers see no old book as live, and the exchange no storm."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import pytest
import redis

from bookbus.consumers.direct_provider import DIRECT_PROVIDERS
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.snapshot import BookStatus
from tests.support.feeder_process import FeederProcess, feeder_process
from tests.support.waiting import wait_for

MARKETS = {
    "binance": (("BTCUSDT", "ETHUSDT", "SOLUSDT"), ("BTC-USDT", "ETH-USDT", "SOL-USDT")),
    "bybit": (("BTCUSDT", "ETHUSDT", "SOLUSDT"), ("BTC-USDT", "ETH-USDT", "SOL-USDT")),
    "upbit": (("KRW-BTC", "KRW-ETH", "KRW-XRP"), ("BTC-KRW", "ETH-KRW", "XRP-KRW")),
}
"""Native and standard symbols."""

each_exchange = pytest.mark.parametrize("name", sorted(MARKETS))

NOTICED_WITHIN = 15.0
"""Seconds: 5 on an idle machine, and less than the 60 after which a silent connection was replaced before."""


class Followed(NamedTuple):
    """A simulated exchange, a feeder of it, and a reader whose books were live."""

    exchange: SimulatorProcess
    feeder: FeederProcess
    reader: RedisMarketDataProvider
    redis_url: str

    def states(self, symbols: Sequence[str]) -> set[BookStatus]:
        return {self.reader.status(symbol).state for symbol in symbols}

    def counter(self, name: str) -> int:
        """A counter of the feeder's heartbeat; 0 before the first."""
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as client:
            for key in client.scan_iter(match="md:feeder:*"):
                return int(json.loads(client.hget(key, "counters") or "{}").get(name, 0))
        return 0

    def wait_for_updates(self, count: int) -> None:
        before = self.counter("updates")
        wait_for(lambda: self.counter("updates") >= before + count, 20, "updates")


@contextmanager
def followed(redis_url: str, name: str, *arguments: str, rate: float = 10.0) -> Iterator[Followed]:
    natives, symbols = MARKETS[name]
    with (
        SimulatorProcess(natives, exchange=name, seed=41, rate=rate) as exchange,
        feeder_process(
            redis_url, exchange.ws_url, exchange.rest_url, natives, "--exchange", name, *arguments
        ) as feeder,
        RedisMarketDataProvider(redis_url, name, list(symbols)) as reader,
    ):
        reader.wait_until_live(timeout=30)
        yield Followed(exchange, feeder, reader, redis_url)


@each_exchange
@pytest.mark.parametrize("lines", ["1", "2"])
def test_a_silent_connection_that_answers_pings_is_noticed_and_replaced(redis_url: str, name: str, lines: str) -> None:
    symbols = MARKETS[name][1]
    with followed(redis_url, name, "--lines", lines) as world:
        wait_for(lambda: world.counter("connected") == int(lines), 20, "every line")
        world.exchange.inject(kind="silence")

        wait_for(lambda: BookStatus.LIVE not in world.states(symbols), NOTICED_WITHIN, "no live book")
        world.exchange.clear()
        wait_for(lambda: world.states(symbols) == {BookStatus.LIVE}, 30, "live books")

        wait_for(lambda: world.counter("stalls"), NOTICED_WITHIN, "the counter")


@each_exchange
def test_a_subscription_that_the_exchange_forgot_makes_its_own_book_suspect_and_heals(
    redis_url: str, name: str
) -> None:
    natives, symbols = MARKETS[name]
    with followed(redis_url, name) as world:
        world.wait_for_updates(100)
        world.exchange.inject(kind="unsubscribed", symbols=[natives[0]])

        wait_for(lambda: world.counter("stalls"), NOTICED_WITHIN, "the stall to be found")
        stalled_at = world.reader.status(symbols[0]).update_id
        wait_for(lambda: world.reader.status(symbols[0]).update_id != stalled_at, 30, "an update")
        wait_for(lambda: world.states(symbols) == {BookStatus.LIVE}, 30, "live books")

        assert world.counter("lost") <= 1, world.feeder.log
        assert world.counter("reconnects") == 0


@each_exchange
def test_silence_without_an_answer_makes_books_suspect_and_asks_rarely(redis_url: str, name: str) -> None:
    symbols = MARKETS[name][1]
    with followed(redis_url, name) as world:
        world.wait_for_updates(100)
        world.exchange.inject(kind="rest_status", value=503, seconds=600.0)
        world.exchange.inject(kind="silence")

        wait_for(lambda: BookStatus.LIVE not in world.states(symbols), NOTICED_WITHIN, "no live book")

        assert world.counter("stall_requests") < 10, world.feeder.log
        world.exchange.clear()
        wait_for(lambda: world.states(symbols) == {BookStatus.LIVE}, 60, "live books")


@each_exchange
def test_a_market_without_a_change_stays_live_by_few_requests(redis_url: str, name: str) -> None:
    symbols = MARKETS[name][1]
    with followed(redis_url, name, rate=0.0) as world:

        def asked() -> int:
            assert world.states(symbols) == {BookStatus.LIVE}, world.feeder.log
            return world.counter("stall_requests")

        wait_for(lambda: asked() >= 3, 60, "three requests")

        assert world.counter("stalls") == 0, world.feeder.log
        assert world.counter("stall_confirmed") >= 3
        assert world.counter("reconnects") == 0


@each_exchange
def test_a_quiet_market_that_no_answer_confirms_is_suspect_until_one_does(redis_url: str, name: str) -> None:
    symbols = MARKETS[name][1]
    with followed(redis_url, name, rate=0.0) as world:
        world.exchange.inject(kind="rest_status", value=503, seconds=600.0)
        wait_for(lambda: world.states(symbols) == {BookStatus.SUSPECT}, 30, "suspect books")

        world.exchange.clear()
        wait_for(lambda: world.states(symbols) == {BookStatus.LIVE}, 60, "live books")

        assert world.counter("reconnects") == 0, world.feeder.log


@pytest.mark.parametrize("name", sorted(set(MARKETS) & set(DIRECT_PROVIDERS)))
def test_a_direct_provider_notices_a_silent_connection(name: str) -> None:
    natives, _ = MARKETS[name]
    with (
        SimulatorProcess(natives, exchange=name, seed=42) as exchange,
        DIRECT_PROVIDERS[name](
            natives, ws_url=exchange.ws_url, rest_url=exchange.rest_url, reconnect_delay=0.05
        ) as provider,
    ):
        provider.wait_until_live(timeout=30)
        exchange.inject(kind="silence")

        wait_for(lambda: provider.read(natives[0]).status is not BookStatus.LIVE, NOTICED_WITHIN, "no live book")
        exchange.clear()
        provider.wait_until_live(timeout=30)
