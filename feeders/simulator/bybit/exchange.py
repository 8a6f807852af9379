"""A simulated Bybit spot exchange: WebSocket and REST on loopback, faults, and the truth at every update id."""

import asyncio
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

from bookbus.feeders.simulator.bybit import messages, statistics
from bookbus.feeders.simulator.bybit.market import DEPTH, BybitMarket
from bookbus.feeders.simulator.bybit.rest import BybitRest
from bookbus.feeders.simulator.core.exchange import ExchangeSimulator
from bookbus.feeders.simulator.core.faults import ANY_FRAME_FAULTS, Fault, FaultBoard, FaultError
from bookbus.feeders.simulator.core.feed import STEPS_PER_FLUSH, BookAt, create_feed
from bookbus.feeders.simulator.core.market import SimulatedFill, SimulatedInstrument
from bookbus.feeders.simulator.core.settings import FLUSHES_PER_SECOND, Rules, SimulatorSettings
from bookbus.feeders.simulator.core.websocket_server import Background, Client, ClientConnection, WebSocketServer

PATH = "/v5/public/spot"
_DEPTHS = (1, 50, 200, 1000)
_CHANNELS = {
    **{f"orderbook.{depth}": depth for depth in _DEPTHS},
    **dict.fromkeys(("publicTrade", "tickers", *(f"kline.{name}" for name in statistics.INTERVALS)), 0),
}
"""Levels a side of each channel, 0 for those that are no books."""
_SNAPSHOTS_ONLY = 1
"""The depth at which every message is a whole book."""
_RESTARTED = 1
"""The id with which a restarted service begins."""


@dataclass(frozen=True, kw_only=True)
class BybitRules(Rules):
    """The exchange's limits; times in seconds."""

    connects: int = 500
    idle: float = 600.0
    """A connection without Bybit's own ping for this long is cut, even while data flows (stricter than documented)."""
    arguments: int = 10
    """Topics that one request may name."""
    trades: int = 2
    """Trades that one message may hold. The exchange's own limit, 1,024, would hardly ever be reached here."""


@dataclass(frozen=True, kw_only=True)
class BybitSettings(SimulatorSettings):
    """Options of one simulated Bybit."""

    rules: BybitRules = field(default_factory=BybitRules)


@dataclass(slots=True, eq=False, kw_only=True)
class BybitClient(Client):
    connection_id: str


class BybitStreams(WebSocketServer[BybitClient, BybitMarket]):
    """Topics of books (a snapshot, then changes) and trades. A connection whose client does not ping is cut."""

    def __init__(
        self, settings: BybitSettings, markets: Mapping[str, BybitMarket], faults: FaultBoard, background: Background
    ) -> None:
        super().__init__(settings, markets, faults, background)
        self._rules = settings.rules
        self._shown: dict[str, BookAt] = {}
        """The book that the subscribers of a topic hold."""
        self._idle_cuts = 0

    def step(self, market: BybitMarket, step: int, time_us: int) -> None:
        time_ms = time_us // 1000
        if step % (STEPS_PER_FLUSH * FLUSHES_PER_SECOND) == 0:
            self._publish_candles(market, time_ms)
        if fills := market.fills():
            market.feed.tape.record(fills, time_ms)
            self._publish_trades(market, fills, time_ms)
        if step % STEPS_PER_FLUSH == 0 and market.flush(market.update_id + 1):
            market.matched_ms = time_ms
            for topic, depth, before in self._shown_topics(market):
                book = self._shown[topic] = market.at_depth(depth)
                if depth != _SNAPSHOTS_ONLY:
                    text = messages.delta(topic, market.instrument, before, book, market.sequence, time_ms)
                    self._publish(market, "depth", text, self._subscribers[topic])
                elif before[1:] != book[1:]:
                    self._publish_snapshot(market, topic, self._subscribers[topic])

    def _publish_trades(self, market: BybitMarket, fills: list[SimulatedFill], time_ms: int) -> None:
        """Trades, and the figures of the day that they change."""
        native = market.instrument.native
        name, day = f"publicTrade.{native}", f"tickers.{native}"
        if name in self._subscribers:
            for text in messages.trades(name, market.instrument, fills, market.sequence, time_ms, self._rules.trades):
                self._publish(market, "trade", text, self._subscribers[name])
        if day in self._subscribers:
            text = statistics.day_message(day, market.feed, market.sequence, time_ms)
            self._publish(market, "ticker", text, self._subscribers[day])

    def _publish_candles(self, market: BybitMarket, time_ms: int) -> None:
        for name in statistics.INTERVALS:
            topic = f"kline.{name}.{market.instrument.native}"
            if topic in self._subscribers:
                text = statistics.candle_message(topic, market.feed, name, time_ms)
                self._publish(market, "kline", text, self._subscribers[topic])

    def restart(self) -> None:
        # Connections stay: each topic of a book gets another snapshot, with the lowest id.
        for market in self._markets.values():
            market.restart_at(_RESTARTED)
            for topic, depth, _ in self._shown_topics(market):
                self._shown[topic] = market.at_depth(depth)
                self._publish_snapshot(market, topic, self._subscribers[topic])
        self.send_queued()

    def status(self) -> dict[str, object]:
        return {**super().status(), "idle_cuts": self._idle_cuts}

    def _describe(self, client: BybitClient) -> dict[str, object]:
        return {"streams": len(client.streams)}

    def _handshake_error(self, target: str, headers: Mapping[str, str]) -> HTTPStatus | None:
        return None if target.partition("?")[0] == PATH else HTTPStatus.NOT_FOUND

    def _accept(self, number: int, connection: ClientConnection, target: str) -> BybitClient:
        client = BybitClient(number, connection, connection_id=f"simulated-{number}")
        self._expect_ping(client)
        return client

    def _expect_ping(self, client: BybitClient) -> None:
        for timer in client.running:
            timer.cancel()
        client.running = [asyncio.get_running_loop().call_later(self._rules.idle, self._cut, client)]

    def _cut(self, client: BybitClient) -> None:
        self._idle_cuts += 1
        client.connection.drop()

    def _receive(self, client: BybitClient, message: str | bytes) -> None:
        reply = messages.answer(message, client.connection_id, self._rules.arguments, client.streams, self._knows)
        request = reply.request
        if request.op == "ping":
            self._expect_ping(client)
            self._send(client, reply.text)
            return
        if self._faults.match("subscribe_ignored", connection=client.number):
            return
        if fault := self._faults.match("ack_error", connection=client.number):
            self._send(client, messages.refuse(request, client.connection_id, str(fault.value or "error")).text)
            return
        self._acknowledge(client, reply.text)
        for topic in reply.topics:
            if request.op == "subscribe":
                self._subscribe(client, topic)
            else:
                self._leave(client, topic)
        client.connection.send_queued()

    def _knows(self, topic: str) -> bool:
        channel, _, native = topic.rpartition(".")
        return channel in _CHANNELS and native in self._markets

    def _subscribe(self, client: BybitClient, topic: str) -> None:
        """Subscribe to a topic; one of a book or of a day begins with a snapshot."""
        channel, _, native = topic.rpartition(".")
        market = self._markets[native]
        if channel == "tickers":
            text = statistics.day_message(topic, market.feed, market.sequence, _now_ms())
            self._publish(market, "ticker", text, [client])
        if depth := _CHANNELS[channel]:
            self._shown.setdefault(topic, market.at_depth(depth))
            self._publish_snapshot(market, topic, [client])
            self._faults.snapshot_served(native)
        self._join(client, topic)

    def _leave(self, client: BybitClient, stream: Hashable) -> None:
        super()._leave(client, stream)
        if stream not in self._subscribers:
            self._shown.pop(str(stream), None)

    def _shown_topics(self, market: BybitMarket) -> list[tuple[str, int, BookAt]]:
        """Subscribed topics of this market's book: name, depth and the book shown last."""
        names = ((f"orderbook.{depth}.{market.instrument.native}", depth) for depth in _DEPTHS)
        return [(name, depth, self._shown[name]) for name, depth in names if name in self._shown]

    def _publish_snapshot(self, market: BybitMarket, topic: str, clients: Iterable[BybitClient]) -> None:
        book = self._shown[topic]
        text = messages.snapshot(topic, market.instrument, book, market.sequence, market.matched_ms)
        self._publish(market, "depth", text, clients)

    def _publish(self, market: BybitMarket, kind: str, text: str, clients: Iterable[BybitClient]) -> None:
        encoded: dict[Hashable, bytes] = {}
        for client in clients:
            self._queue(client, market.feed, kind, lambda: text, encoded=encoded)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class BybitSimulator(ExchangeSimulator[BybitSettings, BybitMarket]):
    """`async with BybitSimulator(symbols=("BTCUSDT",), seed=1) as exchange:` — options as in BybitSettings."""

    EXCHANGE = "bybit"
    SETTINGS = BybitSettings
    STREAMS = BybitStreams
    REST = BybitRest
    FRAME_FAULTS = {kind: play for kind, play in ANY_FRAME_FAULTS.items() if kind != "clock_skew"}  # noqa: RUF012
    # A shutdown is not announced; REST serves no snapshots.
    IMPOSSIBLE_FAULTS = frozenset({"server_shutdown", "stale_snapshot", "empty_snapshot", "market_warning"})

    def check_fault(self, fault: Fault) -> None:
        super().check_fault(fault)
        if fault.stream != "depth":
            raise FaultError("only messages of books can be corrupted here")

    def _create_market(self, instrument: SimulatedInstrument) -> BybitMarket:
        return BybitMarket(create_feed(instrument, self.settings, DEPTH), self.settings.truth_flushes)


SIMULATOR = BybitSimulator
