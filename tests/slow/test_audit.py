"""A feeder that audits its books against the local exchange: no false alarm, and nothing wrong stays."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
import redis
from typer.testing import CliRunner

from bookbus.feeders.__main__ import make_app
from bookbus.feeders.exchanges.binance_ws_adapter import VENUE, BinanceAudit
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.feeders.simulator.bybit.exchange import BybitSimulator
from bookbus.feeders.simulator.core.faults import Fault
from bookbus.schemas.heartbeat import AuditReport, SymbolAudit
from tests.support.book_checker import BookChecker, book_checker
from tests.support.feeder_process import feeder_process
from tests.support.waiting import await_for

app = make_app()

NATIVES = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT")
OFTEN = ("--audit-interval", "0.05")

_decode = msgspec.json.Decoder(AuditReport | None).decode


class Reports:
    """The audit report of the only feeder."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    @property
    def newest(self) -> AuditReport:
        told = [self._client.hget(key, "audit") for key in self._client.scan_iter("md:feeder:*")]
        return (_decode(told[0]) if told and told[0] else None) or AuditReport(symbols=0, prices=0, total=SymbolAudit())

    async def matched(self, more: int) -> bool:
        """Wait for so many equal books; whether none was different meanwhile."""
        before = self.newest.total
        await await_for(lambda: self.newest.total.matched >= before.matched + more, 20, f"{more} equal books")
        return self.newest.total.mismatched == before.mismatched


@pytest.fixture
def reports(redis_url: str) -> Iterator[Reports]:
    with redis.Redis.from_url(redis_url) as client:
        yield Reports(client)


async def audit_command(url: str) -> tuple[int, str]:
    """Exit code and everything printed."""
    result = await asyncio.to_thread(CliRunner().invoke, app, ["audit", "--redis", url])
    return result.exit_code, result.output


@contextlib.asynccontextmanager
async def rest_of(exchange: BinanceSimulator) -> AsyncIterator[RestClient]:
    rest = VENUE.rest(exchange.rest_url, timeout=5)
    try:
        yield rest
    finally:
        await rest.close()


async def see_more(seen: BookChecker, count: int) -> None:
    wanted = seen.compared + count
    await await_for(lambda: seen.compared >= wanted, 10, "more books")


async def test_right_books_stay_live_and_a_silently_corrupted_level_is_found(redis_url: str, reports: Reports) -> None:
    async with (
        BinanceSimulator(symbols=NATIVES, seed=21, rate=10.0, rest_delay=0.05) as exchange,
        book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES, *OFTEN) as feeder:
            assert await reports.matched(30), feeder.log
            clean = reports.newest
            assert seen.wrong == [], feeder.log
            assert seen.never_left_live(SYMBOLS), feeder.log

            exchange.inject(Fault(kind="corrupt_level", symbols=NATIVES[:1], count=3))
            await await_for(lambda: seen.states["BTC-USDT"]["suspect"], 20, "a suspect book")
            await await_for(lambda: exchange.status()["faults_played"] == {"corrupt_level": 3}, 10, "the faults")
            await await_for(lambda: seen.newest["BTC-USDT"].state == "live", 10, "a live book")
            while not await reports.matched(15):
                pass
            wrong = list(seen.wrong)
            await see_more(seen, 60)

            assert clean.symbols == len(SYMBOLS)
            assert clean.total.levels > 150 * clean.total.matched
            assert seen.wrong == wrong, feeder.log
            assert {entry.partition(" ")[0] for entry in wrong} <= {"BTC-USDT"}
            assert seen.never_left_live(SYMBOLS[1:]), feeder.log
            assert list(reports.newest.worst) == ["BTC-USDT"]
            code, output = await audit_command(redis_url)
            assert code == 1
            assert "BTC-USDT" in output


@pytest.mark.parametrize("depth", ["20", "200"])
async def test_books_by_another_counter_are_right_and_a_corrupted_level_is_found(
    redis_url: str, reports: Reports, depth: str
) -> None:
    async with (
        BybitSimulator(symbols=NATIVES, seed=21, rate=10.0, rest_delay=0.05) as exchange,
        book_checker(redis_url, "bybit", SYMBOLS, exchange.truth) as seen,
    ):
        arguments = ("--exchange", "bybit", "--depth", depth, "--audit-interval", "0.05")
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, NATIVES, *arguments) as feeder:
            assert await reports.matched(4), feeder.log
            clean = reports.newest
            assert seen.never_left_live(SYMBOLS), feeder.log

            exchange.inject(Fault(kind="corrupt_level", symbols=NATIVES[:1], every=0.5))
            await await_for(lambda: list(reports.newest.worst) == ["BTC-USDT"], 90, "a difference in the report")

            assert "differs from the exchange's answer" in feeder.log
            assert clean.total.mismatched == 0
            assert clean.total.levels > 50 * clean.total.matched
            assert seen.never_left_live(SYMBOLS[1:]), feeder.log


async def test_best_prices_of_all_symbols_come_in_one_request() -> None:
    async with BinanceSimulator(symbols=NATIVES, seed=24, rate=0.0001) as exchange:
        async with rest_of(exchange) as rest:
            best = await BinanceAudit().fetch_best_prices(rest)

        assert set(best) == set(NATIVES)
        for native in NATIVES:
            bids, asks = exchange.truth(native, exchange.known_ids(native, 0)[-1], 1) or ((), ())
            assert best[native] == (bids[0][0], asks[0][0])
        assert exchange.status()["weight_used"] == rest.budget.spent == 4
