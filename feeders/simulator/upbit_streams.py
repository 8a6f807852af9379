"""Who gets which of Upbit's data: one request replaces the other, whole books and trades go out."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

from bookbus.feeders.simulator.core.connection import VenueConnection, encode_frame
from bookbus.feeders.simulator.core.faults import FaultBoard
from bookbus.feeders.simulator.core.market import Fill
from bookbus.feeders.simulator.upbit import messages as texts
from bookbus.feeders.simulator.upbit.feed import UpbitFeed
from bookbus.feeders.simulator.upbit_requests import DEFAULT_FORM, Form, Kind, Subscription, Wish, split_code

CallLater = Callable[[float, Callable[[], None]], object]

_MOST_TRAILING = 2
"""Messages of the old set that may still come after another one was asked for."""


class _Wanted(NamedTuple):
    """What one subscriber gets of one market; `factor` ticks are grouped into one price."""

    units: int
    factor: int
    snapshot: bool
    realtime: bool


Key = tuple[Kind, str]
"""Type of data and market."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection and what it gets."""

    number: int
    connection: VenueConnection
    form: Form = DEFAULT_FORM
    subscription: Subscription | None = None
    active: dict[Key, _Wanted] = field(default_factory=dict)
    requests: int = 0
    trailing: int | None = None
    """How many messages of the old set may still come; None when there is no newer one."""


class UpbitStreams:
    """Turns what happens on the feeds into queued frames for the subscribers."""

    def __init__(
        self,
        feeds: Mapping[str, UpbitFeed],
        faults: FaultBoard,
        call_later: CallLater,
        delays: tuple[float, float],
        dice: Random,
    ) -> None:
        """First frames come between `delays` seconds after a request, in two bursts."""
        self._feeds = feeds
        self._faults = faults
        self._call_later = call_later
        self._delays = delays
        self._dice = dice
        self._subscribers: dict[Key, dict[Subscriber, _Wanted]] = {}

    def replace(self, subscriber: Subscriber, subscription: Subscription) -> None:
        """The subscriber asked for this instead of what it has."""
        subscriber.subscription, subscriber.form = subscription, subscription.form
        subscriber.requests += 1
        subscriber.trailing = self._dice.randint(0, _MOST_TRAILING)
        if not subscriber.trailing:
            self._leave(subscriber)
        wanted = list(self._wanted(subscription.wishes).items())
        half = len(wanted) // 2
        first, second = sorted(self._dice.uniform(*self._delays) for _ in range(2))
        self._start_later(first, subscriber, wanted[:half])
        self._start_later(second, subscriber, wanted[half:])

    def forget(self, subscriber: Subscriber) -> None:
        """The connection is gone."""
        subscriber.requests += 1
        self._leave(subscriber)

    def publish_book(self, feed: UpbitFeed) -> None:
        """Another book is shown."""
        key: Key = ("orderbook", feed.instrument.native)
        frames: dict[tuple[Form, int, int], bytes] = {}
        for subscriber, wanted in list(self._subscribers.get(key, {}).items()):
            if self._lets_trail(subscriber):
                self._send_book(subscriber, feed, wanted, "REALTIME", frames)

    def publish_trade(self, feed: UpbitFeed, trade: tuple[Fill, int, int]) -> None:
        """Somebody traded."""
        for subscriber in list(self._subscribers.get(("trade", feed.instrument.native), {})):
            if self._lets_trail(subscriber):
                self._send_trade(subscriber, feed, trade, "REALTIME")

    def _wanted(self, wishes: Iterable[Wish]) -> dict[Key, _Wanted]:
        """What can be had of what is wished for; the exchange says nothing of the rest."""
        found: dict[Key, _Wanted] = {}
        for wish in wishes:
            for market, units in map(split_code, wish.codes):
                feed = self._feeds.get(market)
                factor = None if feed is None else texts.grouping_factor(feed.instrument, wish.level)
                if factor is not None:
                    found[wish.kind, market] = _Wanted(units, factor, wish.snapshot, wish.realtime)
        return found

    def _start_later(self, delay: float, subscriber: Subscriber, wanted: list[tuple[Key, _Wanted]]) -> None:
        request = subscriber.requests
        self._call_later(delay, lambda: self._start(request, subscriber, wanted))

    def _start(self, request: int, subscriber: Subscriber, wanted: list[tuple[Key, _Wanted]]) -> None:
        if request != subscriber.requests:
            return  # another request came, or the connection is gone
        if subscriber.trailing is not None:
            self._leave(subscriber)
            subscriber.trailing = None
        for key, each in wanted:
            feed = self._feeds[key[1]]
            if each.snapshot and key[0] == "orderbook":
                self._send_book(subscriber, feed, each, "SNAPSHOT", {})
            elif each.snapshot and key[0] == "trade" and feed.last_trade is not None:
                self._send_trade(subscriber, feed, feed.last_trade, "SNAPSHOT")
            if each.realtime:
                subscriber.active[key] = each
                self._subscribers.setdefault(key, {})[subscriber] = each
        subscriber.connection.send_queued()

    def _leave(self, subscriber: Subscriber) -> None:
        for key in subscriber.active:
            others = self._subscribers[key]
            del others[subscriber]
            if not others:
                del self._subscribers[key]
        subscriber.active.clear()

    def _lets_trail(self, subscriber: Subscriber) -> bool:
        """Whether the subscriber still gets what it has; one message less to come if something newer is on its way."""
        if subscriber.trailing is None:
            return True
        if not subscriber.trailing:
            self._leave(subscriber)
            return False
        subscriber.trailing -= 1
        return True

    def _send_book(
        self,
        subscriber: Subscriber,
        feed: UpbitFeed,
        wanted: _Wanted,
        stream_type: str,
        frames: dict[tuple[Form, int, int], bytes],
    ) -> None:
        key = subscriber.form, wanted.units, wanted.factor
        if self._faults.alters_frames:
            self._send_altered(subscriber, feed, "depth", texts.book_frame(feed, *key, stream_type))
            return
        if key not in frames:
            frames[key] = encode_frame(texts.book_frame(feed, *key, stream_type).encode(), binary=True)
        subscriber.connection.queue(frames[key])

    def _send_trade(
        self, subscriber: Subscriber, feed: UpbitFeed, trade: tuple[Fill, int, int], stream_type: str
    ) -> None:
        text = texts.trade_frame(feed, subscriber.form, trade, stream_type)
        if self._faults.alters_frames:
            self._send_altered(subscriber, feed, "trade", text)
        else:
            subscriber.connection.queue(encode_frame(text.encode(), binary=True))

    def _send_altered(self, subscriber: Subscriber, feed: UpbitFeed, stream: str, text: str) -> None:
        for frame in self._faults.alter(feed.live, stream, subscriber.number, text):
            subscriber.connection.queue(frame)
