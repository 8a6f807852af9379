"""Two feeders of the same books: with another mode or depth, and when the exchange restarts its ids."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import redis
from typer.testing import CliRunner

from bookbus.feeders.__main__ import make_app
from bookbus.feeders.commands.health_check import UNHEALTHY
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.feeders.simulator.core.faults import Fault
from tests.support.book_checker import BookChecker, book_checker
from tests.support.feeder_process import feeder_process
from tests.support.waiting import await_for

NATIVES = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT")


class Beats:
    """The heartbeats of feeders by their names."""

    def __init__(self, redis_url: str) -> None:
        self._redis = redis.Redis.from_url(redis_url, protocol=2, decode_responses=True)

    def of(self, name: str) -> dict[str, Any]:
        """States and refused books; empty without a heartbeat."""
        for key in self._redis.scan_iter(f"md:feeder:{name}-*"):
            states, refused = self._redis.hmget(key, "states", "refused_books")
            return {"states": msgspec.json.decode(states or "{}"), "refused": msgspec.json.decode(refused or "{}")}
        return {}

    def serves(self, name: str) -> bool:
        states = self.of(name).get("states", {})
        return set(states) == set(SYMBOLS) and set(states.values()) == {"live"}

    def close(self) -> None:
        self._redis.close()


@contextmanager
def beats_on(redis_url: str) -> Iterator[Beats]:
    beats = Beats(redis_url)
    try:
        yield beats
    finally:
        beats.close()


def depths(seen: BookChecker) -> set[int]:
    return {book.depth for book in seen.newest.values()}


def starter(redis_url: str, exchange: BinanceSimulator) -> Callable[..., Any]:
    def start(name: str, *options: str) -> Any:
        return feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES, "--feeder-id", name, *options)

    return start


async def more_books(seen: BookChecker, count: int) -> None:
    before = dict(seen.seen)
    await await_for(lambda: all(seen.seen[name] >= before.get(name, 0) + count for name in SYMBOLS), 30, "more books")


@pytest.mark.parametrize(
    ("owner", "other", "reason"),
    [
        (
            ("--depth", "20"),
            ("--depth", "5"),
            "mode diff, depth 20, this feeder has network simulator, mode diff, depth",
        ),
        (("--mode", "partial"), ("--mode", "diff"), "mode partial, depth 20, this feeder has network simulator, mode"),
    ],
)
async def test_a_second_feeder_with_another_shape_waits_until_the_first_one_is_dead(
    redis_url: str, owner: tuple[str, ...], other: tuple[str, ...], reason: str
) -> None:
    async with BinanceSimulator(symbols=NATIVES, seed=31, rate=10.0) as exchange:
        start = starter(redis_url, exchange)
        with beats_on(redis_url) as beats, start("one", *owner) as first:
            await await_for(lambda: beats.serves("one"), 30, "books of the first feeder")
            async with book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen:
                await more_books(seen, 5)
                with start("two", *other) as second:
                    await await_for(lambda: set(beats.of("two").get("refused", ())) == set(SYMBOLS), 30, second.log)
                    reasons = beats.of("two")["refused"]
                    await more_books(seen, 20)

                    assert {book.feeder[:3] for book in seen.newest.values()} == {"one"}
                    assert seen.never_left_live(SYMBOLS)
                    assert seen.gaps == seen.older_after_newer == 0
                    assert all(reason in text and "feeder one-" in text for text in reasons.values()), reasons
                    assert second.log.count("books are refused") == 1
                    assert beats.of("one")["refused"] == {}
                    await asyncio.to_thread(_health_says, redis_url, "two", "BTC-USDT refused: feeder one-")

                    first.process.kill()
                    first.process.wait()
                    await await_for(
                        lambda: {book.feeder[:3] for book in seen.newest.values()} == {"two"}, 30, "the other feeder"
                    )
                    await await_for(lambda: not beats.of("two")["refused"], 10, "an end of the refusals")
                    await more_books(seen, 5)

                    assert seen.wrong == []
                    assert seen.gaps == seen.older_after_newer == 0


def _health_says(redis_url: str, name: str, text: str) -> None:
    result = CliRunner().invoke(make_app(), ["health", "--redis", redis_url, "--feeder-name", name, "--strict"])
    assert text in result.output
    assert result.exit_code == UNHEALTHY


async def test_a_pair_changes_its_depth_without_a_gap(redis_url: str) -> None:
    """New feeders wait beside the old ones, which are then stopped one after the other."""
    async with BinanceSimulator(symbols=NATIVES, seed=32, rate=10.0) as exchange:
        start = starter(redis_url, exchange)
        with (
            beats_on(redis_url) as beats,
            start("old-a", "--depth", "20") as old_a,
            start("old-b", "--depth", "20") as old_b,
        ):
            await await_for(lambda: beats.serves("old-a") and beats.serves("old-b"), 30, "books of the pair")
            async with book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen:
                with start("new-a", "--depth", "10"), start("new-b", "--depth", "10"):
                    await await_for(
                        lambda: all(len(beats.of(name).get("refused", ())) == 3 for name in ("new-a", "new-b")),
                        30,
                        "the new feeders to wait",
                    )
                    assert depths(seen) == {20}
                    assert await asyncio.to_thread(old_a.stop) == 0
                    assert await asyncio.to_thread(old_b.stop) == 0
                    await await_for(lambda: depths(seen) == {10}, 10, "the new depth")
                    await await_for(
                        lambda: not beats.of("new-a")["refused"] and not beats.of("new-b")["refused"], 10, "both to run"
                    )

                    assert seen.never_left_live(SYMBOLS)
                    assert (seen.wrong, seen.gaps, seen.older_after_newer) == ([], 0, 0)


@pytest.mark.parametrize("rate", [10.0, 1.0])
async def test_a_pair_takes_slightly_lower_ids_as_soon_as_both_feeders_have_them(redis_url: str, rate: float) -> None:
    async with BinanceSimulator(symbols=NATIVES, seed=33, rate=rate) as exchange:
        start = starter(redis_url, exchange)
        with beats_on(redis_url) as beats, start("a") as a, start("b") as b:
            await await_for(lambda: beats.serves("a") and beats.serves("b"), 30, "books of the pair")
            async with book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen:
                await more_books(seen, 3)
                old = {name: seen.newest[name].update_id for name in SYMBOLS}

                exchange.inject(Fault(kind="cold_restart"))
                started = time.monotonic()
                fell: dict[str, float] = {}

                def all_fell() -> bool:
                    for name in SYMBOLS:
                        if seen.newest[name].update_id < old[name]:
                            fell.setdefault(name, time.monotonic() - started)
                    return len(fell) == len(SYMBOLS)

                await await_for(all_fell, 15, a.log + b.log)
                assert all(old[name] / 2 < seen.newest[name].update_id for name in SYMBOLS), "far below is another rule"
                assert max(fell.values()) < 5, (fell, a.log, b.log)
                await more_books(seen, 10)

                assert seen.wrong == []
                assert seen.older_after_newer <= len(SYMBOLS), "only the restart itself"
                assert not beats.of("a")["refused"]
                assert not beats.of("b")["refused"]
