"""Holds a feeder's books against the exchange's own answers, slowly, for as long as it runs."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bookbus.feeders.audit.comparison import UNMATCHED, compare
from bookbus.feeders.audit.ledger import AuditLedger, AuditTurns
from bookbus.feeders.audit.price_watch import PriceWatch
from bookbus.feeders.books.events import SnapshotNeeded
from bookbus.feeders.books.history import BookRecord
from bookbus.feeders.books.order_book import DepthSnapshot
from bookbus.feeders.errors import RestBlockedError, RestError, WebSocketProtocolError
from bookbus.feeders.exchange_feed import ExchangeFeed
from bookbus.feeders.venue import FeedOptions, VenueAudit
from bookbus.schemas.heartbeat import SymbolAudit
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)

_LOOK = 0.05


@dataclass(frozen=True, slots=True)
class AuditPace:
    """Seconds."""

    interval: float = 2.0
    """Between two comparisons of a book, whichever it is."""
    prices_interval: float = 30.0
    """Between two looks at the best prices of all symbols."""
    grace: float = 1.0
    """After an answer, in which a best price may still reach our book."""
    reach: float = 5.0
    """After an answer, in which our book may still reach its id."""


class Auditor:
    """Compares one book at a time; a book that differs is lost, and comes back by a snapshot."""

    def __init__(self, feed: ExchangeFeed, access: VenueAudit, pace: AuditPace) -> None:
        self.ledger = AuditLedger()
        self._feed = feed
        self._access = access
        self._pace = pace
        self._turns = AuditTurns()
        self._watch = PriceWatch()
        self._doubted: set[str] = set()

    async def run(self) -> None:
        """Until cancelled, or until the exchange says that it will never answer."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._audit_next, self._pace.interval))
            tasks.create_task(self._repeat(self._check_prices, self._pace.prices_interval))

    def see(self, book: OrderBookSnapshot) -> None:
        """A book changed."""
        if self._watch.is_on:
            self._watch.see(book)

    async def _repeat(self, work: Callable[[], Awaitable[None]], interval: float) -> None:
        failing = False
        while True:
            await asyncio.sleep(interval)
            # Wait for room here, where nothing is recorded and watched yet.
            await self._feed.rest.budget.spend(0, urgent=False)
            try:
                await work()
                failing = False
            except RestBlockedError:
                return  # told by whoever needs the answers more
            except (RestError, WebSocketProtocolError) as error:
                if not failing:
                    logger.warning("cannot compare books with the exchange's answers: %s", error)
                failing = True

    async def _audit_next(self) -> None:
        native = self._turns.next(self._feed.natives)
        found = None if native is None else await self._audit(native)
        if native is None or found is None:
            return
        self.ledger.add(native, found)
        if found.unmatched:
            self._turns.want_soon(native)

    async def _audit(self, native: str) -> SymbolAudit | None:
        """Compare one book; None if there is none to trust."""
        feed, levels = self._feed.feed_of(native), self._access.levels
        record = feed.protocol.record(native)
        if record is None:
            return None
        try:
            need = SnapshotNeeded(native, levels, urgent=False)
            _, body = await self._feed.venue.fetch_snapshot(self._feed.rest, need)
            theirs = self._access.read_book(body)
            await self._reach(record, theirs.last_id)
            ours = record.at(theirs.last_id)
        finally:
            record.end()
        if ours is None or self._doubts(native, theirs):
            return UNMATCHED
        found = compare(ours, theirs, levels)
        if found.mismatched:
            reason = (
                f"differs from the exchange's answer at {theirs.last_id}: "
                f"{found.ghosts} ghosts, {found.missing} missing, {found.wrong} wrong of {found.levels} levels"
            )
            logger.error("%s %s", native, reason)
            feed.distrust(native, reason, time.time_ns() // 1000)
        return found

    def _doubts(self, native: str, answer: DepthSnapshot) -> bool:
        """An answer without a side is an answer that lacks something, unless the next one lacks it too."""
        doubted = native in self._doubted
        self._doubted.discard(native)
        if (answer.bids and answer.asks) or doubted:
            return False
        self._doubted.add(native)
        return True

    async def _check_prices(self) -> None:
        self._watch.start(self._live_books())
        try:
            self.ledger.add_prices(self._watch.answer(await self._access.fetch_best_prices(self._feed.rest)))
            await asyncio.sleep(self._pace.grace)
        finally:
            missed = self._watch.end()
        for native in missed:
            self.ledger.add(native, SymbolAudit(misses=1))
            self._turns.want_soon(native)

    def _live_books(self) -> list[OrderBookSnapshot]:
        books = (self._feed.feed_of(native).latest.get(("book", native)) for native in self._feed.natives)
        return [book for book in books if book is not None]

    async def _reach(self, record: BookRecord, update_id: int) -> None:
        """Wait until our book has taken all updates up to this one, no longer than makes sense."""
        limit = time.monotonic() + self._pace.reach
        # The record is pure code, which wakes nobody up.
        while record.last_id < update_id and not record.is_over and time.monotonic() < limit:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)


def auditor_of(feed: ExchangeFeed, options: FeedOptions, interval: float) -> Auditor | None:
    """None where no book is built from changes, or where `interval` is 0."""
    access = feed.venue.audit
    if access is None or options.mode != "diff" or "book" not in options.topics or not interval:
        return None
    return Auditor(feed, access, AuditPace(interval=interval))
