"""Order books straight from an exchange, without Redis, by the feeder's own code."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, Self

from bookbus.consumers.background_loop import LoopThread, boottime
from bookbus.consumers.change_feed import OnSnapshot
from bookbus.consumers.latest_book import LocalBook
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.reading import FORKED, MAX_AGE, ConnectionStatus, Counts, Observation
from bookbus.consumers.shared_state import Flag, ReentrantLock
from bookbus.feeders.books.events import Topic
from bookbus.feeders.errors import GaveUpError, WebSocketConnectionError
from bookbus.feeders.exchange_feed import ConnectionSettings, ExchangeFeed
from bookbus.feeders.markets import cached_instruments, default_cache_directory
from bookbus.feeders.reconnect import ReconnectingConnection, ReconnectPolicy
from bookbus.feeders.stall_detector import StallDetector
from bookbus.feeders.trading import TRADING_INTERVAL, TradingWatch
from bookbus.feeders.venue import FeedOptions, venue_of
from bookbus.schemas.instruments import (
    Instrument,
    InstrumentRegistry,
    SymbolError,
    TradingStatus,
    UncertainSymbolError,
    exchange_of,
)
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)

_TICK = 0.25
_PAUSE = 0.1
"""Seconds between two calls of a `receive_loop` that returns."""


class WebSocketAdapter(Protocol):
    """A connection that a caller passes in; the provider sets its `callback`."""

    callback: OnSnapshot

    async def connect(self) -> None:
        """Open the connection. Raises what the exchange adapters raise when that fails."""

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Ask for these native symbols."""

    async def receive_loop(self) -> None:
        """Receive until the connection is lost, which raises; a loop that returns is called again."""


class DirectProvider(MarketDataProvider):
    """The books of one exchange; subclasses set `exchange_id`."""

    exchange_id: ClassVar[str]

    def __init__(
        self,
        symbols: str | Iterable[str],
        ws_adapter: WebSocketAdapter | None = None,
        heartbeat_interval: float = 30.0,
        timeout: float = 10.0,
        max_reconnect_attempts: int = 5,
        reconnect_backoff: float = 2.0,
        *,
        reconnect_delay: float = 1.0,
        ws_url: str | None = None,
        rest_url: str | None = None,
        options: FeedOptions | None = None,
        max_age: float = MAX_AGE,
        trading_interval: float = TRADING_INTERVAL,
    ) -> None:
        """A lost connection is opened again after `reconnect_delay` seconds, after each failure in a row
        `reconnect_backoff` times as long, at most 30; after `max_reconnect_attempts` failures the provider is down.
        `ws_adapter` replaces the exchange's own connection. Raises SymbolError for what can be no symbol, and for a
        symbol like `BTCPLN` whose quote asset is not known: write `BTC-PLN`. The exchange is asked every
        `trading_interval` seconds which of the markets trade, 0 for never.
        """
        super().__init__(max_age)
        registry = InstrumentRegistry(exchange_of(self.exchange_id), offline=True)
        names = symbols.split(",") if isinstance(symbols, str) else symbols
        self._natives: dict[str, str] = {}
        for name in names:
            instrument = self._named(registry, name, rest_url)
            # The names that were given are those of the books, whatever the spelling of the exchange's symbol suggests.
            for reason in registry.learn([instrument]).values():
                raise SymbolError(reason)
            self._natives[instrument.symbol] = instrument.native
        self._instrument = lru_cache(10_000)(registry.resolve)
        if not self._natives:
            raise ValueError("no symbols asked for")
        self._books = {symbol: LocalBook() for symbol in self._natives}
        policy = ReconnectPolicy(reconnect_delay, reconnect_backoff, max_attempts=max_reconnect_attempts)
        self._settings = ConnectionSettings(heartbeat_interval, timeout, policy)
        self._trading: dict[str, TradingStatus] = {}
        # Of a stream from elsewhere, the exchange itself knows nothing.
        self._trading_interval = trading_interval if rest_url is not None or ws_url is None else 0.0
        self._make_source: Callable[[], BookSource]
        if ws_adapter is None:
            venue = venue_of(self.exchange_id)
            self._make_source = lambda: ExchangeFeed(
                venue,
                tuple(self._natives.values()),
                self._receive,
                options=options or FeedOptions(venue.modes[0]),
                settings=self._settings,
                registry=registry,
                ws_url=ws_url,
                rest_url=rest_url,
                on_stall=self._lose_all,
            )
        else:
            # Replaces the callback that it was made with.
            ws_adapter.callback = self._on_snapshot
            self._make_source = lambda: self._source_of(ws_adapter)
        self._lock = ReentrantLock()
        self._stops = 0
        self._session: BookSession | None = None
        self._stopped = False
        self._awaited: set[str] = set()
        self._live_books = 0

    @property
    def symbols(self) -> Sequence[str]:
        return list(self._books)

    def standard_symbol(self, name: str) -> str:
        return self._instrument(name).symbol

    def start(self) -> None:
        """Begin to receive; returns once every book is there, at the latest after `timeout` seconds.

        A provider that is down starts again.
        """
        stops = self._stops
        with self._lock.hold():
            session = self._session
            if session is None or not session.alive:
                if session is not None:
                    session.stop()  # it ended by itself; its thread may still be about to
                self._stopped, self._awaited, self._trading = False, set(self._books), {}
                source = self._make_source()
                session = self._session = BookSession(
                    f"bookbus-{self.exchange_id}", source, self._confirm, self._end, self._watch(source)
                )
                self._changes.close()
                self._changes.open()
                session.start()
        if stops == self._stops:
            session.started.wait(self._settings.timeout)
        if stops != self._stops:
            # A signal handler or another thread stopped it meanwhile, perhaps before there was a session.
            self.stop()

    def stop(self) -> None:
        """End the connection and the thread, also while connecting; the books stay readable and become stale."""
        self._stops += 1
        session, self._session, self._stopped = self._session, None, True
        if session is not None:
            session.stop()
        self._changes.close()

    def get_connection_status(self) -> ConnectionStatus:
        """How the provider is connected, and the status of every symbol. Down: not running, with the reason."""
        session, error = self._session, self._error()
        alive = session is not None and session.alive
        return ConnectionStatus(
            is_running=alive,
            connected=alive and not error,
            thread_alive=session is not None and session.thread_alive,
            reconnect_count=session.reconnect_count if session is not None else 0,
            error=error,
            symbols=self._statuses(),
        )

    def _observe(self, symbol: str) -> Observation:
        book, session, error = self._books.get(symbol), self._session, self._error()
        if book is None:
            return Observation(error=f"{symbol} is not among the symbols this provider follows")
        alive, gone = (session.alive, session.forked) if session is not None else (None, False)
        return book.observe(boottime(), alive, error, self._trading.get(symbol, "unknown"), gone=gone)

    def _counts(self, symbol: str) -> Counts:
        book = self._books.get(symbol)
        return Counts() if book is None else book.counts()

    def _error(self) -> str:
        session = self._session
        if session is None:
            return "stopped" if self._stopped else "not started"
        return FORKED if session.forked else session.error

    def _source_of(self, adapter: WebSocketAdapter) -> "BookSource":
        # It is not known which books it delivers, and when: `start` waits for the subscription only.
        return _AdapterSource(
            adapter,
            list(self._natives.values()),
            lambda: self._live_books,
            self._set_started,
            self._lose_all,
            self._settings.policy,
        )

    def _named(self, registry: InstrumentRegistry, name: str, rest_url: str | None) -> Instrument:
        try:
            return registry.resolve(name)
        except UncertainSymbolError:
            listed = InstrumentRegistry(registry.exchange, known_instruments(self.exchange_id, rest_url))
            if not len(listed):
                raise
            return listed.resolve(name)

    def _watch(self, source: "BookSource") -> TradingWatch | None:
        if not self._trading_interval or not isinstance(source, ExchangeFeed):
            return None
        return TradingWatch(source, self._trading_interval, self._set_trading)

    def _set_trading(self, native: str, status: TradingStatus) -> None:
        for symbol, known in self._natives.items():
            if known == native:
                self._trading[symbol] = status
                self._changes.publish(symbol, 0)

    def _receive(self, snapshot: OrderBookSnapshot, topic: Topic) -> None:
        if topic == "book":
            self._on_snapshot(snapshot)

    def _on_snapshot(self, snapshot: OrderBookSnapshot) -> None:
        """Called by an adapter with every new book, and with the last one, marked `suspect`, when it is lost."""
        book = self._books.get(snapshot.symbol)
        if book is None or self._stopped:
            return  # after `stop()` the connection ends, which does not change the book
        self._live_books += snapshot.state == "live"
        book.take(snapshot, boottime())
        self._changes.publish(snapshot.symbol)
        if self._awaited:
            self._awaited.discard(snapshot.symbol)
            if not self._awaited:
                self._set_started()

    def _set_started(self) -> None:
        session = self._session
        if session is not None:
            session.started.set()

    def _lose_all(self) -> None:
        """Mark every book as suspect: it may differ from the exchange's."""
        if self._stopped:
            return
        now = boottime()
        for symbol, book in self._books.items():
            if book.lose(now):
                self._changes.publish(symbol)

    def _confirm(self, source: "BookSource") -> None:
        """An unchanged book is confirmed by each frame or pong of its connection."""
        # Sockets are timed by a clock that stops while the machine is suspended, ages by one that does not.
        offset = boottime() - time.monotonic()
        for symbol, native in self._natives.items():
            if at := source.last_sign_of_life(native):
                self._books[symbol].confirm(at + offset)

    def _end(self, reason: str) -> None:
        logger.error("%s is down: %s", self.exchange_id, reason)
        self._lose_all()
        self._changes.close()


class BinanceL2WebSocketProvider(DirectProvider):
    """Binance spot, exact books by snapshot and updates."""

    exchange_id = "binance"


class UpbitL2WebSocketProvider(DirectProvider):
    """Upbit Korea."""

    exchange_id = "upbit"


DIRECT_PROVIDERS: Mapping[str, type[DirectProvider]] = MappingProxyType(
    {provider.exchange_id: provider for provider in (BinanceL2WebSocketProvider, UpbitL2WebSocketProvider)}
)


def known_instruments(exchange: str, rest_url: str | None = None) -> list[Instrument]:
    """The exchange's list if a feeder on this machine got it within the last day; else none."""
    venue = venue_of(exchange)
    return cached_instruments(venue, rest_url or venue.rest_url, default_cache_directory())


class BookSource(Protocol):
    """The connections that a session runs: the exchange's own, or one that the caller passed in."""

    stall: StallDetector

    @property
    def connections(self) -> Sequence[ReconnectingConnection[Any]]:
        """All of them."""

    @property
    def error(self) -> str:
        """Why books cannot come now; empty if they can."""

    async def run(self) -> None:
        """Until cancelled. Raises GaveUpError when the attempts to connect are used up."""

    def last_sign_of_life(self, native: str) -> float:
        """Monotonic time of the last frame or pong of the symbol's connection; 0.0 if that is unknown."""


class BookSession:
    """Runs a source in a thread from `start()`, called once, until `stop()` or until it ends by itself."""

    def __init__(
        self,
        name: str,
        source: BookSource,
        on_tick: Callable[[BookSource], None],
        on_end: Callable[[str], None],
        trading: TradingWatch | None = None,
    ) -> None:
        """`on_tick` is called a few times a second; `on_end` gets the reason why the source ended by itself."""
        self.started = Flag()
        """Set when every book was received, or the session has ended."""
        self._source = source
        self._on_tick = on_tick
        self._on_end = on_end
        self._trading = trading
        self._stopping = False
        self._ended = ""
        self._thread = LoopThread(name, self._run())

    @property
    def alive(self) -> bool:
        return not self._ended and self._thread.alive

    @property
    def thread_alive(self) -> bool:
        return self._thread.alive

    @property
    def forked(self) -> bool:
        return self._thread.forked

    @property
    def reconnect_count(self) -> int:
        """How often a connection was lost, or could not be opened, and was tried again."""
        return sum(connection.reconnects for connection in self._source.connections)

    @property
    def error(self) -> str:
        """Why it ended, or why books cannot come now; empty otherwise."""
        return self._ended or self._source.error

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._thread.stop()
        self.started.set()

    async def _run(self) -> None:
        reason = "it ended by a bug, see the log"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tick())
                if self._trading is not None:
                    tasks.create_task(self._watch_trading(self._trading))
                await self._source.run()
        except* GaveUpError as errors:
            reason = str(_first(errors))
        finally:
            if not self._stopping:
                self._on_end(reason)
                # Last: once this is set, the provider may be started again.
                self._ended = reason
            self.started.set()

    async def _watch_trading(self, watch: TradingWatch) -> None:
        try:
            await watch.run()
        except Exception:
            logger.exception("the watch of trading statuses ended by a bug, books go on")

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._source.stall.beat()
            self._on_tick(self._source)


class _AdapterSource:
    """The connection of an adapter that the caller passed in: the only line of a source, reconnected like any other."""

    def __init__(
        self,
        adapter: WebSocketAdapter,
        natives: Sequence[str],
        books_received: Callable[[], int],
        on_subscribed: Callable[[], None],
        on_lost: Callable[[], None],
        policy: ReconnectPolicy,
    ) -> None:
        self.stall = StallDetector(lambda _: on_lost())
        self.connections = (ReconnectingConnection(self, policy),)
        self.replace_wanted = asyncio.Event()
        """Never set: there is no way to make another adapter like this one."""
        self.ready = asyncio.Event()
        self.is_connected = False
        self._adapter = adapter
        self._natives = natives
        self._books_received = books_received
        self._books_before = 0
        self._on_subscribed = on_subscribed
        self._on_lost = on_lost

    @property
    def has_valid_data(self) -> bool:
        """Whether a book came by the current connection."""
        return self._books_received() > self._books_before

    @property
    def error(self) -> str:
        return "" if self.is_connected else self.connections[0].failure or "connecting"

    def last_sign_of_life(self, native: str) -> float:
        """Monotonic time of the last frame or pong; 0.0 while not connected, or if the adapter does not have it."""
        return float(getattr(self._adapter, "last_sign_of_life", 0.0)) if self.is_connected else 0.0

    async def run(self) -> None:
        await self.connections[0].run()

    async def connect(self) -> None:
        self._books_before = self._books_received()
        await _uncancelled(self._adapter.connect())
        self.is_connected = True

    async def subscribe(self) -> None:
        await _uncancelled(self._adapter.subscribe(self._natives))
        self.ready.set()
        self._on_subscribed()

    async def receive_loop(self) -> None:
        """Until the adapter raises because the connection is lost."""
        try:
            while True:
                await _uncancelled(self._adapter.receive_loop())
                await asyncio.sleep(_PAUSE)
        finally:
            self.is_connected = False
            self._on_lost()

    async def close(self) -> None:
        """The adapter closes what it opened when its loop ends."""

    def successor(self) -> Self:
        """The same one: `replace_wanted` is never set."""
        return self


async def _uncancelled(call: Awaitable[None]) -> None:
    """A cancellation that comes from the adapter itself is the loss of its connection."""
    try:
        await call
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise WebSocketConnectionError("the adapter raised CancelledError") from None


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
