"""Synthetic order books, for runs without an exchange. Their exchange id is `mock`."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from random import Random

from bookbus.consumers.background_loop import BackgroundThread
from bookbus.consumers.latest_book import LocalBook
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.reading import FORKED, MAX_AGE, ConnectionStatus, Counts, Observation
from bookbus.consumers.shared_state import Flag, ReentrantLock
from bookbus.schemas.instruments import Exchange, Instrument, InstrumentRegistry
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot

EXCHANGE = Exchange("mock", "USDT")
"""Not one of the known exchanges, so that no reader takes these books for real ones."""
STEP = 0.1
"""Seconds of market time per step."""


class MockMarketDataProvider(MarketDataProvider):
    """Books that change ten times a second, the same ones for the same seed.

    They change with `clock` (seconds since 1970, monotonic), not with reads: two reads within one step return the same
    book.
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
        """Raises SymbolError for an invalid symbol."""
        super().__init__(max_age)
        self._instrument = lru_cache(10_000)(InstrumentRegistry(EXCHANGE, offline=True).resolve)
        names = symbols.split(",") if isinstance(symbols, str) else symbols
        instruments = {instrument.symbol: instrument for instrument in map(self._instrument, names)}
        if not instruments:
            raise ValueError("no symbols asked for")
        self._books = {symbol: _SyntheticBook(instrument, seed, depth) for symbol, instrument in instruments.items()}
        self._clock = clock or _monotonic_wall_clock()
        self._began: float | None = None
        self._lock = ReentrantLock()
        self._thread: BackgroundThread | None = None

    @property
    def symbols(self) -> Sequence[str]:
        return list(self._books)

    def standard_symbol(self, name: str) -> str:
        """The standard name, by spelling; `BTC` is BTC-USDT."""
        return self._instrument(name).symbol

    def start(self) -> None:
        """Start; every book exists at once. After a `stop()` the market continues as if it had never been stopped."""
        with self._lock.hold():
            if self._thread is not None and self._thread.alive:
                return
            if self._began is None:
                self._began = self._clock()
            ended = Flag()
            self._changes.open()
            thread = self._thread = BackgroundThread("bookbus-mock", lambda: self._run(ended), ended.set)
            thread.start()
        self._advance_all()

    def stop(self) -> None:
        """Stop changing the books. They stay readable, and their age grows."""
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
        self._changes.close()

    def get_connection_status(self) -> ConnectionStatus:
        """`connected` is True while the provider runs."""
        thread = self._thread
        return ConnectionStatus(
            is_running=thread is not None and not thread.forked,
            connected=thread is not None and not thread.forked,
            thread_alive=thread is not None and thread.alive,
            reconnect_count=0,
            error=self._error(),
            symbols=self._statuses(),
        )

    def _observe(self, symbol: str) -> Observation:
        book = self._books.get(symbol)
        if book is None:
            return Observation(error=f"{symbol} is not among the symbols this provider follows")
        now = self._clock()
        self._advance(symbol, book, now)
        return book.newest.observe(now, None, self._error(), gone=self._forked)

    def _counts(self, symbol: str) -> Counts:
        book = self._books.get(symbol)
        return Counts() if book is None else book.newest.counts()

    @property
    def _forked(self) -> bool:
        thread = self._thread
        return thread is not None and thread.forked

    def _error(self) -> str:
        if self._forked:
            return FORKED
        if self._thread is not None:
            return ""
        return "not started" if self._began is None else "stopped"

    def _run(self, ended: Flag) -> None:
        while not ended.wait(STEP):
            self._advance_all()

    def _advance_all(self) -> None:
        for symbol, book in self._books.items():
            self._advance(symbol, book, self._clock())

    def _advance(self, symbol: str, book: "_SyntheticBook", now: float) -> None:
        """Apply the steps that are due at `now`; the background thread or a read may come first."""
        with self._lock.hold() as first:
            if not first or self._thread is None or self._began is None or self._forked:
                return  # not `first`: a signal handler interrupted the steps of some book
            steps = book.advance(self._began, now)
        if steps:
            self._changes.publish(symbol, steps)


class _SyntheticBook:
    """One market and its newest book."""

    def __init__(self, instrument: Instrument, seed: int, depth: int) -> None:
        self.newest = LocalBook()
        self._instrument = instrument
        self._depth = depth
        self._market = SyntheticMarket(instrument.base, instrument.quote, seed, depth)
        self._update_id = 0

    def advance(self, began: float, now: float) -> int:
        """Apply the steps until `now`. Returns their number."""
        # Update 1 is the first book. The margin absorbs the rounding error of a clock at exactly a step.
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


# Fitted to recordings of two busy markets: ten updates a second, best 20 levels.
_MOVES = 0.13
"""Share of steps in which the best prices change."""
_MOVE_BPS = 0.7
_SAME_DIRECTION = 0.6
_WIDE = 0.05
"""Share of moves that leave more than one tick between bid and ask."""
_CLOSES = 0.8
_BEST_CHANGES = 0.7
_DEEPER_CHANGES = 2
_GAP_BPS = 0.06
_NEXT_TICK = 0.3
"""Share of levels that have a neighbour one tick away."""
_BEST_SHAPE = 1.2
_DUST = 0.35
"""Share of deeper levels with a negligible quantity."""
_DOLLARS = {"BTC": 60_000.0, "ETH": 2_600.0, "KRW": 0.0007, "USDT": 1.0, "USDC": 1.0, "FDUSD": 1.0, "USD": 1.0}
_VALUE_AT_BEST = {"BTC": 120_000.0, "ETH": 30_000.0}
"""Value in dollars at the best price; 10,000 for other assets."""
_MAX_DRIFT = 1.25
"""The price moves back towards its first value once it is this many times that value, or that fraction of it."""
_Side = list[tuple[int, float]]


class SyntheticMarket:
    """The order book of one market; `step()` advances it by STEP seconds. The seed determines every book."""

    def __init__(self, base: str, quote: str, seed: int, depth: int) -> None:
        self._random = Random(f"{seed} {base}-{quote}")  # noqa: S311
        dollars = _DOLLARS.get(base) or 10 ** self._random.uniform(-1, 2)
        price = dollars / _DOLLARS.get(quote, 1.0)
        size = _VALUE_AT_BEST.get(base, 10_000.0) / dollars
        self._price_digits = 5 - math.floor(math.log10(price))
        self._size_digits = max(5 - math.floor(math.log10(size)), 0)
        self._first = round(price * 10**self._price_digits)
        self._size = size
        self._depth = depth
        self._direction = 1
        self._bids: _Side = [(self._first, self._best_size())]
        self._asks: _Side = [(self._first + 1, self._best_size())]
        self._fill()

    def step(self) -> None:
        chance = self._random.random
        if chance() < _MOVES:
            self._move()
        elif self._asks[0][0] - self._bids[0][0] > 1 and chance() < _CLOSES:
            self._asks.insert(0, (self._bids[0][0] + 1, self._best_size()))
        for side in (self._bids, self._asks):
            if chance() < _BEST_CHANGES:
                side[0] = (side[0][0], self._best_size())
            for _ in range(_DEEPER_CHANGES):
                self._change(side)
        self._fill()

    def levels(self) -> tuple[Levels, Levels]:
        return self._priced(self._bids), self._priced(self._asks)

    def _move(self) -> None:
        """A market order takes all levels up to a price; new orders follow on the other side."""
        chance, best = self._random.random, self._bids[0][0]
        if chance() >= _SAME_DIRECTION:
            self._direction = -self._direction
        if not self._first / _MAX_DRIFT < best < self._first * _MAX_DRIFT:
            self._direction = 1 if best < self._first else -1
        way = self._direction
        ticks = max(round(self._random.expovariate(1 / _MOVE_BPS) * best / 1e4), 1)
        spread = 1 + (self._gap(best) if chance() < _WIDE else 0)
        followed, taken = (self._bids, self._asks) if way > 0 else (self._asks, self._bids)
        old = followed[0][0]
        price = old + way * ticks
        opposite = price + way * spread
        while taken and (opposite - taken[0][0]) * way > 0:
            del taken[0]
        if not taken or taken[0][0] != opposite:
            taken.insert(0, (opposite, self._best_size()))
        ahead: _Side = []
        while (price - old) * way > 0 and len(ahead) < self._depth:
            ahead.append((price, self._deeper_size() if ahead else self._best_size()))
            price -= way * self._gap(best)
        followed[:0] = ahead

    def _change(self, side: _Side) -> None:
        """Insert, remove or change one level behind the best price."""
        if len(side) < 2:
            return
        index = self._random.randrange(1, len(side))
        before, (ticks, _) = side[index - 1][0], side[index]
        match self._random.randrange(3):
            case 0:
                del side[index]
            case 1 if abs(ticks - before) > 1:
                nearer, farther = sorted((before, ticks))
                side.insert(index, (self._random.randrange(nearer + 1, farther), self._deeper_size()))
            case _:
                side[index] = (ticks, self._deeper_size())

    def _fill(self) -> None:
        for side, way in ((self._bids, -1), (self._asks, 1)):
            while len(side) < self._depth:
                ticks = side[-1][0]
                side.append((ticks + way * self._gap(ticks), self._deeper_size()))
            del side[self._depth :]

    def _gap(self, ticks: int) -> int:
        if self._random.random() < _NEXT_TICK:
            return 1
        return 1 + int(self._random.expovariate(1e4 / (_GAP_BPS * ticks)))

    def _best_size(self) -> float:
        return self._rounded(self._random.gammavariate(_BEST_SHAPE, self._size / _BEST_SHAPE))

    def _deeper_size(self) -> float:
        if self._random.random() < _DUST:
            return self._rounded(self._size * 2e-4 * self._random.lognormvariate(0, 1))
        return self._rounded(self._size * 0.06 * self._random.lognormvariate(0, 1))

    def _rounded(self, size: float) -> float:
        return round(max(size, 10.0**-self._size_digits), self._size_digits)

    def _priced(self, side: _Side) -> Levels:
        digits = self._price_digits
        if digits < 0:
            return tuple((float(ticks * 10**-digits), size) for ticks, size in side)
        return tuple((round(ticks / 10**digits, digits), size) for ticks, size in side)


def _monotonic_wall_clock() -> Callable[[], float]:
    """Seconds since 1970 that advance monotonically, also when the system clock is set."""
    offset = time.time() - time.monotonic()
    return lambda: offset + time.monotonic()
