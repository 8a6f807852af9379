"""Who is subscribed to which Binance stream, and what each of them gets when the market moves."""

from collections.abc import Callable, Iterable, KeysView
from dataclasses import dataclass
from functools import partial

from bookbus.feeders.simulator.binance import messages
from bookbus.feeders.simulator.binance_control import ControlSession
from bookbus.feeders.simulator.core.connection import VenueConnection, encode_frame
from bookbus.feeders.simulator.core.faults import FaultBoard
from bookbus.feeders.simulator.core.feed import Feed
from bookbus.feeders.simulator.core.market import Fill, Flush, Quote, merged
from bookbus.feeders.simulator.instruments import SimulatedInstrument

_PARTIAL_DEPTHS = (5, 10, 20)

Writer = Callable[[int], str]
"""Writes a message for a time, which is in milliseconds or microseconds as the client asked."""


@dataclass(slots=True, eq=False)
class Subscriber:
    """One connection and what it asked for."""

    number: int
    connection: VenueConnection
    session: ControlSession
    microseconds: bool
    path: str


class StreamHub:
    """Turns what happens on the feeds into queued frames for the subscribers. Times are microseconds."""

    def __init__(self, faults: FaultBoard) -> None:
        self._faults = faults
        self._subscribers: dict[str, dict[Subscriber, None]] = {}
        self._new: dict[str, set[Subscriber]] = {}
        """Who still waits for the first message of a stream."""
        self._second: dict[str, list[Flush]] = {}
        """The flushes of each symbol since the last full second."""

    def update(self, subscriber: Subscriber, before: KeysView[str]) -> None:
        """Follow a change of `subscriber.session.streams`."""
        now = subscriber.session.streams.keys()
        for stream in before - now:
            self._leave(stream, subscriber)
        for stream in now - before:
            self._subscribers.setdefault(stream, {})[subscriber] = None
            self._new.setdefault(stream, set()).add(subscriber)

    def forget(self, subscriber: Subscriber) -> None:
        """The connection is gone."""
        for stream in subscriber.session.streams:
            self._leave(stream, subscriber)

    def forget_flushes(self) -> None:
        """The ids begin anew: nothing of this second belongs together any more."""
        self._second.clear()

    def publish_step(self, feed: Feed, happened: Iterable[Quote | Fill], time: int) -> None:
        """Quotes and trades, the moment they happen."""
        instrument = feed.instrument
        for event in happened:
            if isinstance(event, Quote):
                if self._wants(feed, "bookTicker"):
                    feed.remember(event)
                    self._send(feed, "bookTicker", partial(_book_ticker, instrument, event), time)
                continue
            if self._wants(feed, "trade"):
                for write in messages.trades(instrument, event):
                    self._send(feed, "trade", write, time)
            self._send(feed, "aggTrade", partial(messages.aggregate_trade, instrument, event), time)

    def publish_flush(self, feed: Feed, flush: Flush | None, time: int, *, on_second: bool) -> None:
        """Depth streams of 100 ms and, on the second, those of 1000 ms."""
        if flush is not None:
            body = flush.body or messages.depth_body(feed.instrument, flush)
            self._send(feed, "depth@100ms", partial(messages.depth_update, feed.instrument, flush, body), time)
            self._second.setdefault(feed.instrument.native, []).append(flush)
        self._publish_partial(feed, "@100ms", time, changed=flush is not None)
        if on_second:
            self._publish_second(feed, time)

    def _publish_second(self, feed: Feed, time: int) -> None:
        flushes = self._second.pop(feed.instrument.native, None)
        for kind in ("depth", "depth@1000ms"):
            if flushes and self._wants(feed, kind):
                flush = merged(flushes)
                body = messages.depth_body(feed.instrument, flush)
                self._send(feed, kind, partial(messages.depth_update, feed.instrument, flush, body), time)
        for suffix in ("", "@1000ms"):
            self._publish_partial(feed, suffix, time, changed=bool(flushes))

    def _publish_partial(self, feed: Feed, suffix: str, time: int, *, changed: bool) -> None:
        for depth in _PARTIAL_DEPTHS:
            kind = f"depth{depth}{suffix}"
            # Whoever has just subscribed gets the book at the next flush even if it rests; so does everybody else then.
            if self._wants(feed, kind) and (changed or self._new.get(feed.stream_prefix + kind)):
                text = messages.book_text(feed.instrument, feed.top(depth))
                self._send(feed, kind, partial(_constant, text), time)

    def _wants(self, feed: Feed, kind: str) -> bool:
        return feed.stream_prefix + kind in self._subscribers

    def _send(self, feed: Feed, kind: str, write: Writer, time: int) -> None:
        stream = feed.stream_prefix + kind
        subscribers = self._subscribers.get(stream)
        if subscribers is None:
            return
        self._new.pop(stream, None)
        frames: dict[tuple[bool, bool], bytes] = {}
        for subscriber in subscribers:
            form = subscriber.session.combined, subscriber.microseconds
            if self._faults.alters_frames:
                text = _text(stream, write, time, form)
                for frame in self._faults.alter(feed, kind, subscriber.number, text):
                    subscriber.connection.queue(frame)
                continue
            if form not in frames:
                frames[form] = encode_frame(_text(stream, write, time, form).encode())
            subscriber.connection.queue(frames[form])

    def _leave(self, stream: str, subscriber: Subscriber) -> None:
        subscribers = self._subscribers[stream]
        del subscribers[subscriber]
        if not subscribers:
            del self._subscribers[stream]
        self._new.get(stream, set()).discard(subscriber)


def _text(stream: str, write: Writer, time: int, form: tuple[bool, bool]) -> str:
    combined, microseconds = form
    payload = write(time if microseconds else time // 1000)
    return messages.wrapped(stream, payload) if combined else payload


def _book_ticker(instrument: SimulatedInstrument, quote: Quote, _: int) -> str:
    return messages.book_ticker(instrument, quote)


def _constant(text: str, _: int) -> str:
    return text
