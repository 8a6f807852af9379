"""Compares a feeder's books with the exchange's snapshots, one book at a time, while it runs."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bookbus.feeders.books.events import SnapshotNeeded
from bookbus.feeders.books.history import BookHistory, Quantities, RecordedBook
from bookbus.feeders.books.order_book import DepthChange, DepthSnapshot
from bookbus.feeders.errors import RestBlockedError, RestError, WebSocketProtocolError
from bookbus.feeders.exchange_feed import ExchangeFeed
from bookbus.feeders.venue import BestPrices, FeedOptions, VenueAudit, VenueSnapshots
from bookbus.schemas.heartbeat import AuditReport, SymbolAudit
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot

logger = logging.getLogger(__name__)

WORST = 20
"""Symbols named one by one in a heartbeat at most, since there is one a second."""

Difference = tuple[int, float, float | None]
"""Sign of the side (1 for bids), price, and our quantity, None if we have none there."""

_POLL_INTERVAL = 0.05
_NOTHING = SymbolAudit()
_UNMATCHED = SymbolAudit(unmatched=1)
"""Our book never had the update id of the snapshot: they cannot be compared."""


def auditor_of(feed: ExchangeFeed, options: FeedOptions, interval: float) -> "Auditor | None":
    """None where no book is built from changes, or where `interval` is 0."""
    access = feed.venue.audit
    snapshots = feed.venue.snapshots if access is None or access.snapshots is None else access.snapshots
    if snapshots is None or access is None or options.mode != "diff" or "book" not in options.topics or not interval:
        return None
    return Auditor(feed, snapshots, access, AuditPace(interval=interval))


@dataclass(frozen=True, slots=True)
class AuditPace:
    """Seconds."""

    interval: float = 2.0
    """Between two comparisons, each of another book."""
    prices_interval: float = 30.0
    """Between two comparisons of the best prices of all symbols."""
    grace: float = 1.0
    """After an answer, in which a best price may still reach our book."""
    reach: float = 5.0
    """After an answer, in which our book may still reach its id."""
    confirmations: int = 2
    """Further answers that must show a difference found between two updates."""
    confirm_after: float = 1.0
    """Before each of them."""


class Auditor:
    """Compares one book at a time; a book that differs is lost, and comes back by a snapshot."""

    def __init__(self, feed: ExchangeFeed, snapshots: VenueSnapshots, access: VenueAudit, pace: AuditPace) -> None:
        self.ledger = AuditLedger()
        self._feed = feed
        self._snapshots = snapshots
        self._access = access
        self._pace = pace
        self._turns = AuditTurns()
        self._watch = PriceWatch()
        self._one_sided: set[str] = set()
        """Symbols whose last snapshot had no level on one side."""

    async def run(self) -> None:
        """Until cancelled, or until the exchange refuses every request."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._repeat(self._audit_next, self._pace.interval))
            tasks.create_task(self._repeat(self._check_prices, self._pace.prices_interval))

    def see(self, book: OrderBookSnapshot) -> None:
        if self._watch.is_on:
            self._watch.see(book)

    async def _repeat(self, work: Callable[[], Awaitable[None]], interval: float) -> None:
        failing = False
        while True:
            await asyncio.sleep(interval)
            # Wait for request weight here, before a history is kept or prices are watched.
            await self._feed.rest.budget.spend(0, urgent=False)
            try:
                await work()
                failing = False
            except RestBlockedError:
                return  # the snapshot fetcher logs it
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
        """Compare one book; None if it is not synchronised."""
        feed, levels = self._feed.feed_of(native), self._access.levels
        history = feed.books.start_history(native)
        if history is None:
            return None
        try:
            if self._access.lead:
                await asyncio.sleep(self._access.lead)
            theirs, ours = await self._both(native, history, urgent=False)
            if ours is None or self._lacks_a_side(native, theirs):
                return _UNMATCHED
            found = compare(ours, theirs, levels)
            if found.mismatched and ours.changing is not None:
                lasting = await self._lasting(native, history, differences(ours, theirs, levels))
                if lasting is None:
                    return _UNMATCHED
                if not lasting:
                    found = SymbolAudit(matched=1, levels=found.levels)
        finally:
            history.end()
        if found.mismatched:
            reason = (
                f"differs from the exchange's answer at {theirs.last_id}: "
                f"{found.ghosts} ghosts, {found.missing} missing, {found.wrong} wrong of {found.levels} levels"
            )
            logger.error("%s %s", native, reason)
            self._feed.invalidate(native, reason, time.time_ns() // 1000)
        return found

    async def _both(
        self, native: str, history: BookHistory, *, urgent: bool
    ) -> tuple[DepthSnapshot, RecordedBook | None]:
        """The exchange's snapshot, and our book as it was then."""
        need = SnapshotNeeded(native, self._access.levels, urgent=urgent)
        _, body = await self._snapshots.fetch(self._feed.rest, need)
        theirs = self._snapshots.decode(body)
        await self._reach(history, theirs.last_id)
        return theirs, history.at(theirs.last_id)

    async def _lasting(self, native: str, history: BookHistory, found: set[Difference]) -> set[Difference] | None:
        """Those differences that further snapshots show too; None if these cannot be compared.

        A level may have come and gone between two updates. One that is wrong in our book stays as it is until an update
        changes it, and is right from then on.
        """
        for _ in range(self._pace.confirmations):
            await asyncio.sleep(self._pace.confirm_after)
            theirs, ours = await self._both(native, history, urgent=True)
            if ours is None:
                return None
            found = found & differences(ours, theirs, self._access.levels)
            if not found:
                break
        return found

    def _lacks_a_side(self, native: str, answer: DepthSnapshot) -> bool:
        """A snapshot with an empty side counts as incomplete, unless the previous one had an empty side too."""
        again = native in self._one_sided
        self._one_sided.discard(native)
        if (answer.bids and answer.asks) or again:
            return False
        self._one_sided.add(native)
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

    async def _reach(self, history: BookHistory, update_id: int) -> None:
        """Wait until our book has taken all updates up to this one, `reach` seconds at most."""
        limit = time.monotonic() + self._pace.reach
        # The history is pure code without notifications.
        while history.last_id < update_id and not history.is_over and time.monotonic() < limit:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_INTERVAL)


class AuditLedger:
    """Sums by symbol and over all."""

    def __init__(self) -> None:
        self._found: dict[str, SymbolAudit] = {}
        self._total = _NOTHING
        self._prices = 0

    def add(self, native: str, found: SymbolAudit) -> None:
        self._found[native] = self._found.get(native, _NOTHING) + found
        self._total += found

    def add_prices(self, count: int) -> None:
        """Count symbols whose best prices were compared."""
        self._prices += count

    def report(self, symbols: Mapping[str, str]) -> AuditReport:
        """For a heartbeat. `symbols` has the standard symbol of each native one."""
        bad = {native: found for native, found in self._found.items() if found.mismatched}
        worst = sorted(bad, key=lambda native: _badness(bad[native]), reverse=True)[:WORST]
        return AuditReport(
            symbols=sum(bool(found.matched or found.mismatched) for found in self._found.values()),
            prices=self._prices,
            total=self._total,
            worst={symbols[native]: bad[native] for native in worst if native in symbols},
        )


class AuditTurns:
    """The order of comparisons: every symbol in rounds, and every other turn for those that are wanted sooner."""

    def __init__(self) -> None:
        self._round: deque[str] = deque()
        self._soon: dict[str, None] = {}
        self._soon_next = False

    def want_soon(self, native: str) -> None:
        """Give this symbol one early turn, also if it is asked for several times."""
        self._soon[native] = None

    def next(self, natives: Sequence[str]) -> str | None:
        """The symbol whose turn it is; None if there are no symbols."""
        if not natives:
            return None
        present = set(natives)
        self._soon = {native: None for native in self._soon if native in present}
        self._soon_next = not self._soon_next
        if self._soon_next and self._soon:
            native = next(iter(self._soon))
            del self._soon[native]
            return native
        while True:
            self._round = self._round or deque(natives)
            native = self._round.popleft()
            if native in present:
                self._soon.pop(native, None)
                return native


class PriceWatch:
    """Keeps every best price of each book from the request for the exchange's to shortly after the answer.

    A price that exists for less time than the interval of the exchange's updates never reaches a book, so a single
    miss is no proof of an error.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[set[float | None], set[float | None]]] = {}
        self._wanted: Mapping[str, BestPrices] = {}

    @property
    def is_on(self) -> bool:
        return bool(self._seen)

    def start(self, books: Iterable[OrderBookSnapshot]) -> None:
        """The request is sent now, while these are the books."""
        self._wanted = {}
        self._seen = {book.native: ({_best(book.bids)}, {_best(book.asks)}) for book in books if book.state == "live"}

    def see(self, book: OrderBookSnapshot) -> None:
        """A book changed; one that is lost is not watched any further."""
        if book.state != "live":
            self._seen.pop(book.native, None)
        elif seen := self._seen.get(book.native):
            seen[0].add(_best(book.bids))
            seen[1].add(_best(book.asks))
            self._drop_if_seen(book.native)

    def answer(self, best: Mapping[str, BestPrices]) -> int:
        """Watch only the books that differ from this answer from now on. Returns how many it names."""
        self._seen = {native: seen for native, seen in self._seen.items() if native in best}
        self._wanted = best
        count = len(self._seen)
        for native in list(self._seen):
            self._drop_if_seen(native)
        return count

    def end(self) -> list[str]:
        """Stop watching. Returns the symbols whose best prices never were in our book."""
        missed = list(self._seen)
        self._seen = {}
        return missed

    def _drop_if_seen(self, native: str) -> None:
        wanted, seen = self._wanted.get(native), self._seen[native]
        if wanted is not None and wanted.bid in seen[0] and wanted.ask in seen[1]:
            del self._seen[native]


def compare(ours: RecordedBook, theirs: DepthSnapshot, limit: int) -> SymbolAudit:
    """The differences at the prices that both cover. `limit` is the number of levels a side that were requested."""
    levels = ghosts = missing = wrong = 0
    for known, true in _sides(ours, theirs, limit).values():
        common = known.keys() & true.keys()
        wrong += sum(known[price] != true[price] for price in common)
        ghosts += len(known) - len(common)
        missing += len(true) - len(common)
        levels += len(known.keys() | true.keys())
    equal = ghosts == missing == wrong == 0
    return SymbolAudit(
        matched=int(equal), mismatched=int(not equal), levels=levels, ghosts=ghosts, missing=missing, wrong=wrong
    )


def differences(ours: RecordedBook, theirs: DepthSnapshot, limit: int) -> set[Difference]:
    """Every level that `compare` counts as different."""
    return {
        (sign, price, known.get(price))
        for sign, (known, true) in _sides(ours, theirs, limit).items()
        for price in known.keys() | true.keys()
        if known.get(price) != true.get(price)
    }


def _sides(ours: RecordedBook, theirs: DepthSnapshot, limit: int) -> dict[int, tuple[Quantities, Quantities]]:
    """By sign: the levels of both books that can be compared."""
    changing = ours.changing or frozenset()
    sides: dict[int, tuple[Quantities, Quantities]] = {}
    for sign, mine, edge, true in (
        (1, ours.bids, ours.bid_edge, theirs.bids),
        (-1, ours.asks, ours.ask_edge, theirs.asks),
    ):
        end = sign * edge
        if len(true) >= limit:  # a snapshot with fewer levels than requested is complete
            end = max(end, sign * true[-1][0])
        both = (_up_to(end, mine.items(), sign), _up_to(end, true, sign))
        for side in both:
            for price in [price for price in side if (sign, price) in changing]:
                del side[price]
        sides[sign] = both
    return sides


def _up_to(end: float, levels: Iterable[DepthChange], sign: int) -> Quantities:
    return {price: quantity for price, quantity in levels if sign * price >= end}


def _badness(found: SymbolAudit) -> tuple[int, int]:
    return found.mismatched, found.ghosts + found.missing + found.wrong


def _best(levels: Levels) -> float | None:
    return levels[0][0] if levels else None
