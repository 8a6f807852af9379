"""A feeder's own comparisons with its exchange: when, of what, and what follows from a difference."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping

import pytest

from bookbus.feeders.audit import Auditor, AuditPace, auditor_of
from bookbus.feeders.books.events import SnapshotNeeded
from bookbus.feeders.books.order_book import DepthChange
from bookbus.feeders.books.synchronizer import RangeSync
from bookbus.feeders.errors import RestBlockedError, RestError
from bookbus.feeders.exchange_feed import ExchangeFeed
from bookbus.feeders.exchanges.binance_ws_adapter import VENUE, BinanceAudit
from bookbus.feeders.feeder import Feeder, FeederSettings
from bookbus.feeders.markets import parse_selection
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.venue import BestPrices, FeedOptions
from bookbus.schemas.heartbeat import AuditReport, SymbolAudit
from bookbus.schemas.instruments import EXCHANGES, InstrumentRegistry, guess_instrument
from bookbus.schemas.snapshot import OrderBookSnapshot
from tests.support.depth import ASKS, BIDS, depth_answer, diff_frame
from tests.support.fake_venue import FakeVenue
from tests.support.waiting import await_for

NATIVE = "BTCUSDT"
EQUAL = SymbolAudit(matched=1, levels=4)
NEVER = 3600.0


class Access(BinanceAudit):
    """Binance's answers for books, and the best prices that a test names."""

    def __init__(self) -> None:
        self.best: Mapping[str, BestPrices] | RestError = {}
        self.asked = 0

    async def fetch_best_prices(self, rest: RestClient) -> Mapping[str, BestPrices]:
        self.asked += 1
        if isinstance(self.best, RestError):
            raise self.best
        return self.best


class World:
    """A feed without a socket, whose frames and answers come from the test, and its auditor."""

    def __init__(self, *natives: str, pace: AuditPace | None = None) -> None:
        self.venue, self.access = FakeVenue(), Access()
        self.told: list[OrderBookSnapshot] = []
        natives = natives or (NATIVE,)
        self.feed = ExchangeFeed(self.venue, natives, lambda book, _: self.tell(book))
        self.feed.feed_of(natives[0]).line_up(0)
        self.auditor = Auditor(self.feed, self.venue, self.access, pace or AuditPace(0.01, NEVER, 0.05, 0.2))
        for native in natives:
            self.take(9, native=native)
            self.start(native)

    def tell(self, book: OrderBookSnapshot) -> None:
        self.told.append(book)
        self.auditor.see(book)

    def start(self, native: str = NATIVE) -> None:
        """The book is there, at id 10."""
        self.feed.feed_of(native).apply_snapshot(native, 100, depth_answer(10), 0)

    def take(
        self, first_id: int, last_id: int | None = None, bids: tuple[DepthChange, ...] = (), native: str = NATIVE
    ) -> None:
        """An update by the stream."""
        self.feed.feed_of(native).receive(diff_frame(first_id, last_id, bids=bids, native=native), 0, 0)

    def lose(self) -> None:
        """The connection ends."""
        self.feed.feed_of(NATIVE).books.line_down(0, "closed")

    async def asked(self, native: str = NATIVE) -> None:
        """Until a request for this book is on its way."""
        await await_for(lambda: native in self.venue.running, what="a request")

    @property
    def report(self) -> AuditReport:
        return self.auditor.ledger.report({native: native for native in self.feed.natives})

    async def found(self) -> SymbolAudit:
        """What the first comparison found."""
        await await_for(lambda: self.report.total != SymbolAudit(), what="a finding")
        return self.report.total


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[asyncio.Task[None]]:
    """Its auditor at work."""
    task = asyncio.create_task(world.auditor.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_an_equal_book_is_counted_and_left_alone() -> None:
    world = World()
    async with running(world):
        await world.asked()
        need, _ = world.venue.requests[0]
        world.venue.answer(NATIVE, depth_answer(10))

        assert await world.found() == EQUAL
        assert need == SnapshotNeeded(NATIVE, 100, urgent=False)
        assert [book.state for book in world.told] == ["live"]


async def test_a_book_that_went_on_is_compared_as_it_was_at_the_answers_id() -> None:
    world = World()
    async with running(world):
        await world.asked()
        world.take(11, 12, bids=((98.0, 0.0),))
        world.take(13, bids=((99.0, 5.0),))
        world.venue.answer(NATIVE, depth_answer(12, bids=BIDS[:1]))

        assert await world.found() == SymbolAudit(matched=1, levels=3)


async def test_an_answer_that_is_ahead_waits_for_the_updates() -> None:
    world = World()
    async with running(world):
        await world.asked()
        world.venue.answer(NATIVE, depth_answer(12, bids=BIDS[:1]))
        await asyncio.sleep(0)
        world.take(11, 12, bids=((98.0, 0.0),))

        assert await world.found() == SymbolAudit(matched=1, levels=3)


@pytest.mark.parametrize(
    "answer_id", [pytest.param(9, id="before the request"), pytest.param(12, id="inside"), pytest.param(99, id="ahead")]
)
async def test_an_answer_at_an_id_where_our_book_never_stood_says_nothing(answer_id: int) -> None:
    world = World()
    async with running(world):
        await world.asked()
        world.take(11, 13)
        world.venue.answer(NATIVE, depth_answer(answer_id, bids=((1.0, 1.0),)))

        assert await world.found() == SymbolAudit(unmatched=1)
        assert [book.state for book in world.told] == ["live"]


async def test_a_book_lost_meanwhile_says_nothing() -> None:
    world = World()
    async with running(world):
        await world.asked()
        world.lose()
        world.venue.answer(NATIVE, depth_answer(10))

        assert await world.found() == SymbolAudit(unmatched=1)


async def test_a_book_that_is_not_there_is_not_asked_for() -> None:
    world = World(NATIVE, "ETHUSDT")
    world.lose()
    world.feed.feed_of(NATIVE).line_up(0)
    world.take(9, native="ETHUSDT")
    world.start("ETHUSDT")
    async with running(world):
        await world.asked("ETHUSDT")

        assert world.venue.running == ["ETHUSDT"]
        assert world.report.total == SymbolAudit()


async def test_a_book_that_differs_is_suspect_and_asked_for_anew(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    async with running(world):
        await world.asked()
        world.take(11, bids=((98.5, 1.0),))
        with caplog.at_level(logging.ERROR):
            world.venue.answer(NATIVE, depth_answer(11))
            found = await world.found()

        assert found == SymbolAudit(mismatched=1, levels=5, ghosts=1)
        assert world.told[-1].state == "suspect"
        assert world.feed.snapshots.is_pending(NATIVE)
        assert world.report.worst == {NATIVE: found}
        assert "differs from the exchange's answer at 11: 1 ghosts, 0 missing, 0 wrong of 5 levels" in caplog.text


async def test_an_answer_without_a_side_is_believed_when_the_next_one_says_the_same() -> None:
    world = World()
    async with running(world):
        await world.asked()
        world.venue.answer(NATIVE, depth_answer(10, asks=()))
        first = await world.found()
        await world.asked()
        states = [book.state for book in world.told]
        world.venue.answer(NATIVE, depth_answer(10, asks=()))
        await await_for(lambda: world.report.total.mismatched, what="a difference")

    assert first == SymbolAudit(unmatched=1)
    assert states == ["live"]
    assert world.report.total.ghosts == 2
    assert world.told[-1].state == "suspect"


async def test_a_book_that_came_back_is_compared_again() -> None:
    world = World()
    async with running(world):
        await world.asked()
        world.venue.answer(NATIVE, depth_answer(10, asks=ASKS[:1]))
        await world.found()
        world.feed.feed_of(NATIVE).apply_snapshot(NATIVE, 100, depth_answer(20, asks=ASKS[:1]), 0)
        await world.asked()
        world.venue.answer(NATIVE, depth_answer(20, asks=ASKS[:1]))
        await await_for(lambda: world.report.total.matched, what="an equal book")

        assert [book.state for book in world.told] == ["live", "suspect", "live"]


async def test_one_book_after_the_other_has_its_turn() -> None:
    world = World(NATIVE, "ETHUSDT")
    async with running(world):
        for native in (NATIVE, "ETHUSDT", NATIVE):
            await world.asked(native)
            assert world.venue.running == [native]
            world.venue.answer(native, depth_answer(10))
        await await_for(lambda: world.report.total.matched == 3, what="three comparisons")

        assert world.report.symbols == 2


async def test_a_book_of_which_nothing_could_be_said_has_its_next_turn_before_the_round_is_over() -> None:
    world = World(NATIVE, "ETHUSDT", "SOLUSDT", "XRPUSDT")
    async with running(world):
        await world.asked()
        world.venue.answer(NATIVE, depth_answer(1))
        for native in ("ETHUSDT", NATIVE, "SOLUSDT"):
            await world.asked(native)
            world.venue.answer(native, depth_answer(10))


async def test_nothing_is_kept_of_a_book_after_its_turn() -> None:
    world = World(pace=AuditPace(0.05, NEVER))
    sync = world.feed.feed_of(NATIVE).books._syncs["book", NATIVE]
    assert isinstance(sync, RangeSync)
    async with running(world):
        await world.asked()
        recorded = sync._history
        world.venue.answer(NATIVE, depth_answer(10))
        await world.found()
    world.take(11)

    assert recorded is not None
    assert recorded.last_id == 10
    assert sync._history is None


async def test_a_failing_request_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    async with running(world):
        for _ in range(3):
            await world.asked()
            world.venue.fail(NATIVE, RestError("no answer"))
        await world.asked()
        world.venue.answer(NATIVE, b"no book")
        await world.asked()
        world.venue.answer(NATIVE, depth_answer(10))

        assert await world.found() == EQUAL
    assert caplog.text.count("cannot compare books") == 1


async def test_where_no_request_is_ever_answered_nothing_more_is_asked() -> None:
    world = World(pace=AuditPace(0.01, 0.01, 0.01))
    world.access.best = RestBlockedError("not here")
    async with running(world) as task:
        await world.asked()
        world.venue.fail(NATIVE, RestBlockedError("not here"))
        await asyncio.wait_for(task, 5)

    assert world.access.asked == 1
    assert len(world.venue.requests) == 1


async def test_best_prices_that_books_show_are_counted() -> None:
    world = World(pace=AuditPace(NEVER, 0.01, 0.01))
    world.access.best = {NATIVE: BestPrices(99.0, 101.0), "OTHER": BestPrices(1.0, 2.0)}
    async with running(world):
        await await_for(lambda: world.report.prices >= 2, what="two looks")

    assert world.report.total == SymbolAudit()


async def test_a_best_price_that_comes_after_the_answer_is_no_miss() -> None:
    world = World(pace=AuditPace(NEVER, 0.01, 0.05))
    world.access.best = {NATIVE: BestPrices(100.0, 101.0)}
    async with running(world):
        await await_for(lambda: world.access.asked, what="the request")
        world.take(11, bids=((100.0, 1.0),))
        await await_for(lambda: world.report.prices >= 3, what="three looks")

    assert world.report.total == SymbolAudit()


async def test_a_missed_best_price_brings_the_books_turn_and_does_not_make_it_suspect() -> None:
    natives = (NATIVE, "ETHUSDT", "SOLUSDT", "XRPUSDT")
    world = World(*natives, pace=AuditPace(0.3, 0.01, 0.01))
    world.access.best = {"XRPUSDT": BestPrices(99.5, 101.0)}
    async with running(world):
        await await_for(lambda: world.report.total.misses, what="a miss")
        turns: list[str] = []
        while len(turns) < 2:
            await await_for(lambda: world.venue.running, what="a request")
            turns.append(world.venue.running[0])
            world.venue.answer(turns[-1], depth_answer(10))

    assert "XRPUSDT" in turns
    assert {book.state for book in world.told} == {"live"}


async def test_prices_that_cannot_be_had_are_no_miss(caplog: pytest.LogCaptureFixture) -> None:
    world = World(pace=AuditPace(NEVER, 0.01, 0.01))
    world.access.best = RestError("no answer")
    async with running(world):
        await await_for(lambda: world.access.asked >= 3, what="three requests")

    assert world.report == AuditReport(symbols=0, prices=0, total=SymbolAudit())
    assert caplog.text.count("cannot compare books") == 1


async def test_a_feeder_shows_its_auditor_every_book_and_tells_what_was_found() -> None:
    settings = FeederSettings(exchange="binance", selection=parse_selection(["BTC"]), redis_url="redis://127.0.0.1:1/0")
    instrument = guess_instrument(EXCHANGES["binance"], NATIVE)
    registry = InstrumentRegistry(EXCHANGES["binance"], [instrument])
    feeder = Feeder(settings, VENUE, registry, [instrument])
    feed, auditor = feeder.feed.feed_of(NATIVE), feeder._auditor
    assert auditor is not None
    feed.line_up(0)
    feed.receive(diff_frame(9), 0, 0)
    feed.apply_snapshot(NATIVE, 100, depth_answer(10), 0)
    auditor._watch.start(feed.latest.values())
    feed.receive(diff_frame(11, bids=((100.0, 1.0),)), 0, 0)
    feed.receive(diff_frame(12, bids=((100.0, 0.0),)), 0, 0)
    auditor._watch.answer({NATIVE: BestPrices(100.0, 101.0)})
    auditor.ledger.add(NATIVE, SymbolAudit(mismatched=1))

    assert auditor._watch.end() == []
    report = feeder._beat().audit
    assert report is not None
    assert report.worst == {"BTC-USDT": SymbolAudit(mismatched=1)}


def test_books_built_from_changes_are_audited_where_the_exchange_can_be_asked() -> None:
    world = World()
    world.venue.audit = world.access

    assert auditor_of(world.feed, FeedOptions(), 2.0) is not None


@pytest.mark.parametrize(
    ("options", "interval"),
    [
        pytest.param(FeedOptions(mode="partial"), 2.0, id="whole books"),
        pytest.param(FeedOptions(topics=frozenset({"quote", "trades"})), 2.0, id="no books"),
        pytest.param(FeedOptions(), 0.0, id="switched off"),
    ],
)
def test_other_books_are_not_audited(options: FeedOptions, interval: float) -> None:
    world = World()
    world.venue.audit = world.access

    assert auditor_of(world.feed, options, interval) is None


def test_where_the_exchange_cannot_be_asked_nothing_is_audited() -> None:
    assert auditor_of(World().feed, FeedOptions(), 2.0) is None
