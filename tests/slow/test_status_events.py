"""What a reader of events hears of a market that halts and of a feeder that dies, with real feeders."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple

import pytest
import redis

from bookbus.consumers.direct_provider import DIRECT_PROVIDERS
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi_provider import assemble
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import BookStatus
from tests.support.feeder_process import FeederProcess, feeder_process
from tests.support.waiting import await_for, wait_for

LIMIT = 15.0
"""Seconds for what takes 0.3 s here, or 6 s where a feeder dies: generous for a slow machine."""


class Market(NamedTuple):
    """A market of an exchange, and a fault of it with what a reader must see."""

    exchange: str
    native: str
    fault: dict[str, Any]
    status: str

    @property
    def symbol(self) -> str:
        return "BTC-KRW" if self.exchange == "upbit" else "BTC-USDT"


FAULTS = [
    Market("binance", "BTCUSDT", {"kind": "halt"}, "halted"),
    Market("binance", "BTCUSDT", {"kind": "halt", "value": "AUCTION_MATCH"}, "auction"),
    Market("binance", "BTCUSDT", {"kind": "halt", "value": "LUNCH"}, "unknown"),
    Market("upbit", "KRW-BTC", {"kind": "halt"}, "delisted"),
    Market("upbit", "KRW-BTC", {"kind": "halt", "value": "PREVIEW"}, "halted"),
    Market("upbit", "KRW-BTC", {"kind": "market_warning"}, "warning"),
    Market("upbit", "KRW-BTC", {"kind": "market_warning", "value": "PRICE_FLUCTUATIONS"}, "caution"),
    Market("bybit", "BTCUSDT", {"kind": "halt"}, "delisted"),
    Market("bybit", "BTCUSDT", {"kind": "halt", "value": "PreLaunch"}, "halted"),
]
HALTS = [FAULTS[0], FAULTS[3]]

every_fault = pytest.mark.parametrize("market", FAULTS, ids=lambda market: f"{market.exchange} {market.status}")


def simulate(market: Market) -> SimulatorProcess:
    other = "KRW-ETH" if market.exchange == "upbit" else "ETHUSDT"
    return SimulatorProcess([market.native, other], exchange=market.exchange, seed=1)


@contextlib.contextmanager
def feeding(redis_url: str, market: Market, exchange: SimulatorProcess) -> Iterator[FeederProcess]:
    with feeder_process(
        redis_url,
        exchange.ws_url,
        exchange.rest_url,
        [market.native],
        *("--exchange", market.exchange, "--trading-interval", "0.3"),
    ) as feeder:
        yield feeder


class Events:
    """The statuses that the updates of one symbol brought, each once in a row."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    @property
    def newest(self) -> tuple[str, str]:
        return self.seen[-1] if self.seen else ("", "")


@contextlib.asynccontextmanager
async def following(provider: MarketDataProvider, symbol: str) -> AsyncIterator[Events]:
    events = Events()

    async def follow() -> None:
        async for update in provider.updates(symbol):
            if events.newest != (state := (str(update.status), update.trading)):
                events.seen.append(state)

    task = asyncio.create_task(follow())
    try:
        yield events
    finally:
        task.cancel()
        await asyncio.wait((task,))


@every_fault
async def test_a_change_of_the_trading_status_reaches_every_reader(redis_url: str, market: Market) -> None:
    with simulate(market) as exchange, feeding(redis_url, market, exchange) as feeder:
        async with (
            RedisMarketDataProvider(redis_url, market.exchange, [market.symbol]) as provider,
            following(provider, market.symbol) as events,
        ):
            await await_for(lambda: events.newest == ("live", "trading"), LIMIT, "a market that trades")

            exchange.inject(**market.fault, symbols=[market.native])
            await await_for(lambda: events.newest == ("live", market.status), LIMIT, f"an event: {feeder.log}")
            assert provider.read(market.symbol).trading == market.status
            with redis.Redis.from_url(redis_url, decode_responses=True) as client:
                name = RedisNames().book(market.exchange, market.symbol)
                await await_for(lambda: client.hget(name, "trading") == market.status, LIMIT, "the hash")
            with RedisMarketDataProvider(redis_url, market.exchange, [market.symbol], "pull") as pulling:
                assert pulling.read(market.symbol).trading == market.status

            exchange.clear()
            await await_for(lambda: events.newest == ("live", "trading"), LIMIT, "trading again")


@pytest.mark.parametrize("market", HALTS, ids=lambda market: market.exchange)
def test_a_direct_provider_follows_the_trading_status(market: Market) -> None:
    make = DIRECT_PROVIDERS[market.exchange]
    with (
        simulate(market) as exchange,
        make([market.native], ws_url=exchange.ws_url, rest_url=exchange.rest_url, trading_interval=0.3) as provider,
    ):
        seen: list[str] = []
        provider.on_status(lambda update: seen.append(update.trading))
        wait_for(lambda: provider.read(market.symbol).trading == "trading", LIMIT)

        exchange.inject(**market.fault, symbols=[market.native])
        wait_for(lambda: seen and seen[-1] == market.status, LIMIT)
        assert provider.read(market.symbol).status is BookStatus.LIVE
        assert not provider.read(market.symbol).tradable
        exchange.clear()
        wait_for(lambda: seen[-1] == "trading", LIMIT)


async def test_the_death_of_a_feeder_is_an_event_and_so_is_the_next_life(redis_url: str) -> None:
    market = HALTS[0]
    with simulate(market) as exchange:
        async with (
            RedisMarketDataProvider(redis_url, "binance", ["BTC"]) as provider,
            following(provider, "BTC") as events,
        ):
            with feeding(redis_url, market, exchange) as feeder:
                await await_for(lambda: events.newest == ("live", "trading"), LIMIT, "a live book")
                feeder.process.kill()
                await await_for(lambda: events.newest[0] == "feeder_down", LIMIT, "an event without a message")

            with feeding(redis_url, market, exchange):
                await await_for(lambda: events.newest == ("live", "trading"), LIMIT, "live again")


async def test_the_death_of_a_feeder_is_an_event_of_several_exchanges(redis_url: str) -> None:
    market = HALTS[0]

    def make(exchange: str, names: list[str]) -> MarketDataProvider:
        return RedisMarketDataProvider(redis_url, exchange, names)

    with simulate(market) as exchange, feeding(redis_url, market, exchange) as feeder:
        async with assemble(make, ["binance"], ["BTC"]) as provider, following(provider, "BTC") as events:
            await await_for(lambda: events.newest[0] == "live", LIMIT, "a live book")
            feeder.process.kill()
            await await_for(lambda: events.newest[0] != "live", LIMIT, "an event without a message")


@pytest.mark.parametrize("as_json", [True, False])
def test_tail_shows_a_halt_and_the_death_of_a_feeder(redis_url: str, as_json: bool) -> None:
    market = HALTS[0]
    lines: list[str] = []
    command = [sys.executable, "-m", "consumers", "tail", "BTC", "--redis", redis_url, *(["--json"] if as_json else [])]
    with (
        simulate(market) as exchange,
        feeding(redis_url, market, exchange) as feeder,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail,
    ):
        assert tail.stdout is not None
        reading = threading.Thread(target=lines.extend, args=(tail.stdout,))
        reading.start()
        try:
            wait_for(lambda: lines and "live" in lines[-1], LIMIT)
            exchange.inject(kind="halt", symbols=[market.native])
            wait_for(lambda: "halted" in lines[-1], LIMIT)
            feeder.process.kill()
            wait_for(lambda: "feeder_down" in lines[-1], LIMIT)
            last = lines[-1]
        finally:
            tail.terminate()
            reading.join()

    if as_json:
        shown = json.loads(last)
        assert (shown["status"], shown["trading"], shown["conflated"]) == ("feeder_down", "halted", 0)
        assert shown["reason"]
