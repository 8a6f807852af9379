"""Two feeders of the same symbols: a reader cannot tell when one of them dies, sleeps or starts.

`BOOKBUS_PAIR_TURNS=100` kills, stops and restarts either feeder so often, and logs what readers saw.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import redis

from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.feeders.simulator.process import create, settings_of
from bookbus.schemas.snapshot import BookStatus, Levels
from tests.support.book_checker import BookChecker, book_checker
from tests.support.feeder_process import FeederProcess, feeder_process
from tests.support.waiting import await_for

NATIVES = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT")

CI_TURNS = 4
TURNS = int(os.environ.get("BOOKBUS_PAIR_TURNS", CI_TURNS))
WAYS = ("kill", "stop", "restart")
NAMES = ("a", "b")

MARKETS = {
    "binance": (NATIVES, SYMBOLS),
    "bybit": (NATIVES, SYMBOLS),
    "upbit": (("KRW-BTC", "KRW-ETH", "KRW-XRP"), ("BTC-KRW", "ETH-KRW", "XRP-KRW")),
}
"""Native and standard symbols."""

logger = logging.getLogger(__name__)


async def _more_books(seen: BookChecker, count: int) -> None:
    before = dict(seen.seen)
    await await_for(lambda: all(seen.seen[name] >= before.get(name, 0) + count for name in SYMBOLS), 30, "more books")


async def test_a_line_that_slept_never_puts_an_older_book_over_a_newer_one(redis_url: str) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=22, rate=10.0) as exchange,
        book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        line = (redis_url, exchange.ws_url, exchange.rest_url, NATIVES, "--feeder-id")
        with feeder_process(*line, "a") as a, feeder_process(*line, "b"):
            await _more_books(seen, 10)
            a.signal(signal.SIGSTOP)
            await _more_books(seen, 80)
            a.signal(signal.SIGCONT)
            await await_for(lambda: "stalled for" in a.log, 10, "the line to notice that it slept")
            await _more_books(seen, 40)

            assert seen.wrong == [], a.log
            assert seen.gaps == 0
            assert seen.older_after_newer == 0
            assert seen.never_left_live(SYMBOLS)


class Pair:
    """Feeders a and b of one simulated exchange, and every update of it that reached the bus."""

    def __init__(self, redis_url: str, name: str, exchange: Any) -> None:
        self._natives, _ = MARKETS[name]
        self._redis = redis.Redis.from_url(redis_url, protocol=2, decode_responses=True)
        self._exchange = exchange
        urls = (redis_url, exchange.ws_url, exchange.rest_url)
        self._line = (*urls, self._natives, "--exchange", name, "--feeder-id")
        self._open = contextlib.ExitStack()
        self._feeders: dict[str, FeederProcess] = {}
        self._published: dict[str, set[int]] = {native: set() for native in self._natives}
        self._judged: dict[str, int] = {}
        self._merged: dict[str, float] = {}
        self.unpublished: list[str] = []

    def __enter__(self) -> "Pair":
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._redis.close()

    def truth(self, native: str, update_id: int) -> tuple[Levels, Levels] | None:
        """The exchange's, with a note that this update was published."""
        self._published[native].add(update_id)
        truth: tuple[Levels, Levels] | None = self._exchange.truth(native, update_id)
        return truth

    def log(self, name: str) -> str:
        return self._feeders[name].log

    def start(self, name: str) -> None:
        self._feeders[name] = self._open.enter_context(feeder_process(*self._line, name))

    def end(self, name: str, way: str) -> None:
        """`kill` leaves no time for a word; the other ways do."""
        feeder = self._feeders[name]
        if way == "kill":
            feeder.process.kill()
            feeder.process.wait()
        else:
            assert feeder.stop() == 0, feeder.log

    async def serves(self, name: str) -> None:
        """Wait until this feeder says that each of its books is live."""
        pid = str(self._feeders[name].process.pid)
        await await_for(lambda: pid in self._serving(), 60, f"the books of feeder {name}")

    def merged(self) -> float:
        """Updates that a feeder replaced by newer ones, or brought after its twin's newer ones, by its own account."""
        list(self._serving())
        return sum(self._merged.values())

    def judge(self) -> None:
        """Look which updates since the last time were not published although they changed what is published."""
        for native in self._natives:
            newest = max(self._published[native])
            ids = self._exchange.known_ids(native, self._judged.get(native, min(self._published[native])))
            ids = [update_id for update_id in ids if update_id <= newest]
            self._judged[native] = ids[-1]
            for before, update_id in pairwise(ids):
                changed = self._exchange.truth(native, before) != self._exchange.truth(native, update_id)
                if changed and update_id not in self._published[native]:
                    self.unpublished.append(f"{native} {update_id}")

    def _serving(self) -> Iterator[str]:
        """Process ids of the feeders all of whose books are live."""
        for key in self._redis.scan_iter("md:feeder:*"):
            pid, states, counters = self._redis.hmget(key, "pid", "states", "counters")
            known = msgspec.json.decode(states or "{}", type=dict[str, str])
            count = msgspec.json.decode(counters or "{}", type=dict[str, float])
            self._merged[str(key)] = count.get("conflated", 0) + count.get("duplicates", 0)
            if len(known) == len(self._natives) and set(known.values()) == {"live"}:
                yield str(pid)


@contextlib.asynccontextmanager
async def _statuses(redis_url: str, exchange: str) -> AsyncIterator[Counter[BookStatus]]:
    """How often a reader, looking again and again, saw books in each status."""
    symbols = MARKETS[exchange][1]
    provider = RedisMarketDataProvider(redis_url, exchange, symbols)
    await asyncio.to_thread(provider.start)
    seen: Counter[BookStatus] = Counter()

    async def look() -> None:
        while True:
            seen.update(provider.read(symbol).status for symbol in symbols)
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    try:
        yield seen
    finally:
        looking.cancel()
        await asyncio.to_thread(provider.stop)


async def _a_while(statuses: Counter[BookStatus]) -> None:
    """Longer than a quiet book goes unconfirmed."""
    before = statuses.total()
    await await_for(lambda: statuses.total() > before + 600, 30, "looks at the books")


long = pytest.mark.long(TURNS > CI_TURNS, "BOOKBUS_PAIR_TURNS asks for it")


@pytest.mark.parametrize(
    ("market", "rate"),
    [
        pytest.param("binance", 10.0, id="binance"),
        pytest.param("binance", 0.1, id="quiet", marks=long),
        pytest.param("bybit", 10.0, id="bybit", marks=long),
        pytest.param("upbit", 10.0, id="upbit", marks=long),
    ],
)
async def test_readers_of_a_pair_miss_nothing_while_either_feeder_is_killed_stopped_or_restarted(
    redis_url: str, market: str, rate: float
) -> None:
    natives, symbols = MARKETS[market]
    async with create(market, settings_of(market, {"symbols": natives, "seed": 23, "rate": rate})) as exchange:
        with Pair(redis_url, market, exchange) as pair:
            async with book_checker(redis_url, market, symbols, pair.truth) as seen:
                for name in NAMES:
                    pair.start(name)
                for name in NAMES:
                    await pair.serves(name)
                await await_for(lambda: set(seen.seen) == set(symbols), 30, "books")
                async with _statuses(redis_url, market) as statuses:
                    for turn in range(TURNS):
                        name, way = NAMES[turn % len(NAMES)], WAYS[turn % len(WAYS)]
                        # In a thread: the exchange lives on this loop and must not stand still meanwhile.
                        await asyncio.to_thread(pair.end, name, way)
                        if way != "restart":
                            await _a_while(statuses)
                        pair.start(name)
                        await pair.serves(name)
                        pair.judge()
                        told = (turn, name, way, pair.log(name))
                        assert seen.never_left_live(symbols), told
                        assert set(statuses) == {BookStatus.LIVE}, (statuses, *told)
                        assert (seen.wrong, seen.gaps, seen.older_after_newer) == ([], 0, 0), told
                figures = {
                    "market": market,
                    "turns": TURNS,
                    "books seen": sum(seen.seen.values()),
                    "compared with the truth": seen.compared,
                    "looks": sum(statuses.values()),
                    "updates merged into newer ones": len(pair.unpublished),
                }
                logger.info("%s", figures)
                # What is not published was merged into what is; an update that nobody accounts for is lost.
                await await_for(lambda: len(pair.unpublished) <= pair.merged(), 5, "an account of each update")
