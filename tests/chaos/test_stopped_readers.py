"""Many readers, some stopped: the others are not affected, and the stopped ones recover when continued."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from statistics import quantiles

import redis
from typer.testing import CliRunner

from bookbus.consumers.__main__ import make_app
from bookbus.feeders.redis_server import LocalServer
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot
from tests.support.builders import book
from tests.support.reading_process import Summary, Waking, quantity_of, reading_processes
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

app = make_app()

READERS, STOPPED, SECONDS = map(int, os.environ.get("BOOKBUS_STOPPED_READERS", "10/2/4").split("/"))
"""Number of readers, number of stopped ones, seconds; 100/10/60 in the figures of the documentation."""

LONG = SECONDS >= 60
BUFFER_LIMIT = "8mb 2mb 5" if LONG else "4mb 1mb 2"
"""The first is the documented limit for production."""

RIGHT_AGAIN_LIMIT = 1.0 if LONG else 5.0
"""The documented limit is 1 s; a short run may share its machine."""

READERS_A_PROCESS = 10
SYMBOLS = [f"S{number}-USDT" for number in range(5)]
LEVELS, INTERVAL = (100, 0.1) if LONG else (400, 0.05)
"""In a short run, enough to fill the network buffers to a stopped reader quickly."""


class Feed:
    """Submits all books repeatedly until the block ends."""

    def __init__(self, url: str, levels: int) -> None:
        self.rounds = 0
        self.times: list[tuple[float, float]] = []
        """Wall-clock time and response time of the server in seconds, for each round."""
        self._url = url
        self._levels = levels
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Feed":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with redis.Redis.from_url(self._url) as client:
            writer = BusWriter(client)
            while not self._over.wait(INTERVAL):
                began = time.time()
                writer.submit_all(_book(symbol, self.rounds + 1, self._levels) for symbol in SYMBOLS)
                self.times.append((began, time.time() - began))
                self.rounds += 1

    def wait(self, seconds: float) -> None:
        """Return after the number of rounds that take `seconds`."""
        wanted = self.rounds + seconds / INTERVAL
        wait_for(lambda: self.rounds >= wanted, seconds * 5 + 10, "enough updates")


def _book(symbol: str, update_id: int, levels: int) -> OrderBookSnapshot:
    quantity = quantity_of(update_id)
    bids: Levels = tuple((1000.0 - level, quantity) for level in range(levels))
    asks: Levels = tuple((1001.0 + level, quantity) for level in range(levels))
    return book(symbol, update_id=update_id, depth=levels, bids=bids, asks=asks)


def test_stopped_readers_do_not_affect_others_and_recover_when_continued() -> None:
    others = READERS - STOPPED
    shares = [min(READERS_A_PROCESS, others - first) for first in range(0, others, READERS_A_PROCESS)]
    with (
        LocalServer(options=("--client-output-buffer-limit", f"pubsub {BUFFER_LIMIT}")) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
        Feed(server.url, LEVELS) as feed,
        reading_processes(server.url, [*shares, *[1] * STOPPED], SYMBOLS) as processes,
    ):
        going, stopped = processes[: len(shares)], processes[len(shares) :]
        began = time.time()
        feed.wait(SECONDS / 2)

        stop_at = time.time()
        for process in stopped:
            process.stop()
        feed.wait(SECONDS)
        pids = sorted(process.pid for process in stopped)
        wait_for(
            lambda: not set(pids).intersection(_subscribed(client)), 60, "the end of the stopped ones' connections"
        )
        behind = _behind(server.url)
        wake_at = time.time()
        for process in stopped:
            process.wake()
        wait_for(lambda: all(process.wakings() for process in stopped), 40, "their waking")
        feed.wait(1)
        wait_for(lambda: len(_subscribed(client)) == READERS, 10, "everyone's subscription")

        seen, late = [process.finish() for process in going], [process.finish() for process in stopped]
        wakings = [waking for process in stopped for waking in process.wakings()]
        _print_figures(seen, feed, wakings, (began, stop_at, wake_at))
        assert behind == pids
        assert [(one.missed, one.reconnects, one.resets, one.wrong) for one in seen] == [(0, 0, 0, 0)] * len(seen)
        assert [(one.reconnects, one.resets, one.wrong, one.missed > 0) for one in late] == [(1, 0, 0, True)] * STOPPED
        assert [waking.called_live_but_old for waking in wakings] == [0] * STOPPED
        assert max(waking.right_at for waking in wakings) <= wake_at + RIGHT_AGAIN_LIMIT


def test_a_stopped_reader_that_stays_connected_misses_nothing_and_calls_no_old_book_live(
    redis_url: str,
) -> None:
    with Feed(redis_url, levels=5) as feed, reading_processes(redis_url, [1], SYMBOLS) as (process,):
        process.stop()
        feed.wait(4)
        wake_at = time.time()
        process.wake()
        wait_for(process.wakings, 40, "its waking")
        (waking,) = process.wakings()
        summary = process.finish()

    assert waking.called_live_but_old == 0
    assert waking.right_at <= wake_at + RIGHT_AGAIN_LIMIT
    assert (summary.missed, summary.reconnects, summary.resets, summary.wrong) == (0, 0, 0, 0)


def _subscribed(client: redis.Redis) -> list[int]:
    """Process ids of the subscribed readers."""
    return [_pid_of(connection["name"]) for connection in client.client_list(_type="pubsub")]


def _behind(url: str) -> list[int]:
    """Process ids of the readers that `list` calls stopped."""
    listed = CliRunner().invoke(app, ["list", "--json", "--redis", url])
    readers = [json.loads(line) for line in listed.stdout.splitlines()]
    assert len(readers) == READERS
    assert listed.exit_code == 1
    return sorted(_pid_of(reader["name"]) for reader in readers if reader["state"] == "stopped")


def _pid_of(name: str) -> int:
    return int(name.rsplit("-", 2)[1])


def _print_figures(
    seen: Iterable[Summary], feed: Feed, wakings: Sequence[Waking], times: tuple[float, float, float]
) -> None:
    began, stop_at, wake_at = times
    ages = [age for one in seen for age in one.ages]
    for what, pairs in (("age of a book as it came", ages), ("the server's answer to the feeder", feed.times)):
        before = [seconds for at, seconds in pairs if began <= at < stop_at]
        during = [seconds for at, seconds in pairs if stop_at <= at < wake_at]
        _write(f"{what}: before {_spread(before)}; while {len(wakings)} readers were stopped {_spread(during)}")
    after = sorted(waking.right_at - wake_at for waking in wakings)
    _write(f"stopped for {wakings[0].stalled:.0f} s, right again after {after[0]:.3f} to {after[-1]:.3f} s")


def _spread(seconds: list[float]) -> str:
    cuts = quantiles(seconds, n=100)
    return f"p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms of {len(seconds)}"


def _write(line: str) -> None:
    # For reading the figures of a long run.
    sys.stdout.write(line + "\n")
