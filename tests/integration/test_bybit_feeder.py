"""The feeder, as a user starts it, against the local Bybit: every live book equals the truth at its update id."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis

from bookbus.feeders.exchanges.adapter import FeedAdapter
from bookbus.feeders.simulator.bybit.exchange import BybitRules, BybitSimulator
from bookbus.feeders.simulator.core.faults import Fault
from bookbus.schemas.trade import trade_of
from tests.support.book_checker import BookChecker, book_checker
from tests.support.feeder_process import FeederProcess, feeder_process
from tests.support.single_connection import single_connection
from tests.support.waiting import await_for

# More than one request may name.
BASES = ("BTC", "ETH", "SOL", "XRP", "BNB", "ADA", "DOGE", "TRX", "LTC", "LINK", "DOT")
NATIVES = (*(f"{base}USDT" for base in BASES), "ETHBTC")
SYMBOLS = (*(f"{base}-USDT" for base in BASES), "ETH-BTC")
FIRST, OTHERS = SYMBOLS[0], SYMBOLS[1:]


@asynccontextmanager
async def running(
    redis_url: str, *arguments: str, faults: tuple[Fault, ...] = (), **options: Any
) -> AsyncIterator[tuple[BybitSimulator, FeederProcess, BookChecker]]:
    """The exchange, a feeder of it that has all its books, and who sees them."""
    bybit = BybitSimulator(symbols=NATIVES, **{"seed": 3, "levels": 300} | options)
    for fault in faults:
        bybit.inject(fault)
    async with bybit, book_checker(redis_url, "bybit", SYMBOLS, bybit.truth) as seen:
        with feeder_process(
            redis_url, bybit.ws_url, bybit.rest_url, NATIVES, "--exchange", "bybit", *arguments
        ) as feeder:
            await await_for(lambda: all(seen.seen[symbol] > 3 for symbol in SYMBOLS), 30, "books of each symbol")
            yield bybit, feeder, seen


async def more_books(seen: BookChecker, count: int) -> None:
    """Wait for so many more of each symbol."""
    before = dict(seen.seen)
    await await_for(
        lambda: all(seen.seen[symbol] >= before[symbol] + count for symbol in SYMBOLS), 20, f"{count} more books"
    )


def status(bybit: BybitSimulator) -> dict[str, Any]:
    return bybit.status()


async def test_every_live_book_equals_the_truth_at_its_update_id(redis_url: str) -> None:
    async with running(redis_url) as (bybit, feeder, seen):
        await more_books(seen, 30)

        assert seen.wrong == [], feeder.log
        assert (seen.unknown_ids, seen.gaps, seen.older_after_newer) == (0, 0, 0)
        assert seen.never_left_live(SYMBOLS)
        assert {book.depth for book in seen.newest.values()} == {20}
        assert status(bybit)["connects"] == 1

        feeder.stop()
        await await_for(
            lambda: all(seen.newest[symbol].state == "closed" for symbol in SYMBOLS), 5, "closed after a clean stop"
        )


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="drop", symbols=NATIVES[:1]),
        Fault(kind="reorder", symbols=NATIVES[:1]),
        Fault(kind="malformed_json", symbols=NATIVES[:1]),
        Fault(kind="crossed", symbols=NATIVES[:1]),
        Fault(kind="missing_field", symbols=NATIVES[:1]),
    ],
    ids=lambda fault: fault.kind,
)
async def test_a_faulty_stream_loses_only_its_own_symbol_which_is_subscribed_anew(redis_url: str, fault: Fault) -> None:
    async with running(redis_url) as (bybit, feeder, seen):
        bybit.inject(fault)
        await await_for(lambda: seen.states[FIRST]["suspect"] > 0, 5, "the faulty symbol to become suspect")
        await await_for(lambda: seen.newest[FIRST].state == "live", 5, "the faulty symbol to be live again")
        await more_books(seen, 10)

        assert seen.wrong == [], feeder.log
        assert seen.older_after_newer == 0
        assert seen.states[FIRST]["suspect"] == 1
        assert seen.never_left_live(OTHERS)
        assert status(bybit)["connects"] == 1
        assert status(bybit)["connections"][0]["streams"] == len(NATIVES)


async def test_what_comes_twice_or_late_changes_nothing(redis_url: str) -> None:
    async with running(redis_url) as (bybit, feeder, seen):
        for kind in ("duplicate", "replay_old", "unknown_type", "array_frame", "binary"):
            bybit.inject(Fault(kind=kind, count=3))
            await more_books(seen, 8)

        assert seen.wrong == [], feeder.log
        assert seen.older_after_newer == 0
        assert seen.never_left_live(SYMBOLS)


async def test_a_restarted_service_starts_its_ids_again_on_the_same_connection(redis_url: str) -> None:
    async with running(redis_url) as (bybit, feeder, seen):
        before = {symbol: seen.newest[symbol].update_id for symbol in SYMBOLS}
        bybit.inject(Fault(kind="cold_restart"))
        await await_for(
            lambda: all(
                seen.newest[symbol].update_id < before[symbol] and seen.newest[symbol].state == "live"
                for symbol in SYMBOLS
            ),
            3,
            "live books of the new service",
        )
        await more_books(seen, 10)

        assert seen.wrong == [], feeder.log
        assert status(bybit)["connects"] == 1


async def test_a_pair_follows_a_restarted_service_as_fast_as_one_feeder(redis_url: str) -> None:
    async with running(redis_url) as (bybit, feeder, seen):
        with feeder_process(redis_url, bybit.ws_url, bybit.rest_url, NATIVES, "--exchange", "bybit") as twin:
            await await_for(lambda: "12 of 12 books live" in twin.log, 40, "the twin's books")
            before = {symbol: seen.newest[symbol].update_id for symbol in SYMBOLS}
            bybit.inject(Fault(kind="cold_restart"))
            await await_for(
                lambda: all(
                    seen.newest[symbol].update_id < before[symbol] and seen.newest[symbol].state == "live"
                    for symbol in SYMBOLS
                ),
                3,
                "live books of the new service",
            )
            await more_books(seen, 10)

            assert seen.wrong == [], (feeder.log, twin.log)
            assert seen.gaps == 0


async def test_a_lost_connection_marks_every_book_suspect_and_heals(redis_url: str) -> None:
    async with running(redis_url) as (bybit, feeder, seen):
        for times, fault in enumerate((Fault(kind="reset"), Fault(kind="close", value=1000)), 1):
            bybit.inject(fault)
            await await_for(
                lambda times=times: all(seen.states[symbol]["suspect"] == times for symbol in SYMBOLS),  # type: ignore[misc]
                2,
                "suspect books",
            )
            await await_for(lambda: all(seen.newest[symbol].state == "live" for symbol in SYMBOLS), 10, "live books")
            await more_books(seen, 5)

        assert seen.wrong == [], feeder.log
        assert seen.older_after_newer == 0


async def test_a_refused_subscription_is_asked_for_again_on_another_connection(redis_url: str) -> None:
    refusal = Fault(kind="ack_error", value="args size >10", connection=1, count=1)
    async with running(redis_url, faults=(refusal,)) as (bybit, feeder, seen):
        assert feeder.log.count("bybit refused a subscription: args size >10") == 1
        assert status(bybit)["connects"] == 2
        assert seen.wrong == []


async def test_deeper_books_come_from_a_deeper_topic(redis_url: str) -> None:
    async with running(redis_url, "--depth", "60", changes=3) as (_, feeder, seen):
        await more_books(seen, 20)

        # What is remembered of the truth ends before the sixtieth level.
        assert {len(book.bids) for book in seen.newest.values()} == {60}
        assert seen.never_left_live(SYMBOLS), feeder.log


def ignored(client: "redis.Redis") -> dict[str, int]:
    """What the only feeder's heartbeat says it does not use."""
    told: Any = [client.hget(key, "ignored") for key in client.scan_iter("md:feeder:*")]
    counts: dict[str, int] = json.loads(told[0]) if told else {}
    return counts


async def test_trades_are_all_kept_with_the_takers_side(redis_url: str) -> None:
    async with running(redis_url, "--topics", "book,trades") as (_, feeder, _seen):
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            name = f"md:trades:bybit:{FIRST}"
            await await_for(lambda: client.xlen(name) > 20, 15, "trades")
            entries: Any = client.xrange(name)
            await await_for(
                lambda: {"block trade", "RPI trade"} <= ignored(client).keys(), 10, "trades beside the book"
            )

        trades = [trade_of("bybit", FIRST, NATIVES[0], entry_id, fields) for entry_id, fields in entries]
        ids = [trade.trade_id for trade in trades]
        assert ids == list(range(ids[0], ids[0] + len(ids)))
        assert {trade.aggressor for trade in trades} == {"buy", "sell"}
        assert "Traceback" not in feeder.log


async def test_the_markets_with_the_greatest_turnover_are_the_exchanges_own(redis_url: str) -> None:
    async with BybitSimulator(symbols=NATIVES, levels=100, seed=3) as bybit:
        with feeder_process(redis_url, bybit.ws_url, bybit.rest_url, ["top:3"], "--exchange", "bybit"):
            await await_for(lambda: status(bybit)["connections"][:1], 15, "a connection")
            await await_for(lambda: status(bybit)["connections"][0]["streams"] == 3, 15, "three topics")


async def test_an_adapter_is_never_cut_for_want_of_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FeedAdapter, "keepalive_interval", 0.5)
    rules = BybitRules(idle=2.5)
    async with (
        BybitSimulator(symbols=("BTCUSDT",), levels=100, rules=rules) as bybit,
        single_connection(bybit, "bybit", "BTC") as (line, books),
    ):
        # Ten updates a second: twice the time after which a silent client is cut.
        await await_for(lambda: len(books) > 20 * rules.idle, 20, "books")

        assert status(bybit)["idle_cuts"] == 0
        assert line.feed.counters.skipped == 0
