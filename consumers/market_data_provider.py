"""The one interface through which a strategy reads order books, wherever they come from."""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from types import TracebackType
from typing import Self

from bookbus.consumers.change_feed import ChangeFeed, OnSnapshot
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
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot

logger = logging.getLogger(__name__)

_WAIT_INTERVAL = 0.02


class MarketDataProvider(ABC):
    """The newest order book of each symbol, from any thread.

    Every method that takes a symbol takes its standard name (`BTC-USDT`), the exchange's own (`BTCUSDT`) or the
    alias (`BTC`), and raises SymbolError for what can be none of them. Beyond that, reading never raises: a symbol
    without a book is None, a book nobody vouches for any more is returned and its status says so.

    A new provider implements the abstract methods and calls `self._changes.open()`, `.publish(symbol)` and
    `.close()`. `blocking_reads` says that reading waits for the network.
    """

    blocking_reads = False

    def __init__(self, max_age: float = MAX_AGE) -> None:
        if not max_age > 0:
            raise ValueError(f"max_age must be above zero, got {max_age}")
        self.max_age = max_age
        self._changes = ChangeFeed(lambda symbol: self._observe(symbol).snapshot)
        self._warned: set[str] = set()

    @property
    @abstractmethod
    def symbols(self) -> Sequence[str]:
        """Standard names of the symbols this provider follows."""

    @abstractmethod
    def start(self) -> None:
        """Begin to receive; returns once every symbol has its book or is known to have none. Twice is once."""

    @abstractmethod
    def stop(self) -> None:
        """End it; the books stay readable as they are. Twice is once, and never started is fine too."""

    @abstractmethod
    def standard_symbol(self, name: str) -> str:
        """The standard name of what `name` stands for. Raises SymbolError if that is nothing."""

    @abstractmethod
    def _observe(self, symbol: str) -> Observation:
        """What is known now of a standard symbol."""

    @abstractmethod
    def _counts(self, symbol: str) -> Counts:
        """What happened so far to the updates of a standard symbol."""

    @abstractmethod
    def get_connection_status(self) -> ConnectionStatus:
        """How the provider is connected, and the status of every symbol."""

    def _observe_many(self, symbols: Sequence[str]) -> list[Observation]:
        """`_observe` of each; for providers that do better in one go."""
        return [self._observe(symbol) for symbol in symbols]

    def get_latest_snapshot(self, symbol: str) -> OrderBookSnapshot | None:
        """The newest book, None if there never was one. What to do about an old one is the caller's decision:
        it is returned too, with one warning for each time it turns old.
        """
        standard = self.standard_symbol(symbol)
        return self._checked(standard, self._observe(standard))

    def get_many(self, symbols: Iterable[str]) -> dict[str, OrderBookSnapshot | None]:
        """`get_latest_snapshot` of each, by the names asked for."""
        names = {name: self.standard_symbol(name) for name in symbols}
        observations = self._observe_many(list(names.values()))
        return {
            name: self._checked(standard, observation)
            for (name, standard), observation in zip(names.items(), observations, strict=True)
        }

    def read(self, symbol: str, max_age: float | None = None) -> Reading:
        """The newest book with its status, judged by `max_age` seconds instead of the provider's own limit."""
        observation = self._observe(self.standard_symbol(symbol))
        status, reason = judge(observation, self.max_age if max_age is None else max_age)
        return Reading(observation.snapshot, status, observation.age, f"{symbol}: {reason}" if reason else "")

    def status(self, symbol: str) -> SymbolStatus:
        """All that is known of one symbol but its levels."""
        standard = self.standard_symbol(symbol)
        return self._status(standard, self._observe(standard))

    def wait_until_live(self, symbols: Iterable[str] | None = None, timeout: float = 10.0) -> None:
        """Return once all these symbols (without any: all of the provider) are live.

        Raises BookNotLiveError after `timeout` seconds, naming each that is not and why.
        """
        asked = None if symbols is None else list(symbols)
        deadline = time.monotonic() + timeout
        while waiting := self._not_live(self.symbols if asked is None else asked):
            if time.monotonic() >= deadline:
                raise BookNotLiveError(f"not live within {timeout:g} s: " + "; ".join(waiting))
            time.sleep(_WAIT_INTERVAL)

    def on_snapshot(self, callback: OnSnapshot) -> None:
        """Call `callback` with the newest book of each symbol that changed, from one thread of the provider's."""
        self._changes.add_callback(callback)

    def updates(self, *symbols: str) -> AsyncIterator[Update]:
        """`async for snapshot, conflated in provider.updates("BTC")`: the book as it is, then each newer one.

        A slow loop gets the newest book and the number of earlier ones merged into it. Ends when the provider stops.
        """
        return self._changes.updates([self.standard_symbol(name) for name in symbols])

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

    def _statuses(self) -> dict[str, SymbolStatus]:
        symbols = list(self.symbols)
        return {
            symbol: self._status(symbol, observation)
            for symbol, observation in zip(symbols, self._observe_many(symbols), strict=True)
        }

    def _status(self, symbol: str, observation: Observation) -> SymbolStatus:
        state, reason = judge(observation, self.max_age)
        counts, snapshot = self._counts(symbol), observation.snapshot
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
            received=counts.received,
            conflated=counts.conflated,
            missed=counts.missed,
            resets=counts.resets,
            skipped=counts.skipped,
        )

    def _not_live(self, names: Sequence[str]) -> list[str]:
        if not names:
            return ["no symbol is known yet"]
        observations = self._observe_many([self.standard_symbol(name) for name in names])
        judged = zip(names, (judge(observation, self.max_age) for observation in observations), strict=True)
        return [f"{name}: {status} ({reason})" for name, (status, reason) in judged if status is not BookStatus.LIVE]

    def _checked(self, symbol: str, observation: Observation) -> OrderBookSnapshot | None:
        """The snapshot, after the warning that its status asks for."""
        snapshot, age = observation.snapshot, observation.age
        if snapshot is None:
            return None
        if snapshot.state == "live" and age is not None and age <= self.max_age:
            if symbol in self._warned:
                self._warned.discard(symbol)
                logger.info("%s %s is live again", snapshot.exchange, symbol)
        elif symbol not in self._warned:
            self._warned.add(symbol)
            status, reason = judge(observation, self.max_age)
            logger.warning("%s %s is %s: %s", snapshot.exchange, symbol, status, reason)
        return snapshot
