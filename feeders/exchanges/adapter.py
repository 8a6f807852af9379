"""One connection of a feed: it acknowledges subscriptions, hands frames to the feed and reports its own end."""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Self

from bookbus.feeders.books.events import Acknowledged, ClosingSoon, Refused, ResubscribeNeeded
from bookbus.feeders.errors import WebSocketTimeoutError
from bookbus.feeders.feed import CLOSED_BY_US, Feed
from bookbus.feeders.stall_detector import StallDetector
from bookbus.feeders.venue import Venue
from bookbus.feeders.websocket_client import BaseWebSocketClient

logger = logging.getLogger(__name__)

_LIFETIME_STAGGER = 600.0
"""Seconds by which each further line to the same symbols is replaced earlier than the one before."""

OnFrame = Callable[[str, bytes], None]
"""Gets the URL and every raw message, for a recording."""


class FeedAdapter(BaseWebSocketClient):
    """A connection to one venue. Successive connections, and those of several lines, share one feed."""

    def __init__(
        self,
        venue: Venue,
        feed: Feed,
        url: str,
        stall: StallDetector,
        heartbeat_interval: float = 30.0,
        timeout: float = 10.0,
        *,
        slot: int = 0,
        on_frame: OnFrame | None = None,
        on_lost: "Callable[[FeedAdapter], None] | None" = None,
    ) -> None:
        """`slot` is the number of the line; `on_lost` is called when the connection failed, after `feed.line_down`."""
        super().__init__(url, heartbeat_interval, timeout)
        self.venue = venue
        self.feed = feed
        self.slot = slot
        self.keepalive_text = venue.keepalive
        self.ready_at = 0.0
        """Monotonic time since which it delivers every update."""
        self._stall = stall
        self._on_frame = on_frame
        self._on_lost = on_lost
        self._line = feed.books.new_line(slot)
        self._unacknowledged: dict[int, float] = {}
        self._had_data = False
        self._next_book_check = 0.0

    @property
    def has_valid_data(self) -> bool:
        """Whether a book changed by a message of the current connection."""
        return self._had_data

    def successor(self) -> Self:
        return type(self)(
            self.venue,
            self.feed,
            self.url,
            self._stall,
            self.heartbeat_interval,
            self.timeout,
            slot=self.slot,
            on_frame=self._on_frame,
            on_lost=self._on_lost,
        )

    async def connect(self) -> None:
        self._unacknowledged.clear()
        self._had_data = False
        self._line = self.feed.books.new_line(self.slot)
        await super().connect()

    async def subscribe(self, channels: Sequence[str] | None = None) -> None:
        """Ask for everything, or again for these symbols; the messages leave as fast as the exchange allows."""
        requests = self.feed.subscribe(channels or ())
        limit = time.monotonic() + self.timeout + len(requests) * self.send_interval
        self._unacknowledged.update({one.request_id: limit for one in requests if one.request_id is not None})
        self._next_book_check = limit
        self.send_soon([request.text for request in requests])
        if not self._unacknowledged and "book" not in self.feed.options.topics:
            self._become_ready()  # the first trade may come much later

    async def receive_loop(self) -> None:
        """Drain until the connection is lost, then call `feed.line_down`."""
        reason, on_lost = CLOSED_BY_US, None
        try:
            await super().receive_loop()
        except Exception as error:
            reason, on_lost = str(error), self._on_lost
            raise
        finally:
            self.feed.line_down(self._line, reason, _now_us())
            if on_lost is not None:
                on_lost(self)

    def discard(self, gap: float) -> None:
        """This process stalled for `gap` seconds: drop every book and start again on a new connection."""
        self.feed.forget()
        self.abandon(f"this process stalled for {gap:.1f} s")

    def on_message(self, message: bytes) -> None:
        self._stall.beat()
        if self._abandoned:
            return
        if self._on_frame is not None:
            self._on_frame(self.url, message)
        counters, refused = self.feed.counters, False
        before = counters.updates
        for event in self.feed.receive(message, self._line, _now_us()):
            match event:
                case Acknowledged():
                    self._acknowledge(event.request_id)
                case Refused(native=str(native)) if native and event.request_id is not None:
                    self._subscribe_without(native, event.request_id, event.message)
                case Refused():
                    # It stays unacknowledged, which ends the connection when its time is up.
                    refused = True
                    logger.error("%s refused a subscription: %s", self.venue.exchange.id, event.message)
                case ResubscribeNeeded():
                    self.subscribe_again([event.native])
                case ClosingSoon():
                    logger.info("%s: %s", self.venue.exchange.id, event.reason)
                    self.replace_wanted.set()
        if counters.updates != before:
            self._had_data = True
        if not (self._unacknowledged or refused or self.ready.is_set()):
            self._become_ready()  # where nothing is acknowledged, the first books show that the subscription works

    def check(self, now: float) -> None:
        """Raises WebSocketTimeoutError when the exchange left a subscription unanswered."""
        self._stall.beat()
        if any(limit < now for limit in self._unacknowledged.values()):
            count = len(self._unacknowledged)
            raise WebSocketTimeoutError(f"no answer to {count} subscriptions within {self.timeout:g} s")
        lifetime = self.venue.lifetime
        if lifetime is not None and now - self.opened_at > lifetime - self.slot * _LIFETIME_STAGGER:
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
        self.subscribe_again(missing)

    def subscribe_again(self, natives: Sequence[str]) -> None:
        """Ask for these symbols again, without waiting for an acknowledgement."""
        self.send_soon([request.text for request in self.feed.subscribe(natives)])

    def _subscribe_without(self, native: str, request_id: int, message: str) -> None:
        """The exchange refused a whole request because of one symbol: ask for the others."""
        self.feed.refuse(native, message)
        requests = self.feed.books.subscribe_without(native, request_id)
        if request_id in self._unacknowledged:
            limit = time.monotonic() + self.timeout + len(requests) * self.send_interval
            self._unacknowledged.update({one.request_id: limit for one in requests if one.request_id is not None})
        self.send_soon([request.text for request in requests])
        self._acknowledge(request_id)

    def _acknowledge(self, request_id: int) -> None:
        if self._unacknowledged.pop(request_id, None) is not None and not self._unacknowledged:
            self._become_ready()

    def _become_ready(self) -> None:
        self.ready_at = time.monotonic()
        self.feed.line_up(self._line)
        self.ready.set()


def _now_us() -> int:
    return time.time_ns() // 1000
