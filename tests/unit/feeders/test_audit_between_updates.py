"""Audit of books whose snapshots lie between two updates: only a difference that lasts is one."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from bookbus.feeders.audit import Auditor, AuditPace
from bookbus.feeders.books.events import SnapshotNeeded
from bookbus.feeders.exchange_feed import ExchangeFeed
from bookbus.feeders.exchanges.bybit_protocol import decode_full_book
from bookbus.feeders.exchanges.bybit_ws_adapter import VENUE, BybitAudit
from bookbus.feeders.rest_client import RestClient
from bookbus.schemas.heartbeat import SymbolAudit
from bookbus.schemas.snapshot import OrderBookSnapshot
from tests.support.waiting import await_for

NATIVE = "BTCUSDT"
BIDS = (("100", "1"), ("99", "2"))
ASKS = (("101", "1"), ("102", "2"))
Side = Sequence[tuple[str, str]]


class World:
    """A feed without a socket at seq 100, and answers of an exchange that is at seq 105, 106 and so on."""

    def __init__(self, *answers: Side) -> None:
        self.told: list[OrderBookSnapshot] = []
        self.asked: list[SnapshotNeeded] = []
        self._answers = list(answers)
        self.feed = ExchangeFeed(VENUE, (NATIVE,), lambda book, _: self.told.append(book))
        self.feed.feed_of(NATIVE).line_up(0)
        self.update_id = 9
        self.take("snapshot", 100, BIDS, ASKS)
        access = BybitAudit()
        access.lead = 0.0
        pace = AuditPace(0.01, 3600.0, 0.05, 0.05, confirmations=2, confirm_after=0.01)
        self.auditor = Auditor(self.feed, self, access, pace)

    decode = staticmethod(decode_full_book)

    def request_of(self, url: str) -> None:
        """Not used."""

    def take(self, kind: str, sequence: int, bids: Side, asks: Side = ()) -> None:
        self.update_id += 1
        data = {"s": NATIVE, "b": bids, "a": asks, "u": self.update_id, "seq": sequence}
        message = {"topic": f"orderbook.50.{NATIVE}", "type": kind, "ts": 2, "cts": 1, "data": data}
        self.feed.feed_of(NATIVE).receive(json.dumps(message).encode(), 0, 0)

    async def fetch(self, rest: RestClient, need: SnapshotNeeded) -> tuple[str, bytes]:
        self.asked.append(need)
        sequence = 104 + len(self.asked)
        bids = self._answers.pop(0) if self._answers else BIDS
        result = {"s": NATIVE, "b": bids, "a": ASKS, "u": 7, "seq": sequence}
        # Updates go on, at prices that are not compared.
        self.take("delta", sequence + 1, (), (("150", str(sequence)),))
        return "", json.dumps({"retCode": 0, "result": result}).encode()

    async def found(self) -> SymbolAudit:
        """What the first comparison found."""
        task = asyncio.create_task(self.auditor.run())
        report = self.auditor.ledger.report
        await await_for(lambda: report({}).total != SymbolAudit(), what="a finding")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await self.feed.rest.close()
        return report({}).total


OTHER = (("100", "1"), ("99", "5"))
GONE = (("100", "1"),)
MORE = (("100", "1"), ("99.5", "1"), ("99", "2"))


@pytest.mark.parametrize(
    "answers",
    [(BIDS,), (OTHER, BIDS), (OTHER, OTHER, BIDS), (GONE, BIDS), (MORE, GONE), (MORE, MORE, OTHER)],
    ids=["equal", "once", "twice", "missing once", "another price", "another price at last"],
)
async def test_a_difference_that_does_not_last_is_none(answers: tuple[Side, ...]) -> None:
    world = World(*answers)

    found = await world.found()

    assert (found.matched, found.mismatched, found.unmatched) == (1, 0, 0)
    assert [book.state for book in world.told if book.state != "live"] == []
    assert len(world.asked) >= len(answers)
    assert [need.urgent for need in world.asked[: len(answers)]] == [False, True, True][: len(answers)]


@pytest.mark.parametrize(
    ("answers", "counts"),
    [((OTHER,) * 3, (0, 0, 1)), ((GONE,) * 3, (1, 0, 0)), ((MORE,) * 3, (0, 1, 0)), ((OTHER, GONE, OTHER), (0, 0, 1))],
    ids=["another quantity", "ghost", "missing", "wrong in different ways"],
)
async def test_a_difference_that_lasts_loses_the_book(answers: tuple[Side, ...], counts: tuple[int, int, int]) -> None:
    world = World(*answers)

    found = await world.found()

    assert (found.matched, found.mismatched) == (0, 1)
    assert (found.ghosts, found.missing, found.wrong) == counts
    assert world.told[-1].state == "suspect"
