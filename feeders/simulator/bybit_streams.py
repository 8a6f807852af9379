"""Who is subscribed to which of Bybit's topics: a snapshot first, then what changes, and trades."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bookbus.feeders.simulator.bybit import messages as texts
from bookbus.feeders.simulator.bybit.feed import BybitFeed
from bookbus.feeders.simulator.core.connection import VenueConnection, encode_frame
from bookbus.feeders.simulator.core.faults import FaultBoard
from bookbus.feeders.simulator.core.market import Fill
from bookbus.feeders.simulator.truth import BookAt

_DEPTHS = (1, 50, 200, 1000)
_CHANNELS = {**{f"orderbook.{depth}": depth for depth in _DEPTHS}, "publicTrade": 0}
_SNAPSHOTS_ONLY = 1
"""The depth at which every message is a whole book."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection and what it asked for."""

    number: int
    connection: VenueConnection
    connection_id: str
    topics: dict[str, None] = field(default_factory=dict)
    idle: asyncio.TimerHandle | None = None
    """Cuts the connection unless a ping comes in time."""


@dataclass(slots=True)
class _Topic:
    subscribers: dict[Subscriber, None] = field(default_factory=dict)
    shown: BookAt | None = None
    """What the subscribers of a book hold."""


class BybitStreams:
    """Turns what happens on the feeds into queued frames for the subscribers. `now_ms` is the wall clock."""

    def __init__(self, feeds: Mapping[str, BybitFeed], faults: FaultBoard, now_ms: Callable[[], int]) -> None:
        self._feeds = feeds
        self._faults = faults
        self._now_ms = now_ms
        self._topics: dict[str, _Topic] = {}

    def knows(self, name: str) -> bool:
        """Whether there is such a topic."""
        channel, _, native = name.rpartition(".")
        return channel in _CHANNELS and native in self._feeds

    def join(self, subscriber: Subscriber, name: str) -> None:
        """From now on the subscriber gets this topic; of a book, the whole of it first."""
        topic = self._topics.setdefault(name, _Topic())
        channel, _, native = name.rpartition(".")
        if depth := _CHANNELS[channel]:
            feed = self._feeds[native]
            topic.shown = topic.shown or feed.book(depth)
            text = texts.snapshot(name, feed.instrument, topic.shown, feed.sequence, self._now_ms())
            self._send(feed, text, [subscriber])
            self._faults.snapshot_served(native)
        topic.subscribers[subscriber] = subscriber.topics[name] = None

    def leave(self, subscriber: Subscriber, name: str) -> None:
        """The subscriber gets no more of this topic."""
        if name not in subscriber.topics:
            return
        del subscriber.topics[name]
        topic = self._topics[name]
        del topic.subscribers[subscriber]
        if not topic.subscribers:
            del self._topics[name]

    def forget(self, subscriber: Subscriber) -> None:
        """The connection is gone."""
        for name in list(subscriber.topics):
            self.leave(subscriber, name)

    def publish_book(self, feed: BybitFeed) -> None:
        """The book has another id."""
        for depth in _DEPTHS:
            name = f"orderbook.{depth}.{feed.instrument.native}"
            topic = self._topics.get(name)
            if topic is None or topic.shown is None:
                continue
            before, topic.shown = topic.shown, feed.book(depth)
            if depth != _SNAPSHOTS_ONLY:
                args = before, topic.shown, feed.sequence, self._now_ms()
                self._send(feed, texts.delta(name, feed.instrument, *args), topic.subscribers)
            elif before[1:] != topic.shown[1:]:
                self._send_whole(name, feed, topic)

    def publish_restart(self, feed: BybitFeed) -> None:
        """The service began anew: every topic of the market gets another book, unasked."""
        for depth in _DEPTHS:
            name = f"orderbook.{depth}.{feed.instrument.native}"
            if topic := self._topics.get(name):
                topic.shown = feed.book(depth)
                self._send_whole(name, feed, topic)

    def publish_trades(self, feed: BybitFeed, fills: Sequence[Fill]) -> None:
        """Somebody traded."""
        name = f"publicTrade.{feed.instrument.native}"
        topic = self._topics.get(name)
        if topic is not None and fills:
            text = texts.trades(name, feed.instrument, fills, feed.sequence, self._now_ms())
            frame = encode_frame(text.encode())
            for subscriber in topic.subscribers:
                subscriber.connection.queue(frame)

    def _send_whole(self, name: str, feed: BybitFeed, topic: _Topic) -> None:
        book = topic.shown or feed.book(_SNAPSHOTS_ONLY)
        text = texts.snapshot(name, feed.instrument, book, feed.sequence, self._now_ms())
        self._send(feed, text, topic.subscribers)

    def _send(
        self, feed: BybitFeed, text: str, subscribers: "Sequence[Subscriber] | Mapping[Subscriber, None]"
    ) -> None:
        if not self._faults.alters_frames:
            frame = encode_frame(text.encode())
            for subscriber in subscribers:
                subscriber.connection.queue(frame)
            return
        for subscriber in subscribers:
            for frame in self._faults.alter(feed.market, "depth", subscriber.number, text):
                subscriber.connection.queue(frame)
