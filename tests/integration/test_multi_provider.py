"""Several exchanges as one over a real bus: a known cross, an old exchange rate, an exchange that dies."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator

import pytest
import redis

from bookbus.consumers.multi.arbitrage import Opportunity
from bookbus.consumers.multi.consolidation import ConsolidatedBook
from bookbus.consumers.multi_provider import MultiExchangeProvider, assemble
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.redis_server import LocalServer
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot
from tests.support.builders import book
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

LIMIT = 1.0
"""Seconds without confirmation until a book, or the exchange rate, is stale in these tests."""

Act = Callable[[], None]

BINANCE_BIDS: Levels = ((99_400.0, 0.3), (99_300.0, 1.0))
BINANCE_ASKS: Levels = ((99_401.0, 1.0),)
UPBIT_BIDS: Levels = ((138_459_000.0, 1.0),)
UPBIT_ASKS: Levels = ((138_600_000.0, 0.5),)
RATE_BIDS: Levels = ((1400.0, 90_000.0),)
RATE_ASKS: Levels = ((1401.0, 90_000.0),)


class Market:
    """What two feeders put on the bus; each call of `update` is one more update of a book."""

    def __init__(self, client: redis.Redis) -> None:
        self._binance, self._upbit = BusWriter(client, "binance-1"), BusWriter(client, "upbit-1")
        self._update_id = 0

    def binance(self) -> None:
        self._binance.submit(self._next("binance", "BTC-USDT", BINANCE_BIDS, BINANCE_ASKS))

    def upbit(self) -> None:
        self._upbit.submit(self._next("upbit", "BTC-KRW", UPBIT_BIDS, UPBIT_ASKS))

    def rate(self) -> None:
        self._upbit.submit(self._next("upbit", "USDT-KRW", RATE_BIDS, RATE_ASKS))

    def all(self) -> None:
        self.binance()
        self.upbit()
        self.rate()

    @contextlib.contextmanager
    def confirming(self) -> Iterator[None]:
        """Confirm every book all the time."""
        with self._binance.confirming(), self._upbit.confirming():
            yield

    def lose_upbit(self) -> None:
        lost = book("BTC-KRW", exchange="upbit", bids=UPBIT_BIDS, asks=UPBIT_ASKS, state="suspect", update_id=1)
        self._upbit.submit(lost, "state")

    def _next(self, exchange: str, symbol: str, bids: Levels, asks: Levels) -> OrderBookSnapshot:
        self._update_id += 1
        return book(symbol, exchange=exchange, update_id=self._update_id, bids=bids, asks=asks)


@pytest.fixture
def market(redis_url: str) -> Iterator[Market]:
    with redis.Redis.from_url(redis_url) as client:
        yield Market(client)


def provider_of(url: str) -> MultiExchangeProvider:
    return assemble(
        lambda exchange, names: RedisMarketDataProvider(url, exchange, names),
        ["binance", "upbit"],
        ["BTC"],
        max_age=LIMIT,
        fx_max_age=LIMIT,
    )


@pytest.fixture
def provider(redis_url: str, market: Market) -> Iterator[MultiExchangeProvider]:
    """Started, with every book there."""
    market.all()
    provider = provider_of(redis_url)
    with market.confirming():
        provider.start()
        provider.wait_until_live()
    with provider:
        yield provider


def offer_when(provider: MultiExchangeProvider, holds: Callable[[Opportunity], object], *acts: Act) -> Opportunity:
    """The first offer of the pair for which this holds, while the acts go on."""
    seen: list[Opportunity] = []

    def look() -> object:
        for act in acts:
            act()
        seen.extend(provider.opportunities("BTC"))
        return holds(seen[-1])

    wait_for(look, what="the offer waited for")
    return seen[-1]


def books_until(provider: MultiExchangeProvider, taking_part: list[str], *acts: Act) -> list[ConsolidatedBook]:
    """Every consolidated book until these exchanges take part, while the acts go on."""
    seen: list[ConsolidatedBook] = []

    def look() -> bool:
        for act in acts:
            act()
        seen.append(provider.consolidated("BTC"))
        return [part.exchange for part in seen[-1].parts] == taking_part

    wait_for(look, timeout=10, what=f"a book of {taking_part}")
    return seen


def test_the_net_figure_of_a_known_cross_is_the_one_computed_by_hand(
    provider: MultiExchangeProvider, market: Market
) -> None:
    found = offer_when(provider, lambda offer: offer.actionable, market.all)

    # 138,600,000 KRW / 1,400 = 99,000 USDT, x 1.0005 = 99,049.50; 99,400 x 0.999 = 99,300.60; 251.10 are left.
    assert (found.symbol, found.buy, found.sell) == ("BTC-USDT", "upbit", "binance")
    assert found.gross_bps == pytest.approx(400 / 99_000 * 1e4)
    assert found.net_bps == pytest.approx(251.1 / 99_000 * 1e4)
    assert found.size == 0.5
    assert found.fx_size == 90_000.0


def test_an_unconfirmed_exchange_rate_makes_nothing_actionable(provider: MultiExchangeProvider, market: Market) -> None:
    offer_when(provider, lambda offer: offer.actionable, market.all)

    frozen = offer_when(provider, lambda offer: "FX" in offer.reason, market.binance, market.upbit)

    assert "FX USDT-KRW is stale: not confirmed for" in frozen.reason
    assert (frozen.actionable, frozen.net_bps, frozen.size) == (False, None, 0.0)
    assert frozen.fx_age is not None
    assert frozen.fx_age > LIMIT
    books_until(provider, ["binance"], market.binance, market.upbit)
    assert offer_when(provider, lambda offer: offer.actionable, market.all)


def test_a_dead_exchange_is_excluded_within_the_limit_until_it_recovers(
    provider: MultiExchangeProvider, market: Market
) -> None:
    dying = books_until(provider, ["binance"], market.binance, market.rate)

    assert all(part.age is not None and part.age <= LIMIT for book in dying for part in book.parts)
    assert dying[-1].out["upbit"].startswith("upbit BTC-KRW is stale: not confirmed for")
    assert dying[-1].best_ask() == (*BINANCE_ASKS[0], "binance")

    recovered = books_until(provider, ["binance", "upbit"], market.all)

    assert recovered[-1].best_ask() == (99_000.0, 0.5, "upbit")


def test_a_suspect_book_is_excluded_with_its_message(provider: MultiExchangeProvider, market: Market) -> None:
    books_until(provider, ["binance", "upbit"], market.all)
    market.lose_upbit()

    books = books_until(provider, ["binance"], market.binance, market.rate)

    assert books[-1].out["upbit"].startswith("upbit BTC-KRW is suspect")
    assert books[-1].best_ask() == (*BINANCE_ASKS[0], "binance")


async def test_updates_follow_the_bus(provider: MultiExchangeProvider, market: Market) -> None:
    async with asyncio.timeout(10):
        updates = provider.updates("BTC")
        first = (await anext(updates)).snapshot
        market.binance()
        second = (await anext(updates)).snapshot

    assert (first.exchange, second.exchange) == ("multi", "multi")
    assert second.update_id > first.update_id


def test_without_a_server_no_book_is_live_until_it_is_back(own_redis_server: LocalServer) -> None:
    with redis.Redis.from_url(own_redis_server.url) as client:
        market = Market(client)
        market.all()
        with provider_of(own_redis_server.url) as provider:
            books_until(provider, ["binance", "upbit"], market.all)
            own_redis_server.kill()
            wait_for(lambda: provider.read("BTC").status != "live", what="no live book")
            assert provider.get_connection_status().error
            assert provider.get_latest_snapshot("BTC") is not None

            own_redis_server.start()
            books_until(provider, ["binance", "upbit"], market.all)
