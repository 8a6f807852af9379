"""A simulated exchange, a feeder in its own process and readers, on servers that a test breaks."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.schemas.snapshot import BookStatus
from tests.support.book_checker import BookChecker
from tests.support.feeder_process import FeederProcess, feeder_process
from tests.support.waiting import await_for

logger = logging.getLogger(__name__)

BASES = ("BTC", "ETH", "SOL", "XRP", "ADA", "DOGE", "DOT", "LTC")
NATIVES = tuple(f"{base}USDT" for base in BASES)
SYMBOLS = tuple(f"{base}-USDT" for base in BASES)

RECOVERY_LIMIT = 5.0
START_LIMIT = 40.0


@dataclass
class WatchedBus:
    """Compares every live book of all readers with the exchange's own."""

    exchange: BinanceSimulator
    feeder: FeederProcess
    readers: list[RedisMarketDataProvider]
    seen: BookChecker

    def all_right_and_live(self) -> bool:
        """Whether every reader has every book live, at levels that the exchange had."""
        readings = [reader.read(symbol) for reader in self.readers for symbol in SYMBOLS]
        return all(reading.status is BookStatus.LIVE for reading in readings) and not self.seen.wrong

    async def become(self, condition: Callable[[], bool], limit: float, what: str) -> None:
        """Wait until the condition holds. The failure message has the feeder's log and the readers' states."""
        try:
            await await_for(condition, limit, what)
        except AssertionError as error:
            errors = [reader.get_connection_status().error for reader in self.readers]
            states = [reader.read(symbol).reason for reader in self.readers for symbol in SYMBOLS]
            raise AssertionError(f"{error}\nwrong: {self.seen.wrong}\n{errors}\n{states}\n{self.feeder.log}") from None

    async def survives(self, fault: Callable[[], Any], recovered: Callable[[], bool] = lambda: True) -> None:
        """Run `fault`; within the limit after `recovered()` is true, all books must be newer, right and live."""
        began = time.monotonic()
        await asyncio.to_thread(fault)
        await self.become(recovered, 4 * RECOVERY_LIMIT, "recovered servers")
        before = {symbol: self.exchange.known_ids(symbol.replace("-", ""), 0)[-1] for symbol in SYMBOLS}
        servers_recovered = time.monotonic()
        await self.become(
            lambda: self._newer(before) and self.all_right_and_live(),
            RECOVERY_LIMIT,
            "every book newer, right and live",
        )
        logger.info(
            "servers recovered after %.1f s, books right and live %.1f s later",
            servers_recovered - began,
            time.monotonic() - servers_recovered,
        )
        assert self.seen.wrong == []

    def _newer(self, before: dict[str, int]) -> bool:
        readings = [(reader.read(symbol).snapshot, before[symbol]) for reader in self.readers for symbol in SYMBOLS]
        return all(snapshot is not None and snapshot.update_id > update_id for snapshot, update_id in readings)


class _Bugs(logging.Handler):
    """Collects errors in the log; no failure of a server may cause one."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def _no_errors() -> Iterator[None]:
    bugs = _Bugs()
    logging.getLogger().addHandler(bugs)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(bugs)
    assert bugs.lines == []


@contextlib.asynccontextmanager
async def watched_bus(url: str, *reader_urls: str, seed: int = 61) -> AsyncIterator[WatchedBus]:
    """A feeder on `url`, and a reader of each of `reader_urls` (default: `url`), once all books are live."""
    async with BinanceSimulator(symbols=NATIVES, seed=seed, rate=10.0) as exchange:
        seen = BookChecker(exchange.truth)
        with (
            feeder_process(url, exchange.ws_url, exchange.rest_url, NATIVES) as feeder,
            contextlib.ExitStack() as stack,
        ):
            readers = [RedisMarketDataProvider(one, "binance", SYMBOLS) for one in reader_urls or (url,)]
            for reader in readers:
                reader.on_snapshot(seen.take)
                await asyncio.to_thread(reader.start)
                stack.callback(reader.stop)
            bus = WatchedBus(exchange, feeder, readers, seen)
            await bus.become(lambda: bus.all_right_and_live() and seen.compared > 0, START_LIMIT, "the first books")
            yield bus
            assert " ERROR " not in feeder.log, feeder.log
            assert seen.wrong == []
