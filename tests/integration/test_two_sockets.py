"""Two connections for the same symbols: losing either one costs no book, no snapshot and no update."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from feeders.exchange_feed import ConnectionSettings, ExchangeFeed
from feeders.exchanges.adapter import Wiring
from feeders.exchanges.venue import venue_of
from feeders.reconnect import ReconnectPolicy
from feeders.simulator.exchanges import create, settings_of
from feeders.simulator.faults import Fault
from schemas.snapshot import OrderBookSnapshot
from tests.support.waiting import await_for

NATIVES = {
    "binance": ("BTCUSDT", "ETHUSDT", "SOLUSDT"),
    "bybit": ("BTCUSDT", "ETHUSDT", "SOLUSDT"),
    "upbit": ("KRW-BTC", "KRW-ETH", "KRW-XRP"),
}
CUTS = 4

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
            self.books.append,
            Wiring(ws_url=simulator.ws_url, rest_url=simulator.rest_url),
            ConnectionSettings(policy=policy, lines=2),
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
                all(keeper.line.ready.is_set() and keeper.line.is_connected for keeper in self.group.keepers)
                and len(self.connections) == 2
                and not any(self.feed.snapshots.is_pending(native) for native in self.natives)
            ),
            20,
            "both lines",
        )
        await await_for(
            lambda: (
                min(keeper.line.last_frame for keeper in self.group.keepers)
                > max(keeper.line.ready_at for keeper in self.group.keepers)
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
        assert sum(keeper.reconnects for keeper in lines.feed.keepers) == CUTS
