"""Two feeders of the same symbols: a reader cannot tell when one of them dies, sleeps or starts."""

import signal

from feeders.simulator.binance import BinanceSimulator
from tests.support.feeder_process import feeder_process
from tests.support.waiting import await_for
from tests.support.witness import Witness, witness

NATIVES = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT")


async def _more_books(seen: Witness, count: int) -> None:
    before = dict(seen.seen)
    await await_for(lambda: all(seen.seen[name] >= before.get(name, 0) + count for name in SYMBOLS), 30, "more books")


async def test_killing_either_line_is_invisible_to_a_reader(redis_url: str) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=21, rate=10.0) as exchange,
        witness(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        line = (redis_url, exchange.ws_url, exchange.rest_url, NATIVES, "--feeder-id")
        with feeder_process(*line, "a") as a, feeder_process(*line, "b") as b:
            await _more_books(seen, 20)
            await await_for(lambda: len({book.feeder for book in seen.newest.values()}) > 0, 5, "books")
            a.process.kill()
            a.process.wait()
            await _more_books(seen, 30)
            with feeder_process(*line, "c") as c:
                await await_for(lambda: "4 of 4 books live" in c.log, 20, "the third line's books")
                b.process.kill()
                b.process.wait()
                await _more_books(seen, 30)

                assert seen.wrong == [], c.log
                assert seen.gaps == 0
                assert seen.older_after_newer == 0
                assert seen.never_left_live(SYMBOLS)


async def test_a_line_that_slept_never_puts_an_older_book_over_a_newer_one(redis_url: str) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=22, rate=10.0) as exchange,
        witness(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        line = (redis_url, exchange.ws_url, exchange.rest_url, NATIVES, "--feeder-id")
        with feeder_process(*line, "a") as a, feeder_process(*line, "b"):
            await _more_books(seen, 10)
            a.signal(signal.SIGSTOP)
            await _more_books(seen, 80)
            a.signal(signal.SIGCONT)
            await await_for(lambda: "stood still" in a.log, 10, "the line to notice that it slept")
            await _more_books(seen, 40)

            assert seen.wrong == [], a.log
            assert seen.gaps == 0
            assert seen.older_after_newer == 0
            assert seen.never_left_live(SYMBOLS)
