"""Two simulated exchanges, a feeder each and one for the exchange rate, held against the exchanges' own books."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction

import pytest
import redis

from bookbus.consumers.multi.arbitrage import find_opportunities
from bookbus.consumers.multi.consolidation import ConsolidatedBook
from bookbus.consumers.multi.venue_book import TAKER_FEES_BPS
from bookbus.consumers.multi_provider import assemble
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.simulator.process import SimulatorProcess
from tests.support.feeder_process import FeederProcess, feeder_process
from tests.support.waiting import wait_for

LIMIT = 2.0
"""Seconds without confirmation until a book, or the exchange rate, is stale in these tests."""


class World:
    """Simulated Binance and Upbit, whose KRW-USDT rests, with their feeders, and what is made of their books."""

    def __init__(self, redis_url: str, cleanup: ExitStack) -> None:
        self._redis_url = redis_url
        self._cleanup = cleanup
        self.binance = cleanup.enter_context(SimulatorProcess(["BTCUSDT"], exchange="binance"))
        self.upbit = cleanup.enter_context(
            SimulatorProcess(["KRW-BTC", "KRW-USDT"], exchange="upbit", quiet=("KRW-USDT",))
        )
        self.feed("binance", "BTCUSDT")
        self.upbit_feeder = self.feed("upbit", "KRW-BTC")
        self.rate_feeder = self.feed("upbit", "KRW-USDT")
        self.provider = assemble(
            lambda exchange, names: RedisMarketDataProvider(redis_url, exchange, names),
            ["binance", "upbit"],
            ["BTC"],
            max_age=LIMIT,
            fx_max_age=2 * LIMIT,  # a resting book is confirmed every 2 s
        )
        cleanup.enter_context(self.provider)

    def feed(self, exchange: str, native: str) -> FeederProcess:
        simulated: SimulatorProcess = getattr(self, exchange)
        return self._cleanup.enter_context(
            feeder_process(self._redis_url, simulated.ws_url, simulated.rest_url, [native], "--exchange", exchange)
        )

    def wait_for_parts(self, *exchanges: str) -> list[ConsolidatedBook]:
        """Every consolidated book until just these take part."""
        seen: list[ConsolidatedBook] = []

        def look() -> bool:
            seen.append(self.provider.consolidated("BTC"))
            return [part.exchange for part in seen[-1].parts] == list(exchanges)

        wait_for(look, timeout=30, what=f"a book of {exchanges}")
        return seen

    def net_bps_by_truth(self, book: ConsolidatedBook) -> float:
        """The better direction's net figure, from the exchanges' own books at these update ids, in exact arithmetic."""
        with redis.Redis.from_url(self._redis_url) as client:
            rate_id = int(client.hget("md:book:upbit:USDT-KRW", "update_id") or 0)
        ids = {venue.exchange: venue.snapshot.update_id for venue in book.venues if venue.snapshot is not None}
        tether_bid, tether_ask = best(self.upbit, "KRW-USDT", rate_id)
        binance_bid, binance_ask = best(self.binance, "BTCUSDT", ids["binance"])
        upbit_bid, upbit_ask = best(self.upbit, "KRW-BTC", ids["upbit"])
        upbit_bid, upbit_ask = upbit_bid / tether_ask, upbit_ask / tether_bid
        fees = {exchange: Fraction(TAKER_FEES_BPS[exchange]) / 10_000 for exchange in ("binance", "upbit")}
        return max(
            net_bps(binance_ask, fees["binance"], upbit_bid, fees["upbit"]),
            net_bps(upbit_ask, fees["upbit"], binance_bid, fees["binance"]),
        )


def best(exchange: SimulatorProcess, native: str, update_id: int) -> tuple[Fraction, Fraction]:
    truth = exchange.truth(native, update_id, depth=1)
    assert truth is not None
    ((bid, _),), ((ask, _),) = truth
    return Fraction(str(bid)), Fraction(str(ask))


def net_bps(ask: Fraction, buy_fee: Fraction, bid: Fraction, sell_fee: Fraction) -> float:
    return float((bid * (1 - sell_fee) - ask * (1 + buy_fee)) / ask * 10_000)


@pytest.fixture(scope="module")
def only_world() -> Iterator[World]:
    with ExitStack() as cleanup:
        yield World(cleanup.enter_context(LocalServer()).url, cleanup)


@pytest.fixture
def world(only_world: World) -> World:
    """With both exchanges taking part."""
    only_world.wait_for_parts("binance", "upbit")
    return only_world


def test_every_net_figure_is_that_of_the_exchanges_true_books(world: World) -> None:
    checked: dict[tuple[int, ...], float] = {}

    def check() -> bool:
        book = world.provider.consolidated("BTC")
        (found,) = find_opportunities(book.symbol, book.venues, world.provider.max_skew)
        if found.net_bps is not None:
            ids = tuple(venue.snapshot.update_id for venue in book.venues if venue.snapshot is not None)
            checked[ids] = found.net_bps - world.net_bps_by_truth(book)
        return len(checked) >= 20

    wait_for(check, timeout=30, what="20 pairs of books")

    assert max(map(abs, checked.values())) < 1e-6


def test_a_stale_exchange_rate_makes_nothing_actionable(world: World) -> None:
    world.rate_feeder.signal(signal.SIGSTOP)

    books = world.wait_for_parts("binance")

    (found,) = find_opportunities(books[-1].symbol, books[-1].venues, world.provider.max_skew)
    assert "FX USDT-KRW is" in found.reason
    assert (found.actionable, found.net_bps) == (False, None)

    world.rate_feeder.signal(signal.SIGCONT)
    world.wait_for_parts("binance", "upbit")


def test_an_exchange_whose_feeder_is_killed_is_excluded_until_the_next_feeder(world: World) -> None:
    world.upbit_feeder.signal(signal.SIGKILL)

    books = world.wait_for_parts("binance")

    assert all(part.age is not None and part.age <= LIMIT for book in books for part in book.parts)
    assert books[-1].out["upbit"].startswith("upbit BTC-KRW is")
    assert books[-1].best_ask() == (*books[-1].venues[0].asks[0], "binance")

    world.upbit_feeder = world.feed("upbit", "KRW-BTC")
    world.wait_for_parts("binance", "upbit")


def test_an_exchange_that_closes_its_connections_is_excluded_until_they_are_open_again(world: World) -> None:
    world.upbit.inject(kind="refuse_connections", seconds=1.0)
    world.upbit.inject(kind="reset")

    books = world.wait_for_parts("binance")

    assert "suspect" in books[-1].out["upbit"]
    world.wait_for_parts("binance", "upbit")
