"""Readers in their own process, which a test can stop and continue; they report ages of books and the recovery."""

import argparse
import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from tests.support.waiting import wait_for

_LOOK_INTERVAL = 0.02
_STALL = 2.0
MAX_AGE = 1.0
_FALSE_AGE = 3.0
"""A live book must not be older: MAX_AGE, plus the largest error of an age."""
_WAKING_LIMIT = 30.0


@dataclass
class Waking:
    """Recovery after a stall: wall-clock time at which all books were right, and count of old books called live."""

    stalled: float
    right_at: float
    called_live_but_old: int


@dataclass
class Summary:
    """Counts of all readers of a process; `ages` are pairs of wall-clock time and age of a book."""

    received: int = 0
    missed: int = 0
    resets: int = 0
    reconnects: int = 0
    wrong: int = 0
    ages: list[tuple[float, float]] = field(default_factory=list)


def quantity_of(update_id: int) -> float:
    """The quantity on every level of a correct book."""
    return float(update_id)


class ReadingProcess:
    """Readers of these symbols, each with its own connections, until `finish()`."""

    def __init__(self, url: str, readers: int, symbols: Sequence[str]) -> None:
        self.readers = readers
        self._out: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.reading_process", url, str(readers), ",".join(symbols)],
            stdin=subprocess.PIPE,
            stdout=self._out,
        )

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def lines(self) -> list[dict[str, Any]]:
        """The output so far: `ready`, then one `waking` per stall, last `summary`."""
        assert self.process.poll() in (None, 0)
        # Not moved with seek: the process writes at the same position.
        text = os.pread(self._out.fileno(), os.fstat(self._out.fileno()).st_size, 0)
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]

    def ready(self) -> bool:
        """Whether all readers have all books."""
        return bool(self.lines())

    def wakings(self) -> list[Waking]:
        """The recovery after each stall so far."""
        return [Waking(**line["waking"]) for line in self.lines() if "waking" in line]

    def stop(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def finish(self) -> Summary:
        """End it. Returns its summary."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        wait_for(lambda: "summary" in self.lines()[-1], 20, "the summary")
        assert self.process.wait(10) == 0
        return Summary(**self.lines()[-1]["summary"])

    def close(self) -> None:
        """Kill it if it runs, and delete its output."""
        self.process.kill()
        self.process.communicate()
        self._out.close()


@contextlib.contextmanager
def reading_processes(url: str, readers: Sequence[int], symbols: Sequence[str]) -> Iterator[list[ReadingProcess]]:
    """Processes with the given numbers of readers, all ready; killed at the end of the block."""
    with contextlib.ExitStack() as stack:
        processes = []
        for count in readers:
            processes.append(ReadingProcess(url, count, symbols))
            stack.callback(processes[-1].close)
        for process in processes:
            wait_for(process.ready, 120, "all books")
        yield processes


class _Readers:
    def __init__(self, url: str, count: int, symbols: Sequence[str]) -> None:
        self.summary = Summary()
        self._symbols = symbols
        self._providers = [RedisMarketDataProvider(url, "binance", symbols, max_age=MAX_AGE) for _ in range(count)]
        for provider in self._providers:
            provider.on_snapshot(self._note)

    def start(self) -> None:
        for provider in self._providers:
            provider.start()
        for provider in self._providers:
            provider.wait_until_live(timeout=60)

    def watch(self, over: Callable[[], bool]) -> None:
        seen = boottime()
        while not over():
            now = boottime()
            if now - seen > _STALL:
                _write("waking", asdict(self._wake(now, now - seen)))
            seen = boottime()

    def stop(self) -> None:
        for provider in self._providers:
            status = provider.get_connection_status()
            self.summary.reconnects += status.reconnect_count
            for symbol in status.symbols.values():
                self.summary.received += symbol.received
                self.summary.missed += symbol.missed
                self.summary.resets += symbol.resets
            provider.stop()

    def _note(self, book: OrderBookSnapshot) -> None:
        now = time.time()
        self.summary.ages.append((now, now - book.published_us / 1e6))
        self.summary.wrong += not _consistent(book)

    def _wake(self, woken: float, stalled: float) -> Waking:
        false = 0
        while boottime() - woken < _WAKING_LIMIT:
            readings = [provider.read(symbol) for provider in self._providers for symbol in self._symbols]
            now = time.time()
            right = 0
            for reading in readings:
                book = reading.snapshot
                if book is not None and reading.status is BookStatus.LIVE:
                    age = now - book.published_us / 1e6
                    false += age > _FALSE_AGE
                    right += age < MAX_AGE and _consistent(book)
            if right == len(readings):
                return Waking(stalled, now, false)
        return Waking(stalled, math.inf, false)


def _consistent(book: OrderBookSnapshot) -> bool:
    quantity = quantity_of(book.update_id)
    return all(level[1] == quantity for side in (book.bids, book.asks) for level in side)


def _write(kind: str, value: object) -> None:
    sys.stdout.write(json.dumps({kind: value}) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Read until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("readers", type=int)
    parser.add_argument("symbols")
    arguments = parser.parse_args()
    readers = _Readers(arguments.url, arguments.readers, arguments.symbols.split(","))
    readers.start()
    _write("ready", True)
    readers.watch(lambda: bool(select.select([sys.stdin], [], [], _LOOK_INTERVAL)[0]))
    readers.stop()
    _write("summary", asdict(readers.summary))


if __name__ == "__main__":
    main()
