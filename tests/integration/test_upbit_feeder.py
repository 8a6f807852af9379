"""The feeder, as a user starts it, against the local Upbit: every live book equals the truth at its time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import redis

from bookbus.feeders import websocket_client
from bookbus.feeders.simulator.core.faults import Fault
from bookbus.feeders.simulator.upbit.exchange import UpbitSimulator
from bookbus.feeders.simulator.upbit.settings import UpbitRules
from bookbus.schemas import wire
from bookbus.schemas.trade import trade_of
from tests.support.book_checker import BookChecker, book_checker
from tests.support.feeder_process import FeederProcess, feeder_process
from tests.support.simulated_upbit import exchange
from tests.support.single_connection import Connected, single_connection
from tests.support.waiting import await_for

NATIVES = ("KRW-BTC", "KRW-ETH", "BTC-ETH", "KRW-XRP")
SYMBOLS = ("BTC-KRW", "ETH-KRW", "ETH-BTC", "XRP-KRW")
QUIET = "XRP-KRW"


@asynccontextmanager
async def running(
    redis_url: str, *arguments: str, faults: tuple[Fault, ...] = (), **options: Any
) -> AsyncIterator[tuple[UpbitSimulator, FeederProcess, BookChecker]]:
    """The exchange, a feeder of it that has all its books, and who sees them; XRP's book rests."""
    upbit = exchange(*NATIVES, quiet=("KRW-XRP",), **options)
    for fault in faults:
        upbit.inject(fault)
    async with upbit, book_checker(redis_url, "upbit", SYMBOLS, upbit.truth) as seen:
        with feeder_process(
            redis_url, upbit.ws_url, upbit.rest_url, NATIVES, "--exchange", "upbit", *arguments
        ) as feeder:
            await await_for(lambda: all(seen.seen[symbol] for symbol in SYMBOLS), 30, "a book of each symbol")
            yield upbit, feeder, seen


async def more_books(seen: BookChecker, count: int) -> None:
    """Wait for so many more of a busy symbol."""
    before = seen.seen["BTC-KRW"]
    await await_for(lambda: seen.seen["BTC-KRW"] >= before + count, 15, f"{count} more books")


def connections(upbit: UpbitSimulator) -> list[dict[str, int]]:
    """What the exchange says of its open connections."""
    found: Any = upbit.status()["connections"]
    return list(found)


def played(upbit: UpbitSimulator, kind: str) -> int:
    """How often a fault matched."""
    counts: Any = upbit.status()["faults_played"]
    return int(counts.get(kind, 0))


async def test_every_live_book_equals_the_truth_at_its_time(redis_url: str) -> None:
    async with running(redis_url) as (_, feeder, seen):
        await more_books(seen, 30)

        assert seen.wrong == [], feeder.log
        assert (seen.unknown_ids, seen.gaps, seen.older_after_newer) == (0, 0, 0)
        assert seen.never_left_live(SYMBOLS)
        book = seen.newest["ETH-BTC"]
        assert (book.exchange, book.native, book.depth) == ("upbit", "BTC-ETH", 20)
        assert book.exchange_us == book.update_id * 1000
        assert len(book.asks) < 20

        await asyncio.to_thread(feeder.stop)
        await await_for(
            lambda: all(seen.newest[symbol].state == "closed" for symbol in SYMBOLS), 5, "closed after a clean stop"
        )


async def test_a_market_that_rests_is_there_and_stays_confirmed(redis_url: str) -> None:
    async with running(redis_url) as (_, feeder, seen):
        with redis.Redis.from_url(redis_url) as client:
            key = f"md:book:upbit:{QUIET}"
            first = int(client.hget(key, "confirmed_us") or 0)
            await await_for(lambda: int(client.hget(key, "confirmed_us") or 0) > first, 6, "a confirmation")
            stored: Any = client.hgetall(key)

        assert wire.decode(stored[b"book"]) == seen.newest[QUIET]
        assert stored[b"state"] == b"live"
        assert int(stored[b"update_id"]) < int(stored[b"confirmed_us"]) // 1000 - 1000
        assert seen.seen[QUIET] == 1, feeder.log


async def test_a_bad_frame_is_skipped_and_no_wrong_book_is_ever_seen(redis_url: str) -> None:
    async with running(redis_url) as (upbit, feeder, seen):
        for kind in (
            "drop",
            "duplicate",
            "reorder",
            "replay_old",
            "malformed_json",
            "invalid_utf8",
            "text",
            "oversized",
            "unknown_type",
            "array_frame",
            "out_of_order",
            "nan_price",
            "negative_price",
            "wrong_types",
            "missing_field",
        ):
            upbit.inject(Fault(kind=kind, count=2))
            await await_for(lambda kind=kind: played(upbit, kind) >= 6, 10, kind)  # type: ignore[misc]
            upbit.clear()
        await more_books(seen, 10)

        assert seen.wrong == [], feeder.log
        assert seen.older_after_newer == 0
        assert seen.never_left_live(SYMBOLS)


async def test_a_crossed_frame_makes_only_its_own_symbol_suspect_until_the_next(redis_url: str) -> None:
    async with running(redis_url) as (upbit, feeder, seen):
        upbit.inject(Fault(kind="crossed", symbols=("KRW-BTC",)))
        await await_for(lambda: seen.states["BTC-KRW"]["suspect"] > 0, 5, "a suspect book")
        await await_for(lambda: seen.newest["BTC-KRW"].state == "live", 5, "a live book")

        assert seen.wrong == [], feeder.log
        assert seen.never_left_live(SYMBOLS[1:])


async def test_of_two_books_in_one_millisecond_the_later_stays(redis_url: str) -> None:
    async with running(redis_url, rate=2.0) as (upbit, feeder, seen):
        upbit.inject(Fault(kind="same_time", symbols=("KRW-BTC",)))
        await await_for(lambda: upbit.status()["faults_played"], 5, "the fault")
        at = max(upbit.known_ids("KRW-BTC", 0))
        await await_for(lambda: seen.newest["BTC-KRW"].update_id >= at, 5, "the book")
        await more_books(seen, 1)

        book = seen.newest["BTC-KRW"]
        assert (book.bids, book.asks) == upbit.truth("KRW-BTC", book.update_id), feeder.log


async def test_a_lost_connection_marks_every_book_suspect_and_heals(redis_url: str) -> None:
    async with running(redis_url) as (upbit, feeder, seen):
        for times, fault in enumerate((Fault(kind="reset"), Fault(kind="close", value=1000)), 1):
            upbit.inject(fault)
            await await_for(
                lambda times=times: all(seen.states[symbol]["suspect"] == times for symbol in SYMBOLS),  # type: ignore[misc]
                2,
                "suspect books",
            )
            await await_for(lambda: all(seen.newest[symbol].state == "live" for symbol in SYMBOLS), 10, "live books")

        assert seen.wrong == [], feeder.log
        assert seen.older_after_newer == 0


async def test_an_error_ends_the_connection_and_it_comes_back_without_a_storm(redis_url: str) -> None:
    refusals = tuple(Fault(kind="ack_error", value="NO_TICKET", connection=number) for number in (1, 2))
    async with running(redis_url, faults=refusals) as (upbit, feeder, seen):
        assert feeder.log.count("upbit refused a subscription: NO_TICKET") == 2
        assert upbit.status()["connects"] == 3
        assert (upbit.status()["connects_refused"], upbit.status()["connects_with_origin"]) == (0, 0)
        assert seen.wrong == []


async def test_trades_are_all_kept_with_the_exchanges_ids(redis_url: str) -> None:
    async with running(redis_url, "--topics", "book,trades") as (_, feeder, _seen):
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            name = "md:trades:upbit:BTC-KRW"
            await await_for(lambda: client.xlen(name) > 20, 15, "trades")
            entries: Any = client.xrange(name)

        trades = [trade_of("upbit", "BTC-KRW", "KRW-BTC", entry_id, fields) for entry_id, fields in entries]
        assert all(trade.trade_id // 10_000 == trade.exchange_us // 1000 for trade in trades)
        assert [trade.trade_id for trade in trades] == sorted({trade.trade_id for trade in trades})
        assert {trade.aggressor for trade in trades} <= {"buy", "sell"}
        assert "Traceback" not in feeder.log


async def test_an_unknown_symbol_is_told_in_one_line(redis_url: str) -> None:
    async with exchange(*NATIVES) as upbit:
        with feeder_process(redis_url, upbit.ws_url, upbit.rest_url, ["KRW-BTCC"], "--exchange", "upbit") as feeder:
            code = await asyncio.to_thread(feeder.process.wait, 20)

            assert code == 1
            assert feeder.log == "error: unknown symbol 'KRW-BTCC' on upbit; did you mean KRW-BTC, KRW-ETH, BTC-KRW?\n"


def adapter(upbit: UpbitSimulator, *symbols: str, timeout: float = 10.0) -> AbstractAsyncContextManager[Connected]:
    """One connection without a feeder."""
    return single_connection(upbit, "upbit", *symbols, timeout=timeout)


async def test_a_symbol_whose_first_book_is_lost_is_asked_for_again(caplog: pytest.LogCaptureFixture) -> None:
    async with exchange("KRW-BTC", "KRW-XRP", rate=0) as upbit:
        upbit.inject(Fault(kind="drop", symbols=("KRW-XRP",)))
        async with adapter(upbit, "BTC", "XRP", timeout=1.0) as (_, books):
            await await_for(lambda: {book.native for book in books} == {"KRW-BTC", "KRW-XRP"}, 5, "both books")

            assert "upbit: no book of KRW-XRP, asking again" in caplog.messages
            (connection,) = connections(upbit)
            assert connection["requests"] == 2
            await await_for(lambda: connections(upbit)[0]["streams"] == 2, 5, "everything subscribed again")


async def test_a_crossed_book_of_a_market_that_rests_is_asked_for_again() -> None:
    async with exchange("KRW-XRP", rate=0) as upbit:
        upbit.inject(Fault(kind="crossed"))
        async with adapter(upbit, "XRP", timeout=1.0) as (_, books):
            await await_for(lambda: books, 5, "the book")

            assert [book.state for book in books] == ["live"]
            assert (books[0].bids, books[0].asks) == upbit.truth("KRW-XRP", books[0].update_id)


@pytest.mark.parametrize("by_client", [False, True], ids=["either side", "only the client"])
async def test_an_adapter_is_never_cut_for_idling(monkeypatch: pytest.MonkeyPatch, by_client: bool) -> None:
    """On a market that rests, and on a busy one where the exchange counts only what it hears."""
    monkeypatch.setattr(websocket_client, "PING_AFTER", 0.2)
    monkeypatch.setattr(websocket_client, "PING_EVERY", 0.2)
    rules = UpbitRules(idle=1.5, idle_by_client=by_client)
    upbit = exchange("KRW-BTC", rate=10.0 if by_client else 0.0, rules=rules)
    async with upbit, adapter(upbit, "BTC") as (line, books):
        await await_for(lambda: books, 5, "the first book")
        first_pong = line.last_pong
        await await_for(lambda: line.last_pong > first_pong + 2 * rules.idle, 10, "pongs")

        assert upbit.status()["idle_cuts"] == 0
        assert len(books) > 10 if by_client else len(books) == 1
