"""A simulated Binance spot exchange: WebSocket and REST on loopback, faults, and the truth at every update id."""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from bookbus.feeders.simulator.binance import messages, statistics
from bookbus.feeders.simulator.binance.messages import ControlSession
from bookbus.feeders.simulator.binance.rest import BinanceRest
from bookbus.feeders.simulator.binance.settings import BinanceSettings
from bookbus.feeders.simulator.core.exchange import ExchangeSimulator
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.feed import STEPS_PER_FLUSH, MarketFeed, create_feed
from bookbus.feeders.simulator.core.market import Flush, Quote, SimulatedFill, SimulatedInstrument, merged
from bookbus.feeders.simulator.core.settings import FLUSHES_PER_SECOND, RateLimit
from bookbus.feeders.simulator.core.tape import DAY, interval_end
from bookbus.feeders.simulator.core.websocket_server import (
    GOING_AWAY,
    POLICY_VIOLATION,
    Background,
    Client,
    ClientConnection,
    WebSocketServer,
)

_PARTIAL_DEPTHS = (5, 10, 20)
_CANDLE_EVERY = 2000
"""Milliseconds between two messages of an unfinished candle."""

Writer = Callable[[int], str]
"""Writes a message for a time, which is in milliseconds or microseconds as the client asked."""


@dataclass(slots=True, eq=False, kw_only=True)
class BinanceClient(Client):
    session: ControlSession
    microseconds: bool
    target: str
    """The path and query with which it connected."""


class BinanceStreams(WebSocketServer[BinanceClient, MarketFeed]):
    """Streams named by path or request. A connection is pinged, lives a day, and ends when its client floods it."""

    def __init__(
        self, settings: BinanceSettings, markets: Mapping[str, MarketFeed], faults: FaultBoard, background: Background
    ) -> None:
        super().__init__(settings, markets, faults, background)
        self._rules = settings.rules
        self._error_shape = settings.error_shape
        self._new: set[str] = set()
        """Streams with a subscriber that has not had a message yet."""
        self._second: dict[str, list[Flush]] = {}
        """The flushes of each symbol since the last full second."""
        self._volumes = statistics.volumes(markets.values())
        self._last_market = next(reversed(list(markets)), None)

    def step(self, market: MarketFeed, step: int, time_us: int) -> None:
        on_second = step % (STEPS_PER_FLUSH * FLUSHES_PER_SECOND) == 0
        if on_second:
            self._publish_statistics(market, time_us)
        events = market.step()
        market.tape.record((event for event in events if isinstance(event, SimulatedFill)), time_us // 1000)
        self._publish_events(market, events, time_us)
        if step % STEPS_PER_FLUSH == 0:
            self._publish_flush(market, market.flush(), time_us, on_second=on_second)

    def restart(self) -> None:
        self.drop_all()
        self._second.clear()
        for market in self._markets.values():
            market.restart()

    def _describe(self, client: BinanceClient) -> dict[str, object]:
        return {"path": client.target, "streams": len(client.session.streams)}

    def _play_on(self, client: BinanceClient, fault: Fault) -> None:
        if fault.kind == "server_shutdown":
            lead = fault.number(0.0)
            self._send(client, messages.server_shutdown(_now_us() // 1000, combined=client.session.combined))
            self._background.call_later(lead, lambda: self._close(client, GOING_AWAY))
        super()._play_on(client, fault)

    def _handshake_error(self, target: str, headers: Mapping[str, str]) -> HTTPStatus | None:
        path = urlsplit(target).path
        if path not in ("/ws", "/stream") and not path.startswith("/ws/"):
            return HTTPStatus.NOT_FOUND
        # Any name is accepted; one that is no stream stays silent.
        return HTTPStatus.BAD_REQUEST if len(_streams_in(target)) > self._rules.streams else None

    def _accept(self, number: int, connection: ClientConnection, target: str) -> BinanceClient:
        url = urlsplit(target)
        session = ControlSession(self._rules, self._error_shape, combined=url.path == "/stream")
        unit = parse_qs(url.query).get("timeUnit", [""])[0]
        client = BinanceClient(
            number, connection, session=session, microseconds=unit.upper() == "MICROSECOND", target=target
        )
        frames = RateLimit(self._rules.frames, self._rules.frame_window)

        def count_frame() -> None:
            if frames.exceeded():
                connection.on_frame = None
                self._close(client, POLICY_VIOLATION, "Too many requests")

        connection.on_frame = count_frame
        session.add_streams(_streams_in(target))
        self._follow(client)
        loop = asyncio.get_running_loop()
        client.running = [
            loop.create_task(self._ping(client, self._rules.ping_interval, self._rules.pong_timeout)),
            loop.call_later(self._rules.lifetime, self._close, client, GOING_AWAY),
        ]
        return client

    def _receive(self, client: BinanceClient, message: str | bytes) -> None:
        if self._faults.match("subscribe_ignored", connection=client.number):
            return
        if fault := self._faults.match("ack_error", connection=client.number):
            self._send(client, client.session.refuse(str(fault.value or "Invalid request: invalid stream"), message))
            return
        reply = client.session.receive(message)
        self._follow(client)
        if reply is not None:
            self._acknowledge(client, reply)

    def _follow(self, client: BinanceClient) -> None:
        """Subscribe to what the session asks for, and to nothing else."""
        wanted = client.session.streams.keys()
        for stream in client.streams.keys() - wanted:
            self._leave(client, stream)
        for stream in wanted - client.streams.keys():
            self._join(client, stream)
            self._new.add(stream)

    def _publish_events(self, feed: MarketFeed, events: Iterable[Quote | SimulatedFill], time: int) -> None:
        """Quotes and trades, the moment they happen."""
        instrument = feed.instrument
        for event in events:
            if isinstance(event, Quote):
                if self._wants(feed, "bookTicker"):
                    feed.remember(event)
                    self._publish(
                        feed, "bookTicker", partial(_without_time, messages.book_ticker(instrument, event)), time
                    )
                continue
            if self._wants(feed, "trade"):
                for write in messages.trades(instrument, event):
                    self._publish(feed, "trade", write, time)
            self._publish(feed, "aggTrade", partial(messages.aggregate_trade, instrument, event), time)

    def _publish_flush(self, feed: MarketFeed, flush: Flush | None, time: int, *, on_second: bool) -> None:
        """Depth streams of 100 ms and, on the second, those of 1000 ms."""
        if flush is not None:
            self._publish_depth(feed, "depth@100ms", flush, time)
            self._second.setdefault(feed.instrument.native, []).append(flush)
        self._publish_partial(feed, "@100ms", time, changed=flush is not None)
        if on_second:
            flushes = self._second.pop(feed.instrument.native, None)
            for kind in ("depth", "depth@1000ms"):
                if flushes and self._wants(feed, kind):
                    self._publish_depth(feed, kind, merged(flushes), time)
            for suffix in ("", "@1000ms"):
                self._publish_partial(feed, suffix, time, changed=bool(flushes))

    def _publish_depth(self, feed: MarketFeed, kind: str, flush: Flush, time: int) -> None:
        body = flush.body or messages.depth_body(feed.instrument, flush)
        self._publish(feed, kind, partial(messages.depth_update, feed.instrument, flush, body), time)

    def _publish_partial(self, feed: MarketFeed, suffix: str, time: int, *, changed: bool) -> None:
        for depth in _PARTIAL_DEPTHS:
            kind = f"depth{depth}{suffix}"
            # A new subscriber gets the book at the next flush even if it did not change; so do all others then.
            if self._wants(feed, kind) and (changed or feed.stream_prefix + kind in self._new):
                text = messages.book_text(feed.instrument, feed.top(depth))
                self._publish(feed, kind, partial(_without_time, text), time)

    def _publish_statistics(self, feed: MarketFeed, time_us: int) -> None:
        """Tickers of each second, candles of each second or two and when they end; all markets' with the last one."""
        now_ms, instrument = time_us // 1000, feed.instrument
        for kind, window in statistics.WINDOWS.items():
            if self._wants(feed, kind):
                self._publish(feed, kind, partial(_event, window, self._figures(feed, window, now_ms)), time_us)
        if self._wants(feed, "avgPrice"):
            self._publish(feed, "avgPrice", partial(statistics.average_event, feed, now_ms), time_us)
        for kind, (name, zone_ms) in statistics.candle_streams().items():
            if not self._wants(feed, kind):
                continue
            interval = statistics.INTERVALS[name]
            (candle,) = feed.tape.candles(interval, 1, now_ms - 1, zone_ms=zone_ms)
            ended = interval_end(candle.start_ms, interval, zone_ms) < now_ms
            if ended or now_ms % _CANDLE_EVERY == 0:
                write = partial(statistics.candle_event, instrument, candle, name, zone_ms, now_ms)
                self._publish(feed, kind, write, time_us)
        if instrument.native == self._last_market:
            self._publish_arrays(feed, time_us)

    def _publish_arrays(self, feed: MarketFeed, time_us: int) -> None:
        now_ms = time_us // 1000
        for kind, window in statistics.WINDOWS.items():
            for every, suffix in ((1, ""), (1, "@1000ms"), (3, "@3000ms")):
                stream = f"!{kind}@arr{suffix}"
                if stream in self._subscribers and now_ms // 1000 % every == 0:
                    found = [self._figures(each, window, now_ms) for each in self._markets.values()]
                    self._publish_stream(stream, feed, kind, partial(_events, window, found), time_us)

    def _figures(self, feed: MarketFeed, window: statistics.Window, now_ms: int) -> dict[str, Any]:
        volume = self._volumes[feed.instrument.native] if window.span_ms == DAY else 0
        return statistics.figures(feed, window.span_ms, now_ms, volume)

    def _wants(self, feed: MarketFeed, kind: str) -> bool:
        return feed.stream_prefix + kind in self._subscribers

    def _publish(self, feed: MarketFeed, kind: str, write: Writer, time: int) -> None:
        """Queue a message of one market for the subscribers of a stream. `time` is in microseconds."""
        self._publish_stream(feed.stream_prefix + kind, feed, kind, write, time)

    def _publish_stream(self, stream: str, feed: MarketFeed, kind: str, write: Writer, time: int) -> None:
        clients = self._subscribers.get(stream)
        if clients is None:
            return
        self._new.discard(stream)
        encoded: dict[Hashable, bytes] = {}
        for client in clients:
            form = client.session.combined, client.microseconds
            self._queue(client, feed, kind, partial(_text, stream, write, time, *form), form, encoded)


def _text(stream: str, write: Writer, time: int, combined: bool, microseconds: bool) -> str:
    payload = write(time if microseconds else time // 1000)
    return messages.wrapped(stream, payload) if combined else payload


def _event(window: statistics.Window, figures: dict[str, Any], time: int) -> str:
    return msgspec.json.encode(statistics.event(window, figures, time)).decode()


def _events(window: statistics.Window, figures: list[dict[str, Any]], time: int) -> str:
    return msgspec.json.encode([statistics.event(window, each, time) for each in figures]).decode()


def _without_time(text: str, _: int) -> str:
    return text


def _streams_in(target: str) -> list[str]:
    """Streams named in the address: `/ws/a/b` or `/stream?streams=a/b`, percent-encoded or not."""
    url = urlsplit(target)
    if url.path.startswith("/ws/"):
        return unquote(url.path.removeprefix("/ws/")).split("/")
    names = parse_qs(url.query).get("streams", [""])[0]
    return names.split("/") if names else []


def _now_us() -> int:
    return time.time_ns() // 1000


class BinanceSimulator(ExchangeSimulator[BinanceSettings, MarketFeed]):
    """`async with BinanceSimulator(symbols=("BTCUSDT",), seed=1) as exchange:` — options as in BinanceSettings."""

    EXCHANGE = "binance"
    SETTINGS = BinanceSettings
    STREAMS = BinanceStreams
    REST = BinanceRest

    def _create_market(self, instrument: SimulatedInstrument) -> MarketFeed:
        return create_feed(instrument, self.settings, self.settings.truth_depth, render=messages.depth_body)


SIMULATOR = BinanceSimulator
