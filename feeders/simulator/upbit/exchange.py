"""A simulated Upbit: WebSocket and REST on loopback, faults, and the truth at every book time."""

import asyncio
import time
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from random import Random
from typing import NamedTuple

from bookbus.feeders.simulator.core.exchange import ExchangeSimulator
from bookbus.feeders.simulator.core.faults import FaultBoard
from bookbus.feeders.simulator.core.feed import STEPS_PER_FLUSH, create_feed
from bookbus.feeders.simulator.core.market import SimulatedInstrument
from bookbus.feeders.simulator.core.settings import RateLimit
from bookbus.feeders.simulator.core.websocket_server import (
    NORMAL,
    Background,
    Client,
    ClientConnection,
    WebSocketServer,
)
from bookbus.feeders.simulator.upbit import messages, statistics
from bookbus.feeders.simulator.upbit.faults import UPBIT_FRAME_FAULTS
from bookbus.feeders.simulator.upbit.market import DEPTH, UpbitMarket, UpbitTrade, on_won_grid
from bookbus.feeders.simulator.upbit.messages import DEFAULT_FORM, Form, Listing, RequestError, Subscription
from bookbus.feeders.simulator.upbit.rest import UpbitRest
from bookbus.feeders.simulator.upbit.settings import UpbitSettings

PATH = "/websocket/v1"

_MOST_TRAILING = 2
"""Messages of the old subscription that may still come after a new request."""
_IDLE_CHECKS = 50
"""How often a connection is checked within the time that it may idle."""
_LATEST_STATUS = 0.75
"""The first status message comes within this share of the interval."""


class _Wanted(NamedTuple):
    """A subscription to one market; `factor` ticks are grouped into one price."""

    units: int
    factor: int
    snapshot: bool
    realtime: bool


Key = tuple[str, str]
"""Type of data and market."""


@dataclass(slots=True, eq=False, kw_only=True)
class UpbitClient(Client):
    per_second: RateLimit
    per_minute: RateLimit
    form: Form = DEFAULT_FORM
    subscription: Subscription | None = None
    requests: int = 0
    trailing: int | None = None
    """Messages of the old subscription that may still come; None without a newer one."""
    received: int = 0
    """Frames that the client sent."""
    wants_status: bool = False
    was_refused: bool = False


class UpbitStreams(WebSocketServer[UpbitClient, UpbitMarket]):
    """Each request replaces the one before. The exchange ends a connection after an error, or when it is idle."""

    BINARY = True

    def __init__(
        self, settings: UpbitSettings, markets: Mapping[str, UpbitMarket], faults: FaultBoard, background: Background
    ) -> None:
        super().__init__(settings, markets, faults, background)
        self._rules = settings.rules
        self._rng = Random(f"{settings.seed}:streams")  # noqa: S311
        self._phases = {native: Random(f"phase:{native}").randrange(STEPS_PER_FLUSH) for native in markets}  # noqa: S311
        """Each market has its own place in the grid."""
        self._origin_limit = RateLimit(1, self._rules.origin_window)
        self._with_origin = 0
        self._errors = 0
        self._idle_cuts = 0

    def step(self, market: UpbitMarket, step: int, time_us: int) -> None:
        time_ms, native = time_us // 1000, market.instrument.native
        trades = market.step(time_ms)
        for trade in trades:
            for client in list(self._subscribers.get(("trade", native), {})):
                if self._may_still_send(client):
                    self._queue_trade(client, market, trade, "REALTIME")
        if trades:
            self._publish_statistics(market, time_ms)
        if step % STEPS_PER_FLUSH == self._phases[native] and market.flush(time_ms):
            encoded: dict[Hashable, bytes] = {}
            for client, wanted in list(self._subscribers.get(("orderbook", native), {}).items()):
                if self._may_still_send(client):
                    self._queue_book(client, market, wanted, "REALTIME", encoded)

    def _publish_statistics(self, market: UpbitMarket, time_ms: int) -> None:
        """Day figures and candles, which change with each trade."""
        for kind in ("ticker", *statistics.CANDLE_TYPES):
            for client in list(self._subscribers.get((kind, market.instrument.native), {})):
                if self._may_still_send(client):
                    self._queue_statistics(client, market, kind, "REALTIME", time_ms)

    def restart(self) -> None:
        self.drop_all()
        for market in self._markets.values():
            market.restart(time.time_ns() // 1_000_000)

    def status(self) -> dict[str, object]:
        ends = {"errors": self._errors, "idle_cuts": self._idle_cuts}
        return {**super().status(), "connects_with_origin": self._with_origin, **ends}

    def _describe(self, client: UpbitClient) -> dict[str, object]:
        return {"requests": client.requests, "streams": len(client.streams)}

    def _handshake_error(self, target: str, headers: Mapping[str, str]) -> HTTPStatus | None:
        if "Origin" in headers:
            self._with_origin += 1
            if self._origin_limit.exceeded():
                return HTTPStatus.TOO_MANY_REQUESTS
        return None if target.partition("?")[0] == PATH else HTTPStatus.NOT_FOUND

    def _headers(self) -> Mapping[str, str]:
        remaining = f"group=websocket; min=300; sec={self._connecting.left}"
        return {"remaining-req": remaining, "limit-by-ip": "Yes"}

    def _accept(self, number: int, connection: ClientConnection, target: str) -> UpbitClient:
        rules = self._rules
        client = UpbitClient(
            number,
            connection,
            per_second=RateLimit(rules.messages, rules.message_window),
            per_minute=RateLimit(rules.more_messages, rules.more_message_window),
        )

        def count_frame() -> None:
            client.received += 1

        connection.on_frame = count_frame
        client.running = [asyncio.create_task(self._cut_when_idle(client))]
        return client

    def _receive(self, client: UpbitClient, message: str | bytes) -> None:
        try:
            self._act(client, message)
        except RequestError as error:
            self._refuse(client, error)

    def _act(self, client: UpbitClient, message: str | bytes) -> None:
        # Both limits count every message.
        if client.per_second.exceeded() | client.per_minute.exceeded():
            raise RequestError("TOO_MANY_REQUESTS", "요청 수 제한을 초과했습니다.")
        if message == "PING":
            if not client.wants_status:
                client.wants_status = True
                client.running.append(asyncio.create_task(self._send_status(client)))
            return
        if self._faults.match("subscribe_ignored", connection=client.number):
            return
        if fault := self._faults.match("ack_error", connection=client.number):
            raise RequestError(str(fault.value or "WRONG_FORMAT"), "Format 이 맞지 않습니다.")
        request = messages.parse_request(message)
        if isinstance(request, Listing):
            client.form = request.form
            self._send(client, messages.listing_text(request, client.subscription))
        else:
            self._replace(client, request)

    def _refuse(self, client: UpbitClient, error: RequestError) -> None:
        """Send an error and close; later errors are not sent."""
        if client.was_refused:
            return
        client.was_refused = True
        self._errors += 1
        self._send(client, messages.error_text(error.name, error.message))
        self._background.call_later(self._rules.close_delay, lambda: self._close(client, NORMAL))

    async def _send_status(self, client: UpbitClient) -> None:
        interval = self._rules.status_interval
        await asyncio.sleep(Random(client.number).uniform(0, interval * _LATEST_STATUS))  # noqa: S311
        while True:
            self._send(client, '{"status":"UP"}')
            await asyncio.sleep(interval)

    async def _cut_when_idle(self, client: UpbitClient) -> None:
        """Abort the connection, without a closing frame, once it has been silent for too long."""
        loop, rules = asyncio.get_running_loop(), self._rules
        known, since = (0, 0), loop.time()
        while True:
            await asyncio.sleep(rules.idle / _IDLE_CHECKS)
            now = client.received, 0 if rules.idle_by_client else client.connection.sent
            if now != known:
                known, since = now, loop.time()
            elif loop.time() - since >= rules.idle:
                self._idle_cuts += 1
                client.connection.transport.abort()
                return

    def _replace(self, client: UpbitClient, subscription: Subscription) -> None:
        """Subscribe to this instead of what the client has. First frames come later, in two bursts."""
        client.subscription, client.form = subscription, subscription.form
        client.requests += 1
        client.trailing = self._rng.randint(0, _MOST_TRAILING)
        if not client.trailing:
            self._leave_all(client)
        wanted = list(self._available(subscription.parts).items())
        half = len(wanted) // 2
        delays = sorted(self._rng.uniform(*self._rules.first_frames) for _ in range(2))
        for delay, burst in zip(delays, (wanted[:half], wanted[half:]), strict=True):
            self._background.call_later(delay, partial(self._start, client.requests, client, burst))

    def _available(self, parts: Iterable[messages.TypeRequest]) -> dict[Key, _Wanted]:
        """The markets and levels that exist; the exchange does not answer the rest."""
        found: dict[Key, _Wanted] = {}
        for part in parts:
            for native, units in map(messages.split_code, part.codes):
                market = self._markets.get(native)
                factor = None if market is None else messages.grouping_factor(market.instrument, part.level)
                if factor is not None:
                    found[part.kind, native] = _Wanted(units, factor, part.snapshot, part.realtime)
        return found

    def _start(self, request: int, client: UpbitClient, burst: list[tuple[Key, _Wanted]]) -> None:
        if request != client.requests or client.number not in self._clients:
            return  # another request came, or the connection is gone
        if client.trailing is not None:
            self._leave_all(client)
            client.trailing = None
        for key, wanted in burst:
            market = self._markets[key[1]]
            if wanted.snapshot and key[0] == "orderbook":
                self._queue_book(client, market, wanted, "SNAPSHOT", {})
            elif wanted.snapshot and key[0] == "trade" and market.last_trade is not None:
                self._queue_trade(client, market, market.last_trade, "SNAPSHOT")
            elif wanted.snapshot and key[0] not in ("orderbook", "trade"):
                self._queue_statistics(client, market, key[0], "SNAPSHOT", time.time_ns() // 1_000_000)
            if wanted.realtime:
                self._join(client, key, wanted)
        client.connection.send_queued()

    def _may_still_send(self, client: UpbitClient) -> bool:
        """Whether the client still gets messages of its subscription; counts one if a newer request waits."""
        if client.trailing is None:
            return True
        if not client.trailing:
            self._leave_all(client)
            return False
        client.trailing -= 1
        return True

    def _queue_book(
        self,
        client: UpbitClient,
        market: UpbitMarket,
        wanted: _Wanted,
        stream_type: str,
        encoded: dict[Hashable, bytes],
    ) -> None:
        form = client.form, wanted.units, wanted.factor
        write = partial(messages.book_frame, market, *form, stream_type)
        self._queue(client, market.feed, "depth", write, form, encoded)

    def _queue_trade(self, client: UpbitClient, market: UpbitMarket, trade: UpbitTrade, stream_type: str) -> None:
        write = partial(messages.trade_frame, market, client.form, trade, stream_type)
        self._queue(client, market.feed, "trade", write)

    def _queue_statistics(
        self, client: UpbitClient, market: UpbitMarket, kind: str, stream_type: str, time_ms: int
    ) -> None:
        short, listed = client.form
        write = partial(statistics.message, market, kind, stream_type, time_ms, short=short, listed=listed)
        self._queue(client, market.feed, kind, write)


class UpbitSimulator(ExchangeSimulator[UpbitSettings, UpbitMarket]):
    """`async with UpbitSimulator(symbols=("KRW-BTC",), seed=1) as exchange:` — options as in UpbitSettings."""

    EXCHANGE = "upbit"
    SETTINGS = UpbitSettings
    STREAMS = UpbitStreams
    REST = UpbitRest
    FRAME_FAULTS = UPBIT_FRAME_FAULTS
    # Requests are not acknowledged, a shutdown is not announced; books of REST are those of the stream.
    IMPOSSIBLE_FAULTS = frozenset({"ack_lost", "ack_delayed", "server_shutdown", "stale_snapshot", "empty_snapshot"})

    def _create_market(self, instrument: SimulatedInstrument) -> UpbitMarket:
        rate = 0.0 if instrument.native in self.settings.quiet else None
        instrument = on_won_grid(instrument, self.settings.levels)
        feed = create_feed(instrument, self.settings, DEPTH, rate=rate)
        return UpbitMarket(feed, time.time_ns() // 1_000_000, self.settings.truth_flushes)


SIMULATOR = UpbitSimulator
