"""Two connections for the same symbols: losing either one costs no book, no snapshot and no update.

`BOOKBUS_LINE_CUTS=100` cuts lines so often.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import bookbus.feeders.exchange_feed
from bookbus.feeders.__main__ import make_app
from bookbus.feeders.exchange_feed import ConnectionSettings, ExchangeFeed, line_reports
from bookbus.feeders.reconnect import ReconnectPolicy
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.feeders.simulator.core.faults import Fault
from bookbus.feeders.simulator.process import create, settings_of
from bookbus.feeders.venue import venue_of
from bookbus.schemas.snapshot import OrderBookSnapshot
from tests.support.book_checker import book_checker
from tests.support.feeder_process import feeder_process
from tests.support.waiting import await_for

app = make_app()

NATIVES = {
    "binance": ("BTCUSDT", "ETHUSDT", "SOLUSDT"),
    "bybit": ("BTCUSDT", "ETHUSDT", "SOLUSDT"),
    "upbit": ("KRW-BTC", "KRW-ETH", "KRW-XRP"),
}
CUTS = int(os.environ.get("BOOKBUS_LINE_CUTS", "4"))

all_venues = pytest.mark.parametrize("exchange", sorted(NATIVES))


class TwoLines:
    """A feed by two connections of each symbol, and every book it told of."""

    def __init__(self, exchange: str, simulator: Any, policy: ReconnectPolicy) -> None:
        self.simulator = simulator
        self.natives = NATIVES[exchange]
        self.books: list[OrderBookSnapshot] = []
        self.feed = ExchangeFeed(
            venue_of(exchange),
            self.natives,
            lambda book, _: self.books.append(book),
            settings=ConnectionSettings(policy=policy, lines=2),
            ws_url=simulator.ws_url,
            rest_url=simulator.rest_url,
        )
        (self.group,) = self.feed.groups

    @property
    def connections(self) -> list[int]:
        """The exchange's numbers of the open ones, oldest first."""
        status: dict[str, Any] = self.simulator.status()
        return [connection["connection"] for connection in status["connections"]]

    async def both_lines(self) -> None:
        """Wait until each brings every update, and did so while the other did; and no snapshot is on its way."""
        await await_for(
            lambda: (
                all(
                    connection.line.ready.is_set() and connection.line.is_connected
                    for connection in self.group.connections
                )
                and len(self.connections) == 2
                and not any(self.feed.snapshots.is_pending(native) for native in self.natives)
            ),
            20,
            "both lines",
        )
        await await_for(
            lambda: (
                min(connection.line.last_frame for connection in self.group.connections)
                > max(connection.line.ready_at for connection in self.group.connections)
            ),
            what="frames of both lines",
        )

    async def more_books(self, count: int) -> None:
        """Wait for so many more of each symbol."""
        have = self._counts()
        await await_for(
            lambda: all(now >= before + count for now, before in zip(self._counts(), have, strict=True)),
            20,
            f"{count} more books",
        )

    def wrong(self) -> list[str]:
        """Live books that differ from the truth at their update id."""
        found = []
        for book in self.books:
            truth = self.simulator.truth(book.native, book.update_id)
            if book.state == "live" and truth is not None and truth != (book.bids, book.asks):
                found.append(f"{book.native} {book.update_id}")
        return found

    def _counts(self) -> Sequence[int]:
        natives = [book.native for book in self.books]
        return [natives.count(native) for native in self.natives]


@asynccontextmanager
async def two_lines(exchange: str, policy: ReconnectPolicy | None = None, **options: Any) -> AsyncIterator[TwoLines]:
    """Both lines are open and their books complete."""
    settings = settings_of(exchange, {"symbols": NATIVES[exchange], "seed": 5, "levels": 200} | options)
    async with create(exchange, settings) as simulator:
        lines = TwoLines(exchange, simulator, policy or ReconnectPolicy(initial=0.05))
        running = asyncio.create_task(lines.feed.run())
        try:
            await await_for(lambda: set(lines.feed.states().values()) == {"live"}, 20, "every book live")
            await lines.both_lines()
            yield lines
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


@all_venues
async def test_a_cut_of_either_line_loses_no_book_and_asks_for_no_snapshot(exchange: str) -> None:
    async with two_lines(exchange) as lines:
        before = lines.feed.counters()
        requests = lines.feed.rest.budget.spent
        for turn in range(CUTS):
            lines.simulator.inject(Fault(kind="reset", connection=lines.connections[turn % 2]))
            await await_for(lambda: lines.feed.connected == 1, what="the cut to be noticed")
            await lines.more_books(3)
            await lines.both_lines()

        assert lines.feed.counters().lost == before.lost == 0
        assert lines.feed.counters().snapshots_asked == before.snapshots_asked
        assert lines.feed.rest.budget.spent == requests
        assert [book.state for book in lines.books if book.state != "live"] == []
        assert lines.wrong() == []
        assert sum(connection.reconnects for connection in lines.feed.connections) == CUTS


@all_venues
async def test_a_silent_line_is_told_within_seconds_replaced_and_told_well_again(
    exchange: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookbus.feeders.exchange_feed, "SILENT_AFTER", 1.0)
    caplog.set_level(logging.INFO, "bookbus.feeders.exchange_feed")
    async with two_lines(exchange) as lines:
        lines.simulator.inject(Fault(kind="silence", connection=lines.connections[0]))
        await await_for(lambda: any(report.silent for report in line_reports(lines.feed.groups)), 15, "the alarm")
        await await_for(lambda: not any(report.silent for report in line_reports(lines.feed.groups)), 15, "its end")
        await await_for(
            lambda: sum(connection.handovers for connection in lines.feed.connections) == 1, 15, "the change"
        )

        told = [record for record in caplog.records if record.name == "bookbus.feeders.exchange_feed"]
        said = [(record.levelname, record.message.partition("line ")[2][2:]) for record in told]
        assert said == [
            ("WARNING", "delivers nothing while another delivers updates"),
            ("INFO", "delivers updates again"),
        ]
        assert lines.feed.counters().lost == 0
        assert lines.wrong() == []
        assert sum(connection.reconnects for connection in lines.feed.connections) == 0


async def test_what_one_line_drops_the_other_brings() -> None:
    async with two_lines("binance") as lines:
        for turn in range(CUTS):
            lines.simulator.inject(Fault(kind="drop", connection=lines.connections[turn % 2], count=2))
            await lines.more_books(3)

        assert lines.simulator.status()["faults_played"]["drop"] > 0
        assert lines.feed.counters().lost == 0
        assert lines.wrong() == []


@pytest.mark.parametrize("exchange", ["binance", "bybit"])
async def test_both_lines_follow_an_exchange_that_begins_its_ids_anew(exchange: str) -> None:
    async with two_lines(exchange) as lines:
        await lines.more_books(5)
        before = {native: lines.feed.current("book", native).update_id for native in lines.natives}
        lines.simulator.inject(Fault(kind="cold_restart"))

        await await_for(
            lambda: all(
                lines.feed.current("book", native).update_id < before[native]
                and lines.feed.current("book", native).state == "live"
                for native in lines.natives
            ),
            10,
            "live books with lower ids",
        )
        await lines.more_books(5)

        assert lines.wrong() == []
        assert set(lines.feed.states().values()) == {"live"}


async def test_an_announced_shutdown_of_both_lines_replaces_one_after_the_other() -> None:
    async with two_lines("binance") as lines:
        at_once: list[int] = []
        lines.simulator.inject(Fault(kind="server_shutdown", value=15.0))

        def replaced() -> bool:
            at_once.append(sum(len(connection.lines) - 1 for connection in lines.feed.connections))
            return all(connection.handovers == 1 for connection in lines.feed.connections)

        await await_for(replaced, 15, "both changes")

        assert max(at_once) == 1
        assert lines.feed.counters().lost == 0
        assert sum(connection.reconnects for connection in lines.feed.connections) == 0


async def test_reports_tell_who_was_first_by_how_much() -> None:
    async with two_lines("binance") as lines:
        await lines.more_books(10)

        reports = line_reports(lines.feed.groups)
        assert [(report.line, report.open, report.silent) for report in reports] == [(1, 1, False), (2, 1, False)]
        assert all(report.updates >= 9 * len(lines.natives) for report in reports)
        assert sum(report.first for report in reports) >= 10 * len(lines.natives)
        assert all(0 <= (report.lead_median_ms or 0) < 1000 for report in reports)


async def test_two_lines_on_the_command_line_show_in_the_heartbeat_and_survive_cuts(redis_url: str) -> None:
    natives, symbols = NATIVES["binance"], ("BTC-USDT", "ETH-USDT", "SOL-USDT")
    async with (
        BinanceSimulator(symbols=natives, seed=6, levels=200) as exchange,
        book_checker(redis_url, "binance", symbols, exchange.truth) as seen,
    ):

        def bringing() -> list[int]:
            """The connections that have brought each symbol ten times and more."""
            connections: Any = exchange.status()["connections"]
            return [each["connection"] for each in connections if each["sent"] > 15 * len(symbols)]

        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, natives, "--lines", "2") as feeder:
            await await_for(lambda: bringing() == [1, 2], 40, "both lines")
            exchange.inject(Fault(kind="reset", connection=1))
            await await_for(lambda: bringing() == [2, 3], 20, "the cut line")
            exchange.inject(Fault(kind="reset", connection=2))
            await await_for(lambda: bringing() == [3, 4], 20, "the other cut line")

            assert seen.never_left_live(symbols), feeder.log
            assert (seen.wrong, seen.gaps) == ([], 0)
            assert min(seen.seen[symbol] for symbol in symbols) > 20
            told = await asyncio.to_thread(health, redis_url)
            assert "line 1: 1 of 1 open, first with" in told
            assert "line 2: 1 of 1 open, first with" in told


def test_a_recording_of_two_lines_is_refused_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["run", "--lines", "2", "--record", str(tmp_path / "capture")])

    assert result.exit_code == 1
    assert result.output == "error: --record writes the frames of one connection: use it with --lines 1\n"


def health(redis_url: str) -> str:
    """What the command says."""
    return CliRunner().invoke(app, ["health", "--redis", redis_url]).output
