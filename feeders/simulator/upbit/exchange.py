"""A local Upbit: WebSocket and REST on loopback, faults and the truth beside them."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from random import Random
from typing import Any, NamedTuple, get_args

import msgspec
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request

from bookbus.feeders.simulator.core.connection import VenueConnection, encode_frame
from bookbus.feeders.simulator.core.exchange import VenueSimulator
from bookbus.feeders.simulator.core.faults import ControlFaultKind, Fault, FaultBoard, FaultError
from bookbus.feeders.simulator.core.feed import FLUSHES_PER_SECOND, STEPS_PER_FLUSH, LiveFeed
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse
from bookbus.feeders.simulator.core.market import Fill, SimulatedInstrument, instruments
from bookbus.feeders.simulator.core.websocket_server import Background, RateLimit, VenueClients
from bookbus.feeders.simulator.upbit import messages as texts
from bookbus.feeders.simulator.upbit.faults import UPBIT_FRAME_FAULTS
from bookbus.feeders.simulator.upbit.feed import DEPTH, LiveSource, PreparedSource, UpbitFeed
from bookbus.feeders.simulator.upbit.messages import (
    DEFAULT_FORM,
    Form,
    Kind,
    Listing,
    Refusal,
    Subscription,
    TypeRequest,
    error_text,
    parse_request,
    split_code,
)
from bookbus.feeders.simulator.upbit.rest import UpbitRest
from bookbus.feeders.simulator.upbit.settings import UpbitRules, UpbitSettings, upbit_settings
from bookbus.schemas.instruments import EXCHANGES

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
        rng: Random,
    ) -> None:
        """First frames come between `delays` seconds after a request, in two bursts."""
        self._feeds = feeds
        self._faults = faults
        self._call_later = call_later
        self._delays = delays
        self._rng = rng
        self._subscribers: dict[Key, dict[Subscriber, _Wanted]] = {}

    def replace(self, subscriber: Subscriber, subscription: Subscription) -> None:
        """The subscriber asked for this instead of what it has."""
        subscriber.subscription, subscriber.form = subscription, subscription.form
        subscriber.requests += 1
        subscriber.trailing = self._rng.randint(0, _MOST_TRAILING)
        if not subscriber.trailing:
            self._leave(subscriber)
        wanted = list(self._wanted(subscription.wishes).items())
        half = len(wanted) // 2
        first, second = sorted(self._rng.uniform(*self._delays) for _ in range(2))
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

    def _wanted(self, wishes: Iterable[TypeRequest]) -> dict[Key, _Wanted]:
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


_NORMAL = 1000
_LOOKS = 50
"""How often a connection is looked at within the time that it may idle."""
_LATEST_STATUS = 0.75
"""The first word that the connection is up comes within this share of the interval."""


class UpbitConversation:
    """From the handshake until the connection ends."""

    def __init__(
        self,
        subscriber: Subscriber,
        rules: UpbitRules,
        streams: UpbitStreams,
        faults: FaultBoard,
        background: Background,
    ) -> None:
        self.subscriber = subscriber
        self.was_refused = False
        self.was_cut = False
        self._connection: VenueConnection = subscriber.connection
        self._rules = rules
        self._streams = streams
        self._faults = faults
        self._background = background
        self._per_second = RateLimit(rules.messages, rules.message_window)
        self._per_minute = RateLimit(rules.more_messages, rules.more_message_window)
        self._heard = 0

    async def run(self) -> None:
        """Until the connection is closed by either side."""
        self._connection.on_frame = self._hear
        tasks = [asyncio.create_task(self._cut_when_idle())]
        try:
            async for message in self._connection:
                # Both count every message.
                if self._per_second.exceeded() | self._per_minute.exceeded():
                    self._refuse(Refusal("TOO_MANY_REQUESTS", "요청 수 제한을 초과했습니다."))
                elif message != "PING":
                    self._receive(message)
                elif len(tasks) == 1:
                    tasks.append(asyncio.create_task(self._tell_that_it_is_up()))
        except ConnectionClosed:
            pass
        finally:
            for task in tasks:
                task.cancel()
            self._streams.forget(self.subscriber)

    def _hear(self) -> None:
        self._heard += 1

    def _receive(self, message: str | bytes) -> None:
        number = self.subscriber.number
        if self._faults.match("subscribe_ignored", connection=number):
            return
        if fault := self._faults.match("ack_error", connection=number):
            self._refuse(Refusal(str(fault.value or "WRONG_FORMAT"), "Format 이 맞지 않습니다."))
            return
        match parse_request(message):
            case Refusal() as refusal:
                self._refuse(refusal)
            case Listing() as listing:
                self.subscriber.form = listing.form
                self._send(_listing(listing, self.subscriber.subscription))
            case Subscription() as subscription:
                self._streams.replace(self.subscriber, subscription)

    def _refuse(self, refusal: Refusal) -> None:
        """An error is the last that a client hears."""
        if self.was_refused:
            return
        self.was_refused = True
        self._send(error_text(*refusal))
        self._background.call_later(
            self._rules.close_delay, lambda: self._background.start(self._connection.close(_NORMAL))
        )

    def _send(self, text: str) -> None:
        self._connection.queue(encode_frame(text.encode(), binary=True))
        self._connection.send_queued()

    async def _tell_that_it_is_up(self) -> None:
        interval = self._rules.status_interval
        rng = Random(self.subscriber.number)  # noqa: S311
        await asyncio.sleep(rng.uniform(0, interval * _LATEST_STATUS))
        while True:
            self._send('{"status":"UP"}')
            await asyncio.sleep(interval)

    async def _cut_when_idle(self) -> None:
        """Without a closing frame."""
        connection, loop = self._connection, asyncio.get_running_loop()
        known, since = (0, 0), loop.time()
        while True:
            await asyncio.sleep(self._rules.idle / _LOOKS)
            now = self._heard, 0 if self._rules.idle_by_client else connection.sent
            if now != known:
                known, since = now, loop.time()
            elif loop.time() - since >= self._rules.idle:
                self.was_cut = True
                connection.transport.abort()
                return


def _listing(listing: Listing, subscription: Subscription | None) -> str:
    """What a connection is subscribed to."""
    long_names = ("method", "result", "type", "codes", "level", "ticket")
    short_names = ("mthd", "rslt", "ty", "cds", "lv", "tckt")
    method, result, type_, codes, level, ticket = short_names if listing.form.short else long_names
    found = [
        {type_: wish.kind, codes: wish.codes} | ({level: wish.level} if wish.kind == "orderbook" else {})
        for wish in (subscription.wishes if subscription else ())
    ]
    return msgspec.json.encode({method: "LIST_SUBSCRIPTIONS", result: found, ticket: listing.ticket}).decode()


PATH = "/websocket/v1"


class UpbitClients(VenueClients[Subscriber]):
    """A handshake may be one too many for a page; a connection ends by an error or for idling."""

    def __init__(
        self, settings: UpbitSettings, streams: UpbitStreams, faults: FaultBoard, background: Background
    ) -> None:
        self._rules = rules = settings.rules
        connecting = RateLimit(rules.connects, rules.connect_window)
        super().__init__((settings.host, settings.port), connecting, faults, background)
        self._streams = streams
        self._from_pages = RateLimit(1, rules.origin_window)
        self._with_origin = 0
        self._errors = 0
        self._idle_cuts = 0

    def status(self) -> dict[str, object]:
        """Connections, and how they ended."""
        ends = {"errors": self._errors, "idle_cuts": self._idle_cuts}
        return {**super().status(), "connects_with_origin": self._with_origin, **ends}

    def _describe(self, client: Subscriber) -> dict[str, object]:
        return {"requests": client.requests, "streams": len(client.active)}

    def _refusal(self, request: Request) -> HTTPStatus | None:
        if "Origin" in request.headers:
            self._with_origin += 1
            if self._from_pages.exceeded():
                return HTTPStatus.TOO_MANY_REQUESTS
        return None if request.path.partition("?")[0] == PATH else HTTPStatus.NOT_FOUND

    def _headers(self) -> Mapping[str, str]:
        remaining = f"group=websocket; min=300; sec={self._connecting.left}"
        return {"remaining-req": remaining, "limit-by-ip": "Yes"}

    def _welcome(self, number: int, connection: VenueConnection) -> Subscriber:
        return Subscriber(number, connection)

    async def _converse(self, client: Subscriber) -> None:
        conversation = UpbitConversation(client, self._rules, self._streams, self._faults, self._background)
        try:
            await conversation.run()
        finally:
            self._errors += conversation.was_refused
            self._idle_cuts += conversation.was_cut


_AT_A_TIME = 32
"""Symbols between two looks at the sockets."""

# Nothing is acknowledged here, no shutdown announced, no snapshot asked for.
_UNKNOWN_FAULTS = {*get_args(ControlFaultKind), "server_shutdown", "stale_snapshot", "empty_snapshot"} - {
    "subscribe_ignored",
    "ack_error",
}


class UpbitSimulator(VenueSimulator[UpbitFeed]):
    """`async with UpbitSimulator(symbols=("KRW-BTC",), seed=1) as exchange:` — options as in UpbitSettings."""

    def __init__(
        self,
        symbols: Iterable[str] | int = ("KRW-BTC", "KRW-ETH", "BTC-ETH"),
        settings: UpbitSettings | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings = settings or upbit_settings(symbols, **options)
        faults = FaultBoard(time.monotonic, UPBIT_FRAME_FAULTS, binary=True)
        background = Background()
        feeds = {
            instrument.native: _create_feed(instrument, settings)
            for instrument in instruments(settings.symbols, EXCHANGES["upbit"])
        }
        rng = Random(f"{settings.seed}:streams")  # noqa: S311
        self._streams = UpbitStreams(feeds, faults, background.call_later, settings.rules.first_frames, rng)
        self._upbit_clients = UpbitClients(settings, self._streams, faults, background)
        self._rest = UpbitRest(feeds, settings, faults)
        self._phases = {native: Random(f"phase:{native}").randrange(STEPS_PER_FLUSH) for native in feeds}  # noqa: S311
        """Each market has its own place in the grid."""
        super().__init__((settings.host, settings.rest_port), feeds, faults, background, self._upbit_clients)

    def status(self) -> dict[str, object]:
        """Connections, counts, what has been played."""
        statuses = {str(status): count for status, count in self._rest.statuses.items()}
        return {**super().status(), **self._upbit_clients.status(), "rest_statuses": statuses}

    def inject(self, fault: Fault) -> None:
        """Play a fault now, or let it wait for what it strikes. Raises FaultError."""
        if fault.kind in _UNKNOWN_FAULTS:
            raise FaultError(f"this exchange knows no {fault.kind!r}")
        super().inject(fault)

    async def _answer_request(self, request: HttpRequest) -> HttpResponse:
        return await self._rest.answer(request)

    async def _step(self, step: int, time_us: int) -> None:
        time_ms, phase = time_us // 1000, step % STEPS_PER_FLUSH
        for position, (native, feed) in enumerate(self._feeds.items(), 1):
            for trade in feed.step(time_ms):
                self._streams.publish_trade(feed, trade)
            if self._phases[native] == phase and feed.flush(time_ms):
                self._streams.publish_book(feed)
            if position % _AT_A_TIME == 0:
                self._upbit_clients.send_queued()
                await asyncio.sleep(0)
        self._upbit_clients.send_queued()

    def _restart(self) -> None:
        self._upbit_clients.drop_all()
        for feed in self._feeds.values():
            feed.restart(_now_ms())


def _create_feed(instrument: SimulatedInstrument, settings: UpbitSettings) -> UpbitFeed:
    slots = round(settings.prepared * FLUSHES_PER_SECOND)
    live = LiveFeed(
        instrument,
        seed=settings.seed,
        rate=0.0 if instrument.native in settings.quiet else settings.rate,
        changes=settings.changes,
        levels=settings.levels,
        truth_depth=DEPTH,
        truth_flushes=max(settings.truth_flushes, slots + 1),
    )
    source = PreparedSource(live, slots) if slots else LiveSource(live)
    return UpbitFeed(source, _now_ms(), settings.truth_flushes)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


SIMULATOR, SETTINGS = UpbitSimulator, UpbitSettings
