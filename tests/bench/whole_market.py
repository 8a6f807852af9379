"""Two complete exchanges on this machine: time until every book is live, age of books, memory.

    python -m tests.bench.whole_market --seconds 300

600 Binance symbols at 10 updates a second and 250 Upbit markets at 5, from frames computed beforehand, one feeder
each, one server, one reader of all books. Ages are the reader's: time since the newest confirmation or update.
The exchanges, which are elsewhere in life, yield to the others where there are fewer cores than processes.
"""

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.snapshot import BookStatus
from tests.support.feeder_process import FeederProcess, feeder_process

_SAMPLE_INTERVAL = 0.1
_MEMORY_INTERVAL = 5.0
_LIVE_LIMIT = 300.0
_NICENESS = 5


@dataclass
class Market:
    """One exchange: its simulator, its feeder, a reader, and the measurements."""

    name: str
    exchange: SimulatorProcess
    feeder: FeederProcess
    reader: MarketDataProvider
    symbols: Sequence[str]
    live_after: float = 0.0
    ages: list[float] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)
    not_live: int = 0

    def look(self) -> None:
        """Record the age of every book."""
        for symbol in self.symbols:
            reading = self.reader.read(symbol)
            self.not_live += reading.status is not BookStatus.LIVE
            if reading.age is not None:
                self.ages.append(reading.age)

    def weigh(self, now: float) -> None:
        """Record the feeder's memory in MB."""
        status = Path(f"/proc/{self.feeder.process.pid}/status").read_text()
        kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        self.memory.append((now, int(kilobytes) / 1024))

    def report(self) -> None:
        """Print the figures."""
        ages = sorted(self.ages)
        late = self.memory[len(self.memory) // 5 :]
        slope = statistics.linear_regression(*zip(*late, strict=True)).slope * 60 if len(late) > 2 else float("nan")
        print(
            f"{self.name}: {len(self.symbols)} books live after {self.live_after:.1f} s; {len(ages):,} looks: "
            f"p50 {_at(ages, 0.5):.0f} ms, p99.9 {_at(ages, 0.999):.0f} ms, worst {ages[-1] * 1e3:.0f} ms; "
            f"{self.not_live} not live; memory {self.memory[-1][1]:.0f} MB, {slope:+.2f} MB a minute"
        )


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3


def _open(stack: ExitStack, url: str, name: str, count: int, rate: float) -> Market:
    exchange = stack.enter_context(
        SimulatorProcess(symbols=count, exchange=name, rate=rate, prepared=4.0, seed=5, truth_flushes=100)
    )
    os.setpriority(os.PRIO_PROCESS, exchange.pid, _NICENESS)
    started = time.monotonic()
    feeder = stack.enter_context(
        feeder_process(url, exchange.ws_url, exchange.rest_url, exchange.symbols, "--exchange", name)
    )
    reader = stack.enter_context(RedisMarketDataProvider(url, name, exchange.symbols))
    market = Market(name, exchange, feeder, reader, list(reader.symbols))
    reader.wait_until_live(timeout=_LIVE_LIMIT)
    market.live_after = time.monotonic() - started
    print(f"{name}: {count} books live after {market.live_after:.1f} s")
    return market


def main() -> None:
    """Run with the options of the command line and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--binance", type=int, default=600)
    parser.add_argument("--upbit", type=int, default=250)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        url = stack.enter_context(LocalServer()).url
        markets = [
            _open(stack, url, "binance", arguments.binance, 10.0),
            _open(stack, url, "upbit", arguments.upbit, 5.0),
        ]
        end = time.monotonic() + arguments.seconds
        next_weighing = 0.0
        while (now := time.monotonic()) < end:
            for market in markets:
                market.look()
                if now >= next_weighing:
                    market.weigh(now)
            next_weighing = now + _MEMORY_INTERVAL if now >= next_weighing else next_weighing
            time.sleep(max(0.0, _SAMPLE_INTERVAL - (time.monotonic() - now)))
        for market in markets:
            market.report()


if __name__ == "__main__":
    main()
