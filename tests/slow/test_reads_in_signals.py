"""Reads of every provider from signal handlers, from threads and after a fork, in a process of their own."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.support.writer import BusWriter

ROOT = Path(__file__).parents[2]
LIMIT = 90.0
KINDS = ["push", "pull", "direct", "mock", "multi"]


@contextmanager
def written_books(url: str) -> Iterator[None]:
    """A book that changes a thousand times a second."""
    stopping = threading.Event()
    with redis.Redis.from_url(url) as client:
        writer = BusWriter(client)

        def write() -> None:
            while not stopping.wait(0.001):
                writer.update("BTC-USDT")
                writer.heartbeat(["BTC-USDT"])

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stopping.set()
            thread.join(LIMIT)


def ran(url: str, what: str, kind: str) -> list[str]:
    """The lines that the process prints. It fails, with the stacks of its threads, where one waits for ever."""
    program = [sys.executable, "-m", "tests.support.reads_in_signals", what, kind, url]
    with written_books(url):
        done = subprocess.run(program, capture_output=True, text=True, timeout=LIMIT, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_handler_reads_while_it_interrupts_a_read(redis_url: str, kind: str) -> None:
    (handled,) = ran(redis_url, "signals", kind)

    assert int(handled) >= 20


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_handler_stops_a_provider_that_starts(redis_url: str, kind: str) -> None:
    assert ran(redis_url, "stops", kind) == ["20"]


@pytest.mark.parametrize("kind", ["push", "direct", "mock", "multi"])
def test_a_forked_process_is_told_that_its_reader_is_gone(redis_url: str, kind: str) -> None:
    reason = "this process was forked after the provider was started: start it again here"

    first, second, parents = ran(redis_url, "fork", kind)

    whose = "binance BTC-USDT is stale: " if kind == "multi" else ""
    assert first == f"stale|False|False|BTC: {whose}{reason}"
    assert (second, parents) == ("live", "live")
