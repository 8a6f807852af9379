"""The interface through which a strategy reads order books from any source."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from msgspec.structs import asdict, replace

from bookbus.consumers.change_feed import ChangeFeed, OnSnapshot, OnStatus
from bookbus.consumers.reading import (
    MAX_AGE,
    BookNotLiveError,
    ConnectionStatus,
    Counts,
    Observation,
    Reading,
    SymbolStatus,
    Update,
    judge,
)
from bookbus.consumers.tables import Columns, pandas_frame, polars_frame
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot

logger = logging.getLogger(__name__)

_WAIT_INTERVAL = 0.02

_TABLE = (
    *("symbol", "status", "reason", "age", "bid", "bid_quantity", "ask", "ask_quantity", "spread_bps"),
    *("update_id", "exchange_us", "received_us"),
)
"""The columns of `to_polars`."""


class MarketDataProvider(ABC):
    """The newest order book of each symbol. Every method may be called from any thread and any callback, and every
    read and `stop()` from a signal handler. After a fork, the provider is stopped in the child: books are stale until
    the child starts it.

    A symbol may be given as its standard name (`BTC-USDT`), the exchange's own (`BTCUSDT`) or the alias (`BTC`); other
    names raise SymbolError. Reads raise nothing else: without a book they return None, and a book that is no longer
    confirmed is returned with a status that says so.

    A new provider implements the abstract methods and calls `self._changes.open()`, `.publish(symbol)` and
    `.close()`. `blocking_reads` is True if a read waits for the network.
    """

    blocking_reads = False

    def __init__(self, max_age: float = MAX_AGE) -> None:
        if not max_age > 0:
            raise ValueError(f"max_age must be above zero, got {max_age}")
        self.max_age = max_age
        self._changes = ChangeFeed(self._judged)
        self._warned: set[str] = set()

    @property
    @abstractmethod
    def symbols(self) -> Sequence[str]:
        """Standard names of the symbols that this provider reads."""

    @abstractmethod
    def start(self) -> None:
        """Start to receive. Returns once every symbol has a book or is known to have none.

        Does nothing if it is already started.
        """

    @abstractmethod
    def stop(self) -> None:
        """Stop; the last books stay readable. Does nothing if it is not started."""

    @abstractmethod
    def standard_symbol(self, name: str) -> str:
        """The standard name of the symbol `name`. Raises SymbolError if there is none."""

    @abstractmethod
    def _observe(self, symbol: str) -> Observation:
        """The current state of a standard symbol's book."""

    @abstractmethod
    def _counts(self, symbol: str) -> Counts:
        """Counts of a standard symbol's updates."""

    @abstractmethod
    def get_connection_status(self) -> ConnectionStatus:
        """How the provider is connected, and the status of every symbol."""

    def _observe_many(self, symbols: Sequence[str]) -> list[Observation]:
        """`_observe` of each; override to read all of them with one request."""
        return [self._observe(symbol) for symbol in symbols]

    def get_latest_snapshot(self, symbol: str) -> OrderBookSnapshot | None:
        """The newest book, or None if none was received.

        A book that is not live is returned too; a warning is logged once each time it stops being live.
        """
        standard = self.standard_symbol(symbol)
        return self._checked(standard, self._observe(standard))

    def get_many(self, symbols: Iterable[str]) -> dict[str, OrderBookSnapshot | None]:
        """`get_latest_snapshot` of each symbol, by the given names."""
        names = {name: self.standard_symbol(name) for name in symbols}
        observations = self._observe_many(list(names.values()))
        return {
            name: self._checked(standard, observation)
            for (name, standard), observation in zip(names.items(), observations, strict=True)
        }

    def read(self, symbol: str, max_age: float | None = None) -> Reading:
        """The newest book and its status. `max_age` (seconds) replaces the provider's own limit."""
        reading = self._judged(self.standard_symbol(symbol), max_age)
        return replace(reading, reason=f"{symbol}: {reading.reason}") if reading.reason else reading

    def status(self, symbol: str) -> SymbolStatus:
        """Status, ages and counts of one symbol."""
        standard = self.standard_symbol(symbol)
        return self._status(standard, self._observe(standard))

    def to_polars(self) -> Any:
        """Best prices, status and age of every book now, as a `polars.DataFrame` with one row each.

        Raises ImportError, which names the extra, without polars.
        """
        return polars_frame(self._columns())

    def to_pandas(self) -> Any:
        """The same as a `pandas.DataFrame`."""
        return pandas_frame(self._columns())

    def _columns(self) -> Columns:
        symbols = list(self.symbols)
        rows = [
            self._row(symbol, observation)
            for symbol, observation in zip(symbols, self._observe_many(symbols), strict=True)
        ]
        return {name: [row[at] for row in rows] for at, name in enumerate(_TABLE)}

    def _row(self, symbol: str, observation: Observation) -> tuple[Any, ...]:
        book, (status, reason) = observation.snapshot, judge(observation, self.max_age)
        head = symbol, str(status), reason, observation.age
        if book is None:
            return (*head, *[None] * (len(_TABLE) - len(head)))
        bid = book.bids[0] if book.bids else (None, None)
        ask = book.asks[0] if book.asks else (None, None)
        return (*head, *bid, *ask, book.spread_bps(), book.update_id, book.exchange_us, book.received_us)

    def wait_until_live(self, symbols: Iterable[str] | None = None, timeout: float = 10.0) -> None:
        """Return once all these symbols (default: all of the provider) are live.

        Raises BookNotLiveError after `timeout` seconds, with the reason for each symbol that is not live.
        """
        asked = None if symbols is None else list(symbols)
        deadline = time.monotonic() + timeout
        while waiting := self._not_live(self.symbols if asked is None else asked):
            if time.monotonic() >= deadline:
                raise BookNotLiveError(f"not live within {timeout:g} s: " + "; ".join(waiting))
            time.sleep(_WAIT_INTERVAL)

    @property
    def callback_errors(self) -> int:
        """Calls of callbacks that raised."""
        return self._changes.callback_errors

    def on_snapshot(self, callback: OnSnapshot) -> None:
        """Call `callback` with the newest book of each changed symbol, from one thread of the provider.

        Whatever it raises is logged and counted in `callback_errors`. Raises TypeError for a coroutine function.
        """
        self._changes.add_callback(callback)

    def on_status(self, callback: OnStatus) -> None:
        """Call `callback` with an Update when the status or the trading status of a book is another than before, once
        for each change; the first time with the first book. Otherwise like `on_snapshot`.
        """
        self._changes.add_status_callback(callback)

    def updates(self, *symbols: str) -> AsyncIterator[Update]:
        """`async for snapshot, conflated in provider.updates("BTC")`: the current book, then each newer one.

        Also yields the same book again when its status or trading status changed, within a second and once for each
        change: `async for update in …` has them in `update.status`, `update.reason` and `update.trading`.
        Without names, of every symbol, also of those that are listed later. `conflated` is the number of earlier
        updates that the book replaced unread, because the loop was slower. Ends when the provider stops.
        """
        names = [self.standard_symbol(name) for name in symbols]
        return self._changes.updates(names or self.symbols, others=not names)

    async def astart(self) -> None:
        """`start` without blocking the event loop."""
        await asyncio.to_thread(self.start)

    async def astop(self) -> None:
        """`stop` without blocking the event loop."""
        await asyncio.to_thread(self.stop)

    async def aget_latest_snapshot(self, symbol: str) -> OrderBookSnapshot | None:
        """`get_latest_snapshot` without blocking the event loop."""
        if self.blocking_reads:
            return await asyncio.to_thread(self.get_latest_snapshot, symbol)
        return self.get_latest_snapshot(symbol)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        await self.astart()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.astop()

    def _judged(self, symbol: str, max_age: float | None = None) -> Reading:
        observation = self._observe(symbol)
        status, reason = judge(observation, self.max_age if max_age is None else max_age)
        return Reading(observation.snapshot, status, observation.age, reason, observation.trading)

    def _statuses(self) -> dict[str, SymbolStatus]:
        symbols = list(self.symbols)
        return {
            symbol: self._status(symbol, observation)
            for symbol, observation in zip(symbols, self._observe_many(symbols), strict=True)
        }

    def _status(self, symbol: str, observation: Observation) -> SymbolStatus:
        state, reason = judge(observation, self.max_age)
        snapshot = observation.snapshot
        return SymbolStatus(
            symbol=symbol,
            state=state,
            reason=reason,
            age=observation.age,
            update_age=observation.update_age,
            seq=snapshot.seq if snapshot else 0,
            update_id=snapshot.update_id if snapshot else None,
            feeder=snapshot.feeder if snapshot else "",
            feeder_alive=observation.feeder_alive,
            trading=observation.trading,
            **asdict(self._counts(symbol)),
        )

    def _not_live(self, names: Sequence[str]) -> list[str]:
        if not names:
            return ["no symbol is known yet"]
        observations = self._observe_many([self.standard_symbol(name) for name in names])
        judged = zip(names, (judge(observation, self.max_age) for observation in observations), strict=True)
        return [f"{name}: {status} ({reason})" for name, (status, reason) in judged if status is not BookStatus.LIVE]

    def _checked(self, symbol: str, observation: Observation) -> OrderBookSnapshot | None:
        """The snapshot. Logs when the book stops being live and when it is live again."""
        snapshot, age = observation.snapshot, observation.age
        if snapshot is None:
            return None
        fresh = age is not None and age <= self.max_age and observation.confirmation_seen
        if snapshot.state == "live" and fresh and not observation.gone:
            if symbol in self._warned:
                self._warned.discard(symbol)
                logger.info("%s %s is live again", snapshot.exchange, symbol)
        elif symbol not in self._warned:
            self._warned.add(symbol)
            status, reason = judge(observation, self.max_age)
            logger.warning("%s %s is %s: %s", snapshot.exchange, symbol, status, reason)
        return snapshot
