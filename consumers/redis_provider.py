"""Order books from the bus."""

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Literal

from msgspec.structs import replace

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.bus.books import CONFIRMATION_WAIT, BusTable
from bookbus.consumers.bus.cluster_reader import ClusterReader
from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.bus.poller import BusPoller
from bookbus.consumers.bus.reader import BusReader
from bookbus.consumers.bus.servers import ServerLocator
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.bus.trades import BusTradeTail
from bookbus.consumers.change_feed import OnSnapshot, OnStatus
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.reading import FORKED, MAX_AGE, ConnectionStatus, Counts, Observation, Update
from bookbus.consumers.shared_state import ReentrantLock
from bookbus.schemas.instruments import exchange_of
from bookbus.schemas.redis_names import DEFAULT_PREFIX, RedisNames
from bookbus.schemas.redis_url import DEFAULT_URL

Mode = Literal["push", "pull"]

ALL = "*"
START_LIMIT = 5.0
_WAIT_INTERVAL = 0.01


class RedisMarketDataProvider(MarketDataProvider):
    """The books of one exchange that feeders publish on Redis.

    `mode="push"` follows the channels in a thread, so that reading needs no I/O; it reconnects by itself.
    `mode="pull"` asks the server on each call, which needs no thread and costs a round trip; it has no updates to wait
    for. A book is live only once this provider saw a confirmation of it, which takes up to 2.5 s for a quiet book:
    `start()` waits for that, and in pull mode the first read of any other symbol. `symbols="*"` means every book of the
    exchange, also later ones.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        exchange: str = "binance",
        symbols: str | Iterable[str] = ALL,
        mode: Mode = "push",
        prefix: str = DEFAULT_PREFIX,
        max_age: float = MAX_AGE,
    ) -> None:
        super().__init__(max_age)
        if mode not in ("push", "pull"):
            raise ValueError(f"mode is 'push' or 'pull', not {mode!r}")
        self.blocking_reads = mode == "pull"
        self._locator = ServerLocator(url)
        self._address = self._locator.address
        if mode == "pull" and self._address.kind == "cluster":
            raise ValueError("mode='pull' asks one server; a cluster is read with mode='push'")
        self._exchange = exchange_of(exchange)
        self._names = SymbolNames(exchange)
        self._wanted = None if symbols == ALL else _wanted(symbols, self._names)
        self._table = BusTable(exchange, RedisNames(prefix, self._address.login.database))
        self._lock = ReentrantLock()
        self._stops = 0
        self._reader: BusReader | ClusterReader | None = None
        self._poller = BusPoller(self._locator, self._table, self._names, max_age) if mode == "pull" else None
        self._polling = False

    @property
    def symbols(self) -> Sequence[str]:
        """The standard symbols asked for; with `*`, all that the bus has listed so far."""
        if self._wanted is None:
            return sorted(self._names.listed)
        return list(dict.fromkeys(self._names.standard(name) for name in self._wanted))

    def start(self) -> None:
        """Return once every symbol has its book or is known to have none, and each was seen to be confirmed.

        A book that no living feeder confirms delays it for at most 2.5 s, and only if the server's clock says that the
        book is fresh. Raises BusConnectionError, which says what to do, if the server cannot be reached or read.
        """
        stops = self._stops
        if self._poller is not None:
            self._poller.start()
            self._poller.observe(self.symbols)
            self._polling = True
            if stops != self._stops:
                self.stop()
                raise BusConnectionError(f"stopped while connecting to {self._locator.masked}")
            return
        with self._lock.hold():
            reader = self._reader
            if reader is None or not reader.alive:
                reader = self._reader = self._new_reader()
                self._changes.open()
                reader.start()
        try:
            if stops != self._stops:
                # By a signal handler or another thread, perhaps before there was a reader.
                raise BusConnectionError(f"stopped while connecting to {self._locator.masked}")
            reader.wait_ready(START_LIMIT)
        except BusConnectionError:
            self.stop()
            raise
        deadline = boottime() + CONFIRMATION_WAIT
        while reader.alive and boottime() < deadline and self._table.awaits_confirmation(self.max_age):
            time.sleep(_WAIT_INTERVAL)

    def stop(self) -> None:
        """End the thread, even while it connects; the books stay readable and become stale."""
        self._stops += 1
        reader, self._reader, self._polling = self._reader, None, False
        if reader is not None:
            reader.stop()
        if self._poller is not None:
            self._poller.stop()
        self._changes.close()

    def standard_symbol(self, name: str) -> str:
        """The standard symbol: by the books that the bus lists, else by spelling."""
        return self._names.standard(name)

    def feeders(self) -> list[str]:
        """Ids of the feeders whose heartbeats were heard lately, of every exchange."""
        return self._table.feeders.heard()

    def near_symbols(self, name: str) -> list[str]:
        return self._names.near(name)

    def get_connection_status(self) -> ConnectionStatus:
        statuses, error, reader = self._statuses(), self._error(), self._reader
        return ConnectionStatus(
            is_running=self._polling or (reader is not None and not reader.forked),
            connected=not error,
            thread_alive=reader is not None and reader.alive,
            reconnect_count=reader.reconnect_count if reader is not None else 0,
            feeder_reconnects=self._table.feeders.reconnects(self._exchange.id),
            error=error,
            symbols=statuses,
            clock_jumps=self._table.clock_jumps,
        )

    def on_snapshot(self, callback: OnSnapshot) -> None:
        """Call `callback` with the newest book of each symbol that changed; with `mode="push"` only."""
        self._need_push()
        super().on_snapshot(callback)

    def on_status(self, callback: OnStatus) -> None:
        """Call `callback` after each change of a status; with `mode="push"` only."""
        self._need_push()
        super().on_status(callback)

    def updates(self, *symbols: str) -> AsyncIterator[Update]:
        """The current books, then each newer one; with `mode="push"` only."""
        self._need_push()
        return super().updates(*symbols)

    def trades(self, symbol: str) -> BusTradeTail:
        """The trades of a symbol from now on, if a feeder publishes them: `feeders run --topics book,trades`.

        Each call makes a new tail, which the caller closes; this call and each `take()` ask the server.
        """
        standard = self.standard_symbol(symbol)
        native = self._exchange.native(*standard.split("-", 1))
        tail = BusTradeTail(self._address, self._table.names, self._exchange.id, standard, native)
        tail.start()
        return tail

    def _new_reader(self) -> BusReader | ClusterReader:
        rest = self._table, self._names, self._wanted, self._changes.publish
        if self._address.kind == "cluster":
            return ClusterReader(self._address, *rest)
        return BusReader(self._locator, *rest)

    def _observe(self, symbol: str) -> Observation:
        if self._polling:
            return self._observe_many([symbol])[0]
        error, book = self._error(), self._table.by_symbol.get(symbol)
        if book is None:
            return Observation(error=error or f"{symbol} is not among the symbols this provider follows")
        observation = self._table.observe(book, boottime(), error)
        return replace(observation, gone=True) if error is FORKED else observation

    def _observe_many(self, symbols: Sequence[str]) -> list[Observation]:
        if self._poller is None or not self._polling:
            return super()._observe_many(symbols)
        return self._poller.observe(symbols)

    def _counts(self, symbol: str) -> Counts:
        book = self._table.by_symbol.get(symbol)
        counts = Counts() if book is None else book.counts()
        if self._poller is not None and counts.missed:
            # A poller does not miss the updates between two calls: newer ones replaced them.
            received, conflated = counts.received + counts.missed, counts.conflated + counts.missed
            return replace(counts, received=received, conflated=conflated, missed=0)
        return counts

    def _error(self) -> str:
        if self._poller is not None and self._polling:
            return self._poller.error
        reader = self._reader
        if reader is None:
            return "not started"
        return FORKED if reader.forked else reader.error

    def _need_push(self) -> None:
        if self._poller is not None:
            raise RuntimeError("mode='pull' asks for one book at a time; updates come with mode='push'")


def _wanted(symbols: str | Iterable[str], names: SymbolNames) -> list[str]:
    wanted = symbols.split(",") if isinstance(symbols, str) else list(symbols)
    if not wanted:
        raise ValueError("no symbols asked for; '*' means all")
    for name in wanted:
        names.standard(name)
    return wanted
