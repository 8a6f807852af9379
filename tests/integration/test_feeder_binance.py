"""The feeder, as a user starts it, against the local exchange: every live book equals the truth at its update id."""

import signal

import msgpack
import pytest
import redis

from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.feeders.simulator.core.faults import Fault
from bookbus.schemas import wire
from tests.support.book_checker import book_checker
from tests.support.feeder_process import feeder_process
from tests.support.waiting import await_for

NATIVES = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT")


async def test_every_live_book_equals_the_truth_at_its_update_id(redis_url: str) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=3, rate=10.0) as exchange,
        book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES) as feeder:
            await await_for(lambda: min(seen.seen[symbol] for symbol in SYMBOLS) > 30, 20, "30 books of each symbol")

            assert seen.wrong == [], feeder.log
            assert seen.unknown_ids == 0
            assert seen.gaps == 0
            assert seen.older_after_newer == 0
            assert seen.never_left_live(SYMBOLS)

        await await_for(
            lambda: all(seen.newest[symbol].state == "closed" for symbol in SYMBOLS), 5, "closed after a clean stop"
        )


async def test_partial_mode_needs_no_request(redis_url: str) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=4, rate=10.0) as exchange,
        book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        exchange.inject(Fault(kind="rest_status", value=503, seconds=60))
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES, "--mode", "partial") as feeder:
            await await_for(lambda: min(seen.seen[symbol] for symbol in SYMBOLS) > 20, 30, "20 books of each symbol")

            assert seen.wrong == [], feeder.log
            assert seen.never_left_live(SYMBOLS)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="drop", symbols=NATIVES[:1], count=2),
        Fault(kind="reorder", symbols=NATIVES[:1]),
        Fault(kind="malformed_json", symbols=NATIVES[:1]),
        Fault(kind="crossed", symbols=NATIVES[:1]),
    ],
    ids=lambda fault: fault.kind,
)
async def test_a_faulty_stream_makes_only_its_own_symbol_suspect(redis_url: str, fault: Fault) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=5, rate=10.0) as exchange,
        book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES) as feeder:
            await await_for(lambda: min(seen.seen[symbol] for symbol in SYMBOLS) > 5, 20, "books of each symbol")

            exchange.inject(fault)
            await await_for(lambda: seen.states[SYMBOLS[0]]["suspect"] > 0, 5, "the faulty symbol to become suspect")
            await await_for(lambda: seen.newest[SYMBOLS[0]].state == "live", 5, "the faulty symbol to be live again")

            assert seen.wrong == [], feeder.log
            assert seen.older_after_newer == 0
            assert seen.never_left_live(SYMBOLS[1:])


async def test_a_duplicate_changes_nothing(redis_url: str) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=6, rate=10.0) as exchange,
        book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES) as feeder:
            await await_for(lambda: min(seen.seen[symbol] for symbol in SYMBOLS) > 5, 20, "books of each symbol")
            exchange.inject(Fault(kind="duplicate", count=5))
            count = dict(seen.seen)
            await await_for(lambda: all(seen.seen[symbol] > count[symbol] + 10 for symbol in SYMBOLS), 10, "more books")

            assert seen.wrong == [], feeder.log
            assert seen.never_left_live(SYMBOLS)


async def test_an_announced_shutdown_is_survived_without_a_suspect_book(redis_url: str) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=7, rate=10.0) as exchange,
        book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES) as feeder:
            await await_for(lambda: min(seen.seen[symbol] for symbol in SYMBOLS) > 5, 20, "books of each symbol")
            exchange.inject(Fault(kind="server_shutdown", value=3.0))
            count = dict(seen.seen)
            await await_for(lambda: all(seen.seen[symbol] > count[symbol] + 60 for symbol in SYMBOLS), 20, "more books")

            assert seen.wrong == [], feeder.log
            assert seen.gaps == 0
            assert seen.never_left_live(SYMBOLS), feeder.log


async def test_a_cut_connection_marks_every_book_suspect_and_heals(redis_url: str) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=8, rate=10.0) as exchange,
        book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES) as feeder:
            await await_for(lambda: min(seen.seen[symbol] for symbol in SYMBOLS) > 5, 20, "books of each symbol")
            exchange.inject(Fault(kind="reset"))
            await await_for(lambda: all(seen.states[symbol]["suspect"] for symbol in SYMBOLS), 2, "suspect books")
            await await_for(lambda: all(seen.newest[symbol].state == "live" for symbol in SYMBOLS), 10, "live books")

            assert seen.wrong == [], feeder.log
            assert seen.older_after_newer == 0


async def test_a_stopped_and_resumed_feeder_discards_what_it_holds(redis_url: str) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=9, rate=10.0) as exchange,
        book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES) as feeder:
            await await_for(lambda: min(seen.seen[symbol] for symbol in SYMBOLS) > 5, 20, "books of each symbol")
            feeder.signal(signal.SIGSTOP)
            stopped = {symbol: seen.newest[symbol] for symbol in SYMBOLS}
            ids = [max(exchange.known_ids(native, 0)) for native in NATIVES]
            await await_for(
                lambda: all(
                    len(exchange.known_ids(native, since)) > 60 for native, since in zip(NATIVES, ids, strict=True)
                ),
                20,
                "six seconds of market",
            )
            feeder.signal(signal.SIGCONT)
            await await_for(
                lambda: all(seen.newest[symbol].update_id > stopped[symbol].update_id for symbol in SYMBOLS),
                15,
                "newer books",
            )

            assert "stalled for" in feeder.log
            assert seen.wrong == [], feeder.log
            assert seen.older_after_newer == 0
            # The first book after the pause is of after the pause: nothing that was held went out.
            assert all(seen.newest[symbol].update_id > since for symbol, since in zip(SYMBOLS, ids, strict=True))


async def test_the_hash_is_readable_and_plain_msgpack(redis_url: str) -> None:
    async with BinanceSimulator(symbols=NATIVES[:1], seed=10, rate=10.0) as exchange:
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES[:1]):
            client = redis.Redis.from_url(redis_url)
            key = "md:book:binance:BTC-USDT"
            await await_for(lambda: client.hget(key, "state") == b"live", 15, "a live book")
            fields = client.hgetall(key)

            blob = fields[b"book"]
            assert isinstance(blob, bytes)
            book = msgpack.unpackb(blob)
            assert wire.decode(blob).symbol == "BTC-USDT"
            assert book["seq"] == int(fields[b"seq"])
            assert float(fields[b"bid"]) == book["bids"][0][0]
            assert float(fields[b"ask"]) == book["asks"][0][0]
            await await_for(lambda: client.sismember("md:books", key), 3, "the name among the books")
            client.close()
