"""Publishes one exchange's books for as long as the process runs."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from bookbus.feeders.audit import auditor_of
from bookbus.feeders.books.events import Topic
from bookbus.feeders.bus.cleanup import Sweeper
from bookbus.feeders.bus.heartbeat import Heartbeat, counters_of, write_refusal
from bookbus.feeders.bus.network import NetworkClaim
from bookbus.feeders.bus.publish_script import BookClaim, Submission
from bookbus.feeders.bus.publisher import Publisher
from bookbus.feeders.bus.refusals import Refusals
from bookbus.feeders.bus.servers import CONTROL_ERRORS, control_client
from bookbus.feeders.exchange_feed import ConnectionSettings, ExchangeFeed, line_reports
from bookbus.feeders.exchanges.adapter import OnFrame
from bookbus.feeders.markets import SymbolSelection, default_cache_directory
from bookbus.feeders.snapshot_fetcher import OnAnswer
from bookbus.feeders.trading import TRADING_INTERVAL, TradingWatch
from bookbus.feeders.venue import FeedOptions, Venue
from bookbus.schemas.heartbeat import AuditReport, FeederHeartbeat, FeedState
from bookbus.schemas.instruments import Instrument, InstrumentRegistry
from bookbus.schemas.redis_names import DEFAULT_PREFIX, RedisNames
from bookbus.schemas.redis_url import DEFAULT_URL, masked
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)

REPEAT_AFTER = 2.0
"""Seconds without a change after which a book is confirmed, or its loss published again."""

_REPEAT_INTERVAL = 0.25
_SIGN_OF_LIFE_LIMIT = 1.0
"""Seconds after a frame or pong within which a book is confirmed. The server dates the confirmation at its own receipt,
so one that is sent later would make the book look younger than it is.
"""
_DRAIN_TIMEOUT = 2.0
_CANCEL_INTERVAL = 1.0


@dataclass(frozen=True, slots=True)
class FeederSettings:
    """URLs that are None are the exchange's own."""

    exchange: str
    selection: SymbolSelection
    redis_url: str = DEFAULT_URL
    prefix: str = DEFAULT_PREFIX
    feeder_name: str | None = None
    ws_url: str | None = None
    rest_url: str | None = None
    network: str | None = None
    options: FeedOptions = field(default_factory=FeedOptions)
    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    record_to: Path | None = None
    audit_interval: float = 2.0
    """Seconds between two comparisons of a book with the exchange's answer; 0 for none."""
    cache_directory: Path = field(default_factory=default_cache_directory)
    trading_interval: float = TRADING_INTERVAL
    """Seconds between two questions which of the markets trade; 0 for none."""


class Feeder:
    """Exchange feed, publisher, heartbeat and audit together."""

    def __init__(
        self,
        settings: FeederSettings,
        venue: Venue,
        registry: InstrumentRegistry,
        instruments: Iterable[Instrument],
        on_frame: OnFrame | None = None,
        on_answer: OnAnswer | None = None,
        claim: NetworkClaim | None = None,
    ) -> None:
        """`registry` may learn of further instruments later, which `add` then takes. `claim` is kept by the caller."""
        self.id = claim.feeder if claim else unique_feeder_id(settings.exchange, settings.feeder_name)
        self._claim = claim
        self._settings = settings
        self._started_us = _now_us()
        self._instruments = {instrument.native: instrument for instrument in instruments}
        self._submitted: dict[tuple[Topic, str], float] = {}
        self._stopping = False
        self.failed: dict[str, str] = {}
        """Duties that ended, with the cause; books are published without them."""
        names = self._names = RedisNames.on(settings.redis_url, settings.prefix)
        network = claim.network.name if claim else ""
        book_claim = BookClaim(network, settings.options.mode, settings.options.depth)
        self.publisher = Publisher(
            settings.redis_url,
            names,
            self.id,
            claim=book_claim,
            on_connected=self._connected,
            before_write=lambda: self.feed.stall.beat(),
            may_write=claim.may_publish if claim else None,
        )
        self.feed = ExchangeFeed(
            venue,
            tuple(self._instruments),
            self._publish,
            self.publisher.submit_trade,
            options=settings.options,
            settings=settings.connection,
            registry=registry,
            ws_url=settings.ws_url,
            rest_url=settings.rest_url,
            on_frame=on_frame,
            on_answer=on_answer,
            on_stall=self.publisher.discard,
        )
        self._auditor = auditor_of(self.feed, settings.options, settings.audit_interval)
        # Of a simulated or recorded stream, the exchange itself knows nothing.
        asks_trading = settings.trading_interval and (settings.rest_url is not None or settings.ws_url is None)
        self._trading = TradingWatch(self.feed, settings.trading_interval) if asks_trading else None
        self._endpoint = masked(settings.ws_url or venue.ws_url)
        self._refusals = Refusals(book_claim, self.publisher.unaccepted)
        self._heartbeat = Heartbeat(
            settings.redis_url,
            names,
            self._beat,
            self._book_names,
            self._resubmit,
            self._refusals,
            self._trading_of_books,
        )
        self._sweeper = Sweeper(settings.redis_url, names, settings.exchange, self._may_publish, self._serves)
        if claim is not None:
            claim.on_hold, claim.on_regained = self.publisher.discard, self._regained

    async def run(self) -> None:
        """Until cancelled; then every book is marked `closed`."""
        try:
            async with asyncio.TaskGroup() as tasks:
                publishing = tasks.create_task(self.publisher.run())
                parts = [self.feed.run(), self._repeat_quiet_books(), self._heartbeat.run()]
                parts.append(self.contain("sweep", self._sweeper.run()))
                if self._auditor is not None:
                    parts.append(self.contain("audit", self._auditor.run()))
                if self._trading is not None:
                    parts.append(self.contain("trading", self._trading.run()))
                work = [tasks.create_task(part) for part in parts]
                try:
                    await asyncio.gather(*work)
                finally:
                    # From here on only the closing states are published, not that our own connections end.
                    self._stopping = True
                    last = [(topic, self.feed.current(topic, native)) for topic, native in self.feed.books()]
                    await _cancel_all(work)
                    if self._may_publish():
                        await self._close_books(last)
                    publishing.cancel()
        finally:
            await self._heartbeat.end()

    def written(self) -> int | None:
        """How many batches were written to the server; None while nothing waits or may be written, or the server is
        away."""
        waits = self._may_publish() and self.publisher.connected and not self.publisher.idle
        return self.publisher.counters.batches if waits else None

    async def contain(self, name: str, duty: Awaitable[None]) -> None:
        """Run a duty whose end must not end the books; if it fails, log it and add it to `failed`."""
        try:
            await duty
        except (OSError, MemoryError) as error:
            self.failed[name] = str(error) or type(error).__name__
            logger.error("%s ended, books go on: %s", name, self.failed[name])
        except Exception as error:
            self.failed[name] = f"{type(error).__name__}: {error}"
            logger.exception("%s ended by a bug, books go on", name)

    def add(self, instruments: Sequence[Instrument]) -> None:
        self._instruments |= {instrument.native: instrument for instrument in instruments}
        self.feed.add([instrument.native for instrument in instruments])

    def drop(self, native: str) -> None:
        """Publish no more of a symbol, and close its book."""
        for topic, book in self.feed.drop(native):
            self.publisher.submit(Submission("state", topic, replace(book, state="closed")))
            if topic == "book":
                self._heartbeat.forget(self._names.book(book.exchange, book.symbol))

    def _publish(self, snapshot: OrderBookSnapshot, topic: Topic) -> None:
        if self._stopping:
            return
        if topic == "book" and self._auditor is not None:
            self._auditor.see(snapshot)
        self._submitted[topic, snapshot.native] = time.monotonic()
        self.publisher.submit(Submission("new" if snapshot.state == "live" else "state", topic, snapshot))

    async def _repeat_quiet_books(self) -> None:
        """Confirm live books that do not change; publish lost ones again."""
        while True:
            await asyncio.sleep(_REPEAT_INTERVAL)
            self.feed.stall.beat()
            self._may_publish()
            self.feed.clock.check()
            now = time.monotonic()
            for topic, native in self.feed.books():
                if now - self._submitted.get((topic, native), 0.0) >= REPEAT_AFTER:
                    self._repeat(topic, native, now)

    def _repeat(self, topic: Topic, native: str, now: float) -> None:
        book = self.feed.current(topic, native)
        if book.state == "live":
            received_at = self.feed.last_sign_of_life(native, topic)
            alive = received_at > self._submitted.get((topic, native), 0.0) and now - received_at <= _SIGN_OF_LIFE_LIMIT
            if not alive or not self.feed.is_current(topic, native):
                return  # whether this book still is the exchange's is not known
            self.publisher.submit(Submission("again", topic, book))
        else:
            self.publisher.submit(Submission("state", topic, book))
        self._submitted[topic, native] = now

    def _may_publish(self) -> bool:
        return self._claim is None or self._claim.may_publish()

    def _serves(self, topic: str, symbol: str) -> bool:
        known = any(instrument.symbol == symbol for instrument in self._instruments.values())
        return known and topic in self._settings.options.topics

    def _connected(self) -> None:
        if self._claim is not None:
            self._claim.doubt()
        self._resubmit()

    def _regained(self) -> None:
        self._resubmit()
        self.publisher.schedule_flush()

    def _resubmit(self) -> None:
        """Redis is back, perhaps without its data: publish every book again."""
        now = time.monotonic()
        for topic, native in self.feed.books():
            # A live book without a sign of life now is sent with the next one.
            self._submitted[topic, native] = now - REPEAT_AFTER
            self._repeat(topic, native, now)

    async def _close_books(self, last: list[tuple[Topic, OrderBookSnapshot]]) -> None:
        for topic, book in last:
            self.publisher.submit(Submission("state", topic, replace(book, state="closed")))
        if not await self.publisher.drain(_DRAIN_TIMEOUT):
            logger.warning("Redis did not take the closing states within %.0f s", _DRAIN_TIMEOUT)

    def _beat(self) -> FeederHeartbeat:
        states: dict[str, FeedState] = {
            self._instruments[native].symbol: state for native, state in self.feed.states().items()
        }
        return FeederHeartbeat(
            feeder=self.id,
            exchange=self._settings.exchange,
            endpoint=self._endpoint,
            states=states,
            host=socket.gethostname(),
            pid=os.getpid(),
            started_us=self._started_us,
            time_us=_now_us(),
            counters=counters_of(self.feed.counters(), self.publisher.counters, self.feed.watch.counters)
            | {
                "reconnects": sum(connection.reconnects for connection in self.feed.connections),
                "handovers": sum(connection.handovers for connection in self.feed.connections),
                "connected": self.feed.connected,
                "rest_weight": self.feed.rest.budget.spent,
                "unrecognised_statuses": self._trading.unrecognised if self._trading is not None else 0,
                "clock_jumps": self.feed.clock.jumps,
            },
            lines=line_reports(self.feed.groups),
            audit=self._audit_report(),
            failed=dict(self.failed),
            ignored=dict(self.feed.counters().ignored),
            mode=self._settings.options.mode,
            depth=self._settings.options.depth,
            refused_books=self._refusals.reasons,
            trading=self._trading_statuses(),
            network=self._claim.network.name if self._claim else "",
            refused=self._claim.refused if self._claim else "",
        )

    def _trading_statuses(self) -> dict[str, str]:
        """What the exchange said, by standard symbol."""
        statuses = self._trading.statuses if self._trading is not None else {}
        return {
            self._instruments[native].symbol: status
            for native, status in statuses.items()
            if native in self._instruments
        }

    def _trading_of_books(self) -> dict[str, str]:
        """The same by the name of the book."""
        exchange = self._settings.exchange
        return {self._names.book(exchange, symbol): status for symbol, status in self._trading_statuses().items()}

    def _audit_report(self) -> AuditReport | None:
        if self._auditor is None:
            return None
        return self._auditor.ledger.report({native: each.symbol for native, each in self._instruments.items()})

    def _book_names(self) -> list[str]:
        if not self._may_publish():
            return []
        return [
            self._names.book(self._settings.exchange, self._instruments[native].symbol)
            for topic, native in self.feed.books()
            if topic == "book"
        ]


async def _cancel_all(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Cancel them until all have ended: a library may swallow a cancellation."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_CANCEL_INTERVAL)
    await asyncio.gather(*tasks, return_exceptions=True)


def _now_us() -> int:
    return time.time_ns() // 1000


async def report_refusal(settings: FeederSettings, claim: NetworkClaim, endpoint: str) -> None:
    """Write the heartbeat of a feeder that ends at once, so that `health` shows why."""
    now_us = _now_us()
    beat = FeederHeartbeat(
        feeder=claim.feeder,
        exchange=settings.exchange,
        endpoint=endpoint,
        states={},
        host=socket.gethostname(),
        pid=os.getpid(),
        started_us=now_us,
        time_us=now_us,
        network=claim.network.name,
        refused=claim.refused,
    )
    redis = control_client(settings.redis_url)
    with contextlib.suppress(*CONTROL_ERRORS):
        await write_refusal(redis, RedisNames.on(settings.redis_url, settings.prefix), beat)
    await redis.aclose()


def unique_feeder_id(exchange: str, name: str | None) -> str:
    """An id that no other run of a feeder has, even if two have the same name."""
    return f"{name or f'{exchange}-{socket.gethostname()}-{os.getpid()}'}-{secrets.token_hex(3)}"
