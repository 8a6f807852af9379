"""Made-up order books, for runs without an exchange; every one of them says so by its exchange id."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from bookbus.consumers.background_loop import BackgroundThread
from bookbus.consumers.freshness import MAX_AGE
from bookbus.consumers.latest_book import LocalBook
from bookbus.consumers.local.made_up_market import STEP, MadeUpMarket
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.reading import ConnectionStatus, Counts, Observation
from bookbus.schemas.instruments import Exchange, Instrument, InstrumentRegistry
from bookbus.schemas.snapshot import OrderBookSnapshot

EXCHANGE = Exchange("mock", "USDT")
"""No venue, and not among the known ones: nothing that reads the bus can take its books for real."""


class MockMarketDataProvider(MarketDataProvider):
    """Books that move by themselves, ten times a second, and are the same for the same seed.

    They change with `clock` (seconds since 1970, never falling), not with reading: whoever reads twice within
    one tenth of a second reads the same book.
    """

    def __init__(
        self,
        symbols: str | Iterable[str] = ("BTC",),
        seed: int = 1,
        *,
        depth: int = 20,
        clock: Callable[[], float] | None = None,
        max_age: float = MAX_AGE,
    ) -> None:
        """Raises SymbolError for what can be no symbol."""
        super().__init__(max_age)
        self._instrument = lru_cache(10_000)(InstrumentRegistry(EXCHANGE, offline=True).resolve)
        names = symbols.split(",") if isinstance(symbols, str) else symbols
        instruments = {instrument.symbol: instrument for instrument in map(self._instrument, names)}
        if not instruments:
            raise ValueError("no symbols asked for")
        self._books = {symbol: _MadeUpBook(instrument, seed, depth) for symbol, instrument in instruments.items()}
        self._clock = clock or _steady_clock()
        self._began: float | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: BackgroundThread | None = None

    @property
    def symbols(self) -> Sequence[str]:
        """Standard names of the symbols asked for."""
        return list(self._books)

    def standard_symbol(self, name: str) -> str:
        """The standard name, by spelling; a bare `BTC` is BTC-USDT."""
        return self._instrument(name).symbol

    def start(self) -> None:
        """Open the market; every book is there at once. After `stop()` it goes on as if it had never stood still."""
        with self._lock:
            if self._thread is not None:
                return
            if self._began is None:
                self._began = self._clock()
            self._ended.clear()
            self._changes.open()
            self._thread = BackgroundThread("bookbus-mock", self._run, self._ended.set)
        self._advance_all()
        self._thread.start()

    def stop(self) -> None:
        """Books change no more; they stay readable and grow old."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
        self._changes.close()

    def get_connection_status(self) -> ConnectionStatus:
        """Connected to nothing, hence always while it runs."""
        thread = self._thread
        return ConnectionStatus(
            is_running=thread is not None,
            connected=thread is not None,
            thread_alive=thread is not None and thread.alive,
            reconnect_count=0,
            trouble=self._trouble(),
            symbols=self._statuses(),
        )

    def _observe(self, symbol: str) -> Observation:
        book = self._books.get(symbol)
        if book is None:
            return Observation(trouble=f"{symbol} is not among the symbols this provider follows")
        now = self._clock()
        self._advance(symbol, book, now)
        return book.newest.observe(now, None, self._trouble())

    def _counts(self, symbol: str) -> Counts:
        book = self._books.get(symbol)
        return Counts() if book is None else book.newest.counts()

    def _trouble(self) -> str:
        if self._thread is not None:
            return ""
        return "not started" if self._began is None else "stopped"

    def _run(self) -> None:
        while not self._ended.wait(STEP):
            self._advance_all()

    def _advance_all(self) -> None:
        for symbol, book in self._books.items():
            self._advance(symbol, book, self._clock())

    def _advance(self, symbol: str, book: "_MadeUpBook", now: float) -> None:
        """Let happen what has happened by `now`, whoever asks first."""
        with self._lock:
            if self._thread is None or self._began is None:
                return
            steps = book.advance(self._began, now)
        if steps:
            self._changes.publish(symbol, steps)


class _MadeUpBook:
    """One market and its newest book."""

    def __init__(self, instrument: Instrument, seed: int, depth: int) -> None:
        self.newest = LocalBook()
        self._instrument = instrument
        self._depth = depth
        self._market = MadeUpMarket(instrument.base, instrument.quote, seed, depth)
        self._update_id = 0

    def advance(self, began: float, now: float) -> int:
        """Go on to `now`. Returns the number of updates that took."""
        # The market opens with the first book; the margin keeps a clock that shows exactly a step from missing it.
        due = 1 + int((now - began) / STEP + 1e-3)
        steps = due - self._update_id
        if steps <= 0:
            return 0
        while self._update_id < due:
            if self._update_id:
                self._market.step()
            self._update_id += 1
        at = began + (due - 1) * STEP
        bids, asks = self._market.levels()
        snapshot = OrderBookSnapshot(
            exchange=self._instrument.exchange,
            symbol=self._instrument.symbol,
            native=self._instrument.native,
            state="live",
            update_id=due,
            exchange_us=None,
            received_us=round(at * 1e6),
            depth=self._depth,
            bids=bids,
            asks=asks,
        )
        self.newest.take(snapshot, at, steps)
        return steps


def _steady_clock() -> Callable[[], float]:
    """The time of day as it is now, going on evenly whatever is done to the computer's clock."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()
