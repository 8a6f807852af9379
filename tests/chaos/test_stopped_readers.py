"""Many readers, some of them stopped: the others notice nothing, and the stopped ones are right again when awake."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from statistics import quantiles

import redis
from typer.testing import CliRunner

from consumers.__main__ import app
from feeders.local_redis import private_server
from schemas.snapshot import Levels, OrderBookSnapshot
from tests.support.builders import book
from tests.support.reading_process import ReadingProcess, Summary, quantity_of, reading_processes
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

READERS, STOPPED, SECONDS = map(int, os.environ.get("BOOKBUS_STOPPED_READERS", "10/2/4").split("/"))
"""How many readers, how many of them are stopped, for how long at least; 100/10/60 in the figures of the docs."""

LONG = SECONDS >= 60
BUFFER_LIMIT = "8mb 2mb 5" if LONG else "1mb 512kb 1"
RIGHT_AGAIN_LIMIT = 1.0 if LONG else 5.0
"""A second is promised; a short run may share its machine with others."""

READERS_A_PROCESS = 10
SYMBOLS = [f"S{number}-USDT" for number in range(5)]
LEVELS = max(4000 // READERS, 100)
"""So that a few readers, too, have soon more than the network takes on its way to a stopped one."""
INTERVAL = 0.1


class Feed:
    """Submits each book ten times a second until the block ends."""

    def __init__(self, url: str) -> None:
        self.rounds = 0
        self.times: list[tuple[float, float]] = []
        """Time of day and seconds that the server took, for each round."""
        self._url = url
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
                writer.submit_all(_book(symbol, self.rounds + 1) for symbol in SYMBOLS)
                self.times.append((began, time.time() - began))
                self.rounds += 1

    def wait(self, seconds: float) -> None:
        """Return after as many rounds as are made in `seconds`."""
        wanted = self.rounds + seconds / INTERVAL
        wait_for(lambda: self.rounds >= wanted, seconds * 5 + 10, "enough updates")


def _book(symbol: str, update_id: int) -> OrderBookSnapshot:
    quantity = quantity_of(update_id)
    bids: Levels = tuple((1000.0 - level, quantity) for level in range(LEVELS))
    asks: Levels = tuple((1001.0 + level, quantity) for level in range(LEVELS))
    return book(symbol, update_id=update_id, depth=LEVELS, bids=bids, asks=asks)


def test_stopped_readers_harm_nobody_and_are_right_again_when_they_wake() -> None:
    others = READERS - STOPPED
    shares = [min(READERS_A_PROCESS, others - first) for first in range(0, others, READERS_A_PROCESS)]
    with (
        private_server(options=("--client-output-buffer-limit", f"pubsub {BUFFER_LIMIT}")) as server,
        redis.Redis.from_url(server.url, decode_responses=True) as client,
        Feed(server.url) as feed,
        reading_processes(server.url, [*shares, *[1] * STOPPED], SYMBOLS) as processes,
    ):
        going, stopped = processes[: len(shares)], processes[len(shares) :]
        began = time.time()
        feed.wait(SECONDS / 2)

        stop_at = time.time()
        for process in stopped:
            process.stop()
        feed.wait(SECONDS)
        wait_for(lambda: _subscribed(client) == others, 60, "the end of the stopped ones' connections")
        behind = _behind(server.url)
        wake_at = time.time()
        for process in stopped:
            process.wake()
        wait_for(lambda: all(process.wakings() for process in stopped), 40, "their waking")
        feed.wait(1)
        wait_for(lambda: _subscribed(client) == READERS, 10, "everyone's subscription")

        seen, late = [process.finish() for process in going], [process.finish() for process in stopped]
        _print_figures(seen, feed, stopped, (began, stop_at, wake_at))
        assert behind == sorted(process.pid for process in stopped)
        assert [(one.missed, one.reconnects, one.resets, one.wrong) for one in seen] == [(0, 0, 0, 0)] * len(seen)
        assert [(one.reconnects, one.resets, one.wrong, one.missed > 0) for one in late] == [(1, 0, 0, True)] * STOPPED
        for process in stopped:
            (waking,) = process.wakings()
            assert waking.called_live_but_old == 0
            assert waking.right_after <= RIGHT_AGAIN_LIMIT


def _subscribed(client: redis.Redis) -> int:
    return len(client.client_list(_type="pubsub"))


def _behind(url: str) -> list[int]:
    """The processes of those whom `list` calls stopped; it calls nobody else anything."""
    listed = CliRunner().invoke(app, ["list", "--json", "--redis", url])
    readers = [json.loads(line) for line in listed.stdout.splitlines()]
    assert len(readers) == READERS
    assert listed.exit_code == 1
    return sorted(int(reader["name"].rsplit("-", 2)[1]) for reader in readers if reader["state"] == "stopped")


def _print_figures(
    seen: Iterable[Summary], feed: Feed, stopped: Sequence[ReadingProcess], times: tuple[float, float, float]
) -> None:
    began, stop_at, wake_at = times
    ages = [age for one in seen for age in one.ages]
    for what, pairs in (("age of a book when it came", ages), ("server's answer to the feeder", feed.times)):
        before, during = (
            [seconds for at, seconds in pairs if start <= at < end]
            for start, end in ((began, stop_at), (stop_at, wake_at))
        )
        _write(f"{what}: before {_spread(before)}, while {len(stopped)} stood still {_spread(during)}")
    wakings = [waking for process in stopped for waking in process.wakings()]
    _write(f"right again after {', '.join(f'{waking.right_after:.3f}' for waking in wakings)} s")
    _write(f"stood still for {wakings[0].stood_still:.1f} s")


def _spread(seconds: list[float]) -> str:
    cuts = quantiles(seconds, n=100)
    return f"p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms of {len(seconds)}"


def _write(line: str) -> None:
    # The figures of a long run are read by a person.
    sys.stdout.write(line + "\n")
