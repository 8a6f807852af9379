"""A process with several readers of one exchange that compares their books with the exchange's own."""

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import NamedTuple

from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.instruments import EXCHANGES
from bookbus.schemas.snapshot import BookStatus, Levels, OrderBookSnapshot
from tests.support.true_age import LIVE_LIMIT, TrueAges

REPORT_INTERVAL = 5.0
RESTART_INTERVAL = 60.0
"""Seconds between restarts of the last reader of a process, which would show a leak."""

_LOOK_INTERVAL = 0.25
"""Seconds between two reads of the status of every book."""

_LIVE_LIMIT = LIVE_LIMIT + 1.0
"""Highest true age in seconds of a live book; many processes share the machine."""

_JUMP = 60_000


@dataclass
class Report:
    """Totals of the readers of one process. `not_live` holds the reasons at the time of the report."""

    compared: int = 0
    wrong: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    ages_judged: int = 0
    oldest: float = 0.0
    """The highest true age in seconds of a live book."""
    unknown: int = 0
    older: int = 0
    missed: int = 0
    reconnects: int = 0
    not_live: list[str] = field(default_factory=list)


class Seen(NamedTuple):
    """A live book of a reader. `levels` is a hash, because the books of five seconds need much memory."""

    exchange: str
    native: str
    update_id: int
    levels: int


class Reader:
    """One provider and its live books since the last `taken()`."""

    def __init__(self, url: str, exchange: str, symbols: list[str]) -> None:
        self.provider = RedisMarketDataProvider(url, exchange, symbols)
        self.provider.on_snapshot(self._take)
        self.ages = TrueAges(_LIVE_LIMIT)
        self.older = 0
        self._lock = threading.Lock()
        self._books: list[Seen] = []
        self._newest: dict[str, int] = {}

    def taken(self) -> list[Seen]:
        """The live books since the last call."""
        with self._lock:
            books, self._books = self._books, []
        return books

    def look(self, native_of: dict[str, str]) -> None:
        """Take the update id of every book that the provider calls live."""
        for symbol, status in self.provider.get_connection_status().symbols.items():
            self.ages.see(native_of[symbol], status.update_id if status.state is BookStatus.LIVE else None)

    def _take(self, book: OrderBookSnapshot) -> None:
        with self._lock:
            self.older += book.seq < self._newest.get(book.symbol, 0)
            self._newest[book.symbol] = book.seq
            if book.state == "live":
                self._books.append(Seen(book.exchange, book.native, book.update_id, hash((book.bids, book.asks))))


class Readers:
    """All readers of the process."""

    def __init__(self, url: str, exchange: SimulatorProcess, symbols: list[str], count: int, name: str) -> None:
        self._exchange = exchange
        self._readers = [Reader(url, name, symbols) for _ in range(count)]
        self._native_of = {symbol: EXCHANGES[name].native(*symbol.split("-")) for symbol in symbols}
        self._report = Report()
        self._stopped = False

    def start(self) -> None:
        """Return once each reader has every book."""
        for reader in self._readers:
            reader.provider.start()
            reader.provider.wait_until_live(timeout=60.0)

    def stop(self) -> None:
        """Stop all readers."""
        for reader in self._readers:
            reader.provider.stop()

    def restart_one(self) -> None:
        """Stop the last reader and start it again."""
        self._readers[-1].provider.stop()
        self._stopped = True
        self.start_stopped()

    def start_stopped(self) -> None:
        """Start the last reader if it is stopped; does nothing if the server is down."""
        if not self._stopped:
            return
        try:
            self._readers[-1].provider.start()
        except ConnectionError:
            return
        self._stopped = False

    def look(self) -> None:
        """Take the update id of every live book of each reader."""
        for reader in self._readers:
            reader.look(self._native_of)

    def report(self) -> Report:
        """Check the books since the last report. Returns the totals."""
        self._judge([book for reader in self._readers for book in reader.taken()])
        self._judge_ages()
        statuses = [reader.provider.get_connection_status() for reader in self._readers]
        symbols = [status for each in statuses for status in each.symbols.values()]
        report = self._report
        report.stale = [book for reader in self._readers for book in reader.ages.stale]
        report.ages_judged = sum(reader.ages.judged for reader in self._readers)
        report.oldest = max(reader.ages.oldest for reader in self._readers)
        report.older = sum(reader.older for reader in self._readers)
        report.missed = sum(status.missed for status in symbols)
        report.reconnects = sum(status.reconnect_count for status in statuses)
        report.not_live = [status.reason for status in symbols if status.state is not BookStatus.LIVE]
        return report

    def _judge(self, books: list[Seen]) -> None:
        by_native: dict[str, list[Seen]] = {}
        for book in books:
            by_native.setdefault(book.native, []).append(book)
        for native, some in by_native.items():
            truths: dict[int, tuple[Levels, Levels]] = {}
            for first, last in spans({book.update_id for book in some}):
                truths |= self._exchange.truths(native, first, until=last)
            for book in some:
                self._compare(book, truths.get(book.update_id))

    def _judge_ages(self) -> None:
        seen = [(reader, reader.ages.take()) for reader in self._readers]
        for native in self._native_of.values():
            first = min((reader.ages.since_us(held[native]) for reader, held in seen if native in held), default=None)
            if first is None:
                continue
            timeline = self._exchange.timeline(native, first)
            for reader, held in seen:
                reader.ages.judge(held.get(native, ()), timeline, partial(self._exchange.truth, native))

    def _compare(self, book: Seen, true: tuple[Levels, Levels] | None) -> None:
        if true is None:
            self._report.unknown += 1
            return
        self._report.compared += 1
        if book.levels != hash(true):
            self._report.wrong.append(f"{book.exchange} {book.native} at {book.update_id}")


def spans(update_ids: Iterable[int]) -> list[tuple[int, int]]:
    """First and last id of each range without a jump; a restarted exchange begins far from its old ids."""
    found: list[tuple[int, int]] = []
    for update_id in sorted(update_ids):
        if found and update_id - found[-1][1] <= _JUMP:
            found[-1] = found[-1][0], update_id
        else:
            found.append((update_id, update_id))
    return found


def main() -> None:
    """Write reports to standard output until standard input closes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--exchange", required=True)
    parser.add_argument("--rest-url", required=True)
    parser.add_argument("--symbols", required=True)
    parser.add_argument("--readers", type=int, default=5)
    arguments = parser.parse_args()
    exchange = SimulatorProcess(exchange=arguments.exchange)
    exchange.rest_url = arguments.rest_url
    readers = Readers(arguments.redis, exchange, arguments.symbols.split(","), arguments.readers, arguments.exchange)
    ended = threading.Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        ended.set()

    threading.Thread(target=wait_for_end, daemon=True).start()
    readers.start()
    restart_at = time.monotonic() + RESTART_INTERVAL
    while True:
        report_at, over = time.monotonic() + REPORT_INTERVAL, False
        while not over and time.monotonic() < report_at:
            readers.look()
            over = ended.wait(_LOOK_INTERVAL)
        sys.stdout.write(json.dumps(asdict(readers.report())) + "\n")
        sys.stdout.flush()
        if over:
            readers.stop()
            return
        readers.start_stopped()
        if time.monotonic() >= restart_at:
            restart_at += RESTART_INTERVAL
            readers.restart_one()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
