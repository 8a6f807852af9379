"""One connection of a feed: subscriptions acknowledged, frames handed to the feed, its end told."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar, Self

from bookbus.feeders.books.arbitration import LineArbiter
from bookbus.feeders.books.events import Acknowledged, ClosingSoon, Refused, ResubscribeNeeded, Topic
from bookbus.feeders.errors import WebSocketTimeoutError
from bookbus.feeders.feed import CLOSED_BY_US, Feed, OnTrade, SnapshotSource
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.snapshot_fetcher import SnapshotFetcher
from bookbus.feeders.stall_detector import StallDetector
from bookbus.feeders.venue import FeedOptions, Venue, adapter_module
from bookbus.feeders.websocket_client import BaseWebSocketClient
from bookbus.schemas.instruments import InstrumentRegistry
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)

_line_numbers = itertools.count()

_LIFETIME_STAGGER = 600.0
"""Seconds by which each further line to the same symbols is replaced earlier than the one before."""

OnSnapshot = Callable[[OrderBookSnapshot], None]
OnFrame = Callable[[str, bytes], None]
"""Gets the URL and every raw message, for a recording."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """What an adapter is connected to. The defaults make one that works on its own."""

    ws_url: str | None = None
    rest_url: str | None = None
    options: FeedOptions = field(default_factory=FeedOptions)
    registry: InstrumentRegistry | None = None
    on_quote: OnSnapshot | None = None
    on_trade: OnTrade | None = None
    on_frame: OnFrame | None = None
    snapshots: SnapshotSource | None = None
    stall: StallDetector | None = None
    feed: Feed | None = None
    """The books that another connection fills or filled, and this one fills too."""
    slot: int = 0
    """Which of several lines to the same symbols this is."""
    race: LineArbiter | None = None
    on_lost: "Callable[[FeedAdapter], None] | None" = None
    """Told when the connection failed, after the feed was."""


class FeedAdapter(BaseWebSocketClient):
    """What every venue's adapter does alike. Successive connections may share one feed."""

    venue: ClassVar[Venue]

    def __init__(
        self,
        symbols: Sequence[str],
        callback: OnSnapshot,
        heartbeat_interval: float = 30.0,
        timeout: float = 10.0,
        wiring: Wiring | None = None,
    ) -> None:
        """`callback` gets every new book, and the last one marked `suspect` when its truth is lost."""
        self.symbols = tuple(symbols)
        self.callback = callback
        self.wiring = wiring = wiring or Wiring()
        super().__init__(self.venue.stream_url(wiring.ws_url or self.venue.ws_url), heartbeat_interval, timeout)
        self._own_requests: tuple[RestClient, SnapshotFetcher] | None = None
        self.feed = wiring.feed or self._make_feed(wiring)
        self._stall = wiring.stall or StallDetector(self.discard)
        self._line = -1
        self._awaited: dict[int, float] = {}
        self._had_data = False
        self._next_book_check = 0.0
        self.ready_at = 0.0
        """Monotonic time since which it brings every update."""

    @property
    def has_valid_data(self) -> bool:
        """Whether a book changed by a message of the current connection."""
        return self._had_data

    def successor(self) -> Self:
        """Another connection that carries the same symbols into the same books."""
        wiring = replace(self.wiring, feed=self.feed)
        return type(self)(self.symbols, self.callback, self.heartbeat_interval, self.timeout, wiring)

    async def connect(self) -> None:
        """Open the socket. Raises WebSocketConnectionError."""
        self._awaited.clear()
        self._had_data = False
        self._line = next(_line_numbers)
        await super().connect()

    async def subscribe(self, channels: Sequence[str] | None = None) -> None:
        """Ask for these native symbols, None for all; the control messages leave as fast as the exchange allows."""
        requests = self.feed.subscribe(channels)
        limit = time.monotonic() + self.timeout + len(requests) * self.send_interval
        self._awaited.update({request.request_id: limit for request in requests if request.request_id is not None})
        self._next_book_check = limit
        self.send_soon([request.text for request in requests])
        if not self._awaited and "book" not in self.feed.options.topics:
            self._become_ready()  # nobody can say when the first trade will come

    async def receive_loop(self) -> None:
        """Drain until the connection is lost, then tell the feed. Snapshots of its own are fetched meanwhile."""
        requests = asyncio.create_task(self._own_requests[1].run()) if self._own_requests else None
        reason, on_lost = CLOSED_BY_US, None
        try:
            await super().receive_loop()
        except Exception as error:
            reason, on_lost = str(error), self.wiring.on_lost
            raise
        finally:
            self.feed.line_down(self._line, reason, _now_us())
            if on_lost is not None:
                on_lost(self)
            if requests is not None:
                requests.cancel()
                await asyncio.gather(requests, return_exceptions=True)
                await self.close()  # what the last requests opened again

    async def close(self) -> None:
        """Close the socket; harmless if it is closed."""
        await super().close()
        if self._own_requests is not None:
            await self._own_requests[0].close()

    def discard(self, gap: float) -> None:
        """This process stood still for `gap` seconds: forget every book and start again on a new connection."""
        self.feed.forget()
        self.abandon(f"this process stood still for {gap:.1f} s")

    def on_message(self, message: bytes) -> None:
        """Hand a message to the feed; answers to our own messages are for us."""
        self._stall.beat()
        if self._abandoned:
            return
        if self.wiring.on_frame is not None:
            self.wiring.on_frame(self.url, message)
        counters, now_us, refused = self.feed.counters, _now_us(), False
        before = counters.updates
        if (race := self.wiring.race) is not None:
            race.slot, race.now_us = self.wiring.slot, now_us
        for event in self.feed.receive(message, self._line, now_us):
            match event:
                case Acknowledged():
                    self._acknowledge(event.request_id)
                case Refused():
                    # Left unanswered in our list, it ends the connection when its time is up.
                    refused = True
                    logger.error("%s refused a subscription: %s", self.venue.exchange.id, event.message)
                case ResubscribeNeeded():
                    self.send_soon([request.text for request in self.feed.subscribe([event.native])])
                case ClosingSoon():
                    logger.info("%s: %s", self.venue.exchange.id, event.reason)
                    self.replace_wanted.set()
        if counters.updates != before:
            self._had_data = True
        if not (self._awaited or refused or self.ready.is_set()):
            self._become_ready()  # where nothing is acknowledged, the first books say that the subscription works

    def check(self, now: float) -> None:
        """Raises WebSocketTimeoutError when the exchange left a subscription unanswered."""
        self._stall.beat()
        if any(limit < now for limit in self._awaited.values()):
            raise WebSocketTimeoutError(f"no answer to {len(self._awaited)} subscriptions within {self.timeout:g} s")
        lifetime = self.venue.lifetime
        if lifetime is not None and now - self.opened_at > lifetime - self.wiring.slot * _LIFETIME_STAGGER:
            self.replace_wanted.set()
        if now > self._next_book_check:
            self._next_book_check = now + self.timeout
            self._ask_again_for_books()

    def ask_again_soon(self) -> None:
        """Ask again for books that are missing at the next check, without waiting for the usual time."""
        self._next_book_check = 0.0

    def _ask_again_for_books(self) -> None:
        """An exchange may accept a subscription and then send nothing: report the symbol and ask again."""
        missing = self.feed.without_book()
        if not missing:
            return
        names = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        logger.warning("%s: no book of %s, asking again", self.venue.exchange.id, names)
        self.send_soon([request.text for request in self.feed.subscribe(missing)])

    def _acknowledge(self, request_id: int) -> None:
        if self._awaited.pop(request_id, None) is not None and not self._awaited:
            self._become_ready()

    def _become_ready(self) -> None:
        self.ready_at = time.monotonic()
        self.feed.line_up(self._line)
        self.ready.set()

    def _make_feed(self, wiring: Wiring) -> Feed:
        registry = wiring.registry or InstrumentRegistry(self.venue.exchange, offline=True)
        natives = [registry.resolve(symbol).native for symbol in self.symbols]
        return Feed(
            exchange=self.venue.exchange.id,
            protocol=self.venue.protocol(natives, wiring.options),
            options=wiring.options,
            instrument_of=cache(registry.resolve),
            on_snapshot=self._deliver,
            on_trade=wiring.on_trade or _ignore,
            snapshots=wiring.snapshots or self._make_requests(wiring),
        )

    def _deliver(self, snapshot: OrderBookSnapshot, topic: Topic) -> None:
        if topic == "book":
            self.callback(snapshot)
        elif self.wiring.on_quote is not None:
            self.wiring.on_quote(snapshot)

    def _make_requests(self, wiring: Wiring) -> SnapshotFetcher:
        rest = self.venue.rest(wiring.rest_url or self.venue.rest_url, self.timeout)
        fetcher = SnapshotFetcher(self.venue, rest)
        self._own_requests = (rest, fetcher)
        return fetcher


def _ignore(_: object) -> None:
    """Nobody asked for it."""


def _now_us() -> int:
    return time.time_ns() // 1000


def adapter_of(venue: Venue) -> type[FeedAdapter]:
    """What opens connections to the venue."""
    adapter: type[FeedAdapter] = adapter_module(venue.exchange.id).ADAPTER
    return adapter
