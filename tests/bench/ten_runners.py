"""Ten paper runners on one feed: do all of them see the same books, and does the feeder notice? Run by hand.

    python -m tests.bench.ten_runners --seconds 60

A simulated exchange, a feeder, a private server; one runner, then ten, then one again, each in a process of its own.
Every book a runner goes by is held, by its `seq`, against those of the others and against the exchange's own. Exit
code 1 if one differs, or if too few were compared to tell.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgspec

from bookbus.consumers.paper.market import ProviderMarket, VenueQuote
from bookbus.consumers.paper.runner import Stop, run_live
from bookbus.consumers.paper.settings import RunSettings
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.snapshot import Levels
from tests.support.feeder_process import feeder_process
from tests.support.waiting import wait_for

NATIVE = {"BTC-USDT": "BTCUSDT", "ETH-USDT": "ETHUSDT"}
RUNNERS = 10
RATE = 10.0
_DEPTH = 20
_LIMIT = 60.0
_ENOUGH = 0.5
"""Share of all books that each runner must have gone by: it looks as often as they come."""

Key = tuple[str, int]


class Seen(msgspec.Struct, frozen=True):
    """What one runner saw and did: by symbol and `seq`, the update id and a digest of the levels."""

    books: dict[str, dict[int, tuple[int, str]]]
    fills: int
    skipped: int


@dataclass(frozen=True, slots=True)
class Phase:
    """So many runners at once. CPU is in seconds a second."""

    seen: Sequence[Seen]
    feeder: float
    server: float


class WatchedMarket(ProviderMarket):
    """A market that notes every book it hands to the run."""

    def __init__(self, provider: RedisMarketDataProvider) -> None:
        super().__init__(provider, "binance", {})
        self.seen: dict[str, dict[int, tuple[int, str]]] = {symbol: {} for symbol in self.symbols}

    def quotes(self, symbol: str) -> list[VenueQuote]:
        """The book, noted if it may be traded on."""
        found = super().quotes(symbol)
        book = found[0].book
        if book is not None and not found[0].reject_reason and book.seq not in self.seen[symbol]:
            self.seen[symbol][book.seq] = (book.update_id, digest(book.bids, book.asks))
        return found


def digest(bids: Levels, asks: Levels) -> str:
    """A short name of these levels."""
    return hashlib.blake2b(msgspec.msgpack.encode((bids, asks)), digest_size=8).hexdigest()


def run_one(url: str, directory: Path, seconds: float) -> None:
    """A runner: says when it is ready, begins when it is told to, says what it saw."""
    settings = RunSettings(source="redis", symbols=tuple(NATIVE), duration=seconds, trade_interval=1.0)
    with RedisMarketDataProvider(url, "binance", settings.symbols) as provider:
        provider.wait_until_live(timeout=_LIMIT)
        print("ready", flush=True)
        sys.stdin.readline()
        market = WatchedMarket(provider)
        kpi = run_live(settings, market, directory, Stop(), lambda _: None)
    seen = Seen(market.seen, kpi.fill_events_count, sum(kpi.skipped_decisions.values()))
    sys.stdout.write(msgspec.json.encode(seen).decode() + "\n")


def run_many(count: int, url: str, seconds: float, feeder: int, server: int) -> Phase:
    """So many runners, begun together; CPU is measured from then on."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        command = [sys.executable, "-m", "tests.bench.ten_runners", "--seconds", f"{seconds:g}"]
        command += ["--runner", url, "--directory", directory]
        runners = [
            stack.enter_context(subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(count)
        ]
        for runner in runners:
            stack.callback(runner.kill)
        if {_line(runner) for runner in runners} != {"ready"}:
            raise RuntimeError("a runner did not start")
        before = time.monotonic(), cpu(feeder), cpu(server)
        for runner in runners:
            _tell(runner, "go\n")
        time.sleep(seconds)
        after = time.monotonic(), cpu(feeder), cpu(server)
        seen = [msgspec.json.decode(_line(runner), type=Seen) for runner in runners]
    took, feeding, serving = (last - first for first, last in zip(before, after, strict=True))
    return Phase(seen, feeding / took, serving / took)


def cpu(pid: int) -> float:
    """Seconds of CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def differing(seen: Sequence[Seen]) -> dict[int, int]:
    """For each runner, how many of its books another one saw differently under the same `seq`."""
    versions: dict[Key, set[tuple[int, str]]] = defaultdict(set)
    for one in seen:
        for symbol, books in one.books.items():
            for seq, book in books.items():
                versions[symbol, seq].add(book)
    bad = {key for key, found in versions.items() if len(found) > 1}
    return {number: len(bad & keys_of(one)) for number, one in enumerate(seen)}


def keys_of(seen: Seen) -> set[Key]:
    """Every book of a runner."""
    return {(symbol, seq) for symbol, books in seen.books.items() for seq in books}


def untrue(seen: Seen, truths: Mapping[str, Mapping[int, str]]) -> tuple[int, int]:
    """How many of a runner's books were held against the exchange's, and how many of those were others."""
    pairs = [
        (truths[symbol][update_id], found)
        for symbol, books in seen.books.items()
        for update_id, found in books.values()
        if update_id in truths[symbol]
    ]
    return len(pairs), sum(true != found for true, found in pairs)


def report(phase: Phase, truths: Mapping[str, Mapping[int, str]]) -> bool:
    """Print a line for each runner. Whether all saw the same, true books, and enough of them."""
    union = set[Key]().union(*map(keys_of, phase.seen))
    others = differing(phase.seen)
    print(
        f"{'runner':>6} {'books':>7} {'of all':>7} {'differing':>9} {'checked':>8} {'untrue':>7} {'fills':>6} skipped"
    )
    good = True
    for number, seen in enumerate(phase.seen):
        books = len(keys_of(seen))
        share = books / len(union) if union else 0.0
        checked, wrong = untrue(seen, truths)
        print(
            f"{number + 1:>6} {books:>7} {share:>7.1%} {others[number]:>9} {checked:>8} {wrong:>7} {seen.fills:>6} "
            f"{seen.skipped:>7}"
        )
        enough = share >= _ENOUGH and checked >= _ENOUGH * books and seen.fills > 0
        good = good and enough and not others[number] and not wrong
    return good


def main() -> None:
    """The measuring program, or one of the runners it starts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--runner", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.runner:
        run_one(arguments.runner, arguments.directory, arguments.seconds)
        return
    natives, flushes = list(NATIVE.values()), round((arguments.seconds + _LIMIT) * RATE)
    phases: list[tuple[int, Phase]] = []
    with (
        LocalServer() as server,
        SimulatorProcess(natives, seed=4, rate=RATE, truth_flushes=flushes) as exchange,
        feeder_process(server.url, exchange.ws_url, exchange.rest_url, natives) as feeder,
    ):
        wait_for(lambda: feeder.log.count("live") > 0, _LIMIT, "a feeder with books")
        for count in (1, RUNNERS, 1):
            phase = run_many(count, server.url, arguments.seconds, feeder.process.pid, server.pid)
            phases.append((count, phase))
            if count == RUNNERS:
                truths = {
                    symbol: {at: digest(*levels) for at, levels in exchange.truths(native, depth=_DEPTH).items()}
                    for symbol, native in NATIVE.items()
                }
                good = report(phase, truths)
    print(f"\n{'runners':>7} {'feeder CPU':>11} {'server CPU':>11}")
    for count, phase in phases:
        print(f"{count:>7} {phase.feeder:>11.2%} {phase.server:>11.2%}")
    print("all see the same books" if good else "THE BOOKS DIFFER, or too few were compared")
    sys.exit(0 if good else 1)


def _line(runner: "subprocess.Popen[str]") -> str:
    if runner.stdout is None:
        raise ValueError("the runner's output was not asked for")
    return runner.stdout.readline().strip()


def _tell(runner: "subprocess.Popen[str]", line: str) -> None:
    if runner.stdin is None:
        raise ValueError("the runner's input was not asked for")
    runner.stdin.write(line)
    runner.stdin.flush()


if __name__ == "__main__":
    main()
