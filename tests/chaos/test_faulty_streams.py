"""Fifty busy symbols with faults on ten of them: no wrong book, and no effect on the other forty."""

import os
import random

from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.feeders.simulator.core.faults import FRAME_FAULTS, Fault
from bookbus.schemas.instruments import EXCHANGES, guess_instrument
from tests.support.book_checker import BookChecker, book_checker
from tests.support.feeder_process import feeder_process
from tests.support.waiting import await_for

SECONDS = float(os.environ.get("BOOKBUS_CHAOS_SECONDS", "10"))
"""Duration of the faults; 60 in the figures of the documentation."""

QUIET_SECONDS = float(os.environ.get("BOOKBUS_QUIET_SECONDS", "5"))
"""Duration without faults; 600 in the figures of the documentation."""

SYMBOL_FAULTS = (*FRAME_FAULTS, "stale_snapshot", "empty_snapshot")
BUDGET_PER_MINUTE = 3_000


def _standard(native: str) -> str:
    return guess_instrument(EXCHANGES["binance"], native).symbol


async def _compare_more(seen: BookChecker, count: int) -> None:
    wanted = seen.compared + count
    await await_for(lambda: seen.compared >= wanted, 10, "more books")


async def test_faults_on_ten_of_fifty_symbols_make_no_book_wrong(redis_url: str) -> None:
    async with BinanceSimulator(symbols=50, seed=11, rate=10.0, truth_flushes=3000) as exchange:
        trading = exchange.symbols
        faulty, healthy = trading[:10], [_standard(native) for native in trading[10:]]
        symbols = [_standard(native) for native in trading]
        async with book_checker(redis_url, "binance", symbols, exchange.truth) as seen:
            with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, trading) as feeder:
                await await_for(lambda: all(seen.seen[symbol] > 2 for symbol in symbols), 30, "all books")
                choice, before = random.Random(12), seen.compared
                while seen.compared - before < SECONDS * 10 * len(healthy):
                    exchange.inject(Fault(kind=choice.choice(SYMBOL_FAULTS), symbols=(choice.choice(faulty),)))
                    await _compare_more(seen, 100)
                exchange.clear()
                await await_for(
                    lambda: all(seen.newest[symbol].state == "live" for symbol in symbols), 10, "all books live again"
                )

                played, weight = exchange.status()["faults_played"], exchange.status()["weight_highest"]
                assert isinstance(played, dict)
                assert isinstance(weight, int)
                print(  # noqa: T201 - the figures of a long run are read by a person
                    f"{seen.compared} live books compared, {len(seen.wrong)} wrong, {seen.gaps} missed by the reader, "
                    f"{sum(states['suspect'] for states in seen.states.values())} times suspect, "
                    f"{sum(played.values())} faults, highest weight {weight}"
                )
                assert seen.wrong == [], feeder.log
                assert seen.unknown_ids == 0
                assert seen.older_after_newer == 0
                assert seen.never_left_live(healthy), feeder.log
                assert weight <= BUDGET_PER_MINUTE


async def test_without_faults_no_book_is_ever_suspect(redis_url: str) -> None:
    async with BinanceSimulator(symbols=50, seed=13, rate=10.0) as exchange:
        symbols = [_standard(native) for native in exchange.symbols]
        async with book_checker(redis_url, "binance", symbols, exchange.truth) as seen:
            with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, exchange.symbols) as feeder:
                await await_for(lambda: all(seen.seen[symbol] > 2 for symbol in symbols), 30, "all books")
                wanted = seen.compared + QUIET_SECONDS * 10 * len(symbols) * 0.95
                await await_for(lambda: seen.compared > wanted, QUIET_SECONDS * 2 + 30, "a long quiet run")

                print(f"{seen.compared} live books compared, {len(seen.wrong)} wrong, {seen.gaps} missed")  # noqa: T201
                assert seen.wrong == [], feeder.log
                assert seen.unknown_ids == 0
                assert seen.never_left_live(symbols), feeder.log
