"""The arbitrage command against a real bus."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
import redis

from tests.support.builders import book
from tests.support.writer import BusWriter

COMMAND = [sys.executable, "-m", "consumers", "arbitrage"]


@pytest.fixture
def url(redis_url: str) -> Iterator[str]:
    """A bus on which Upbit sells at 99,000 USDT what Binance buys at 99,400."""
    with redis.Redis.from_url(redis_url) as client:
        writer = BusWriter(client)
        writer.submit(book("BTC-USDT", bids=((99_400.0, 0.3),), asks=((99_401.0, 1.0),)))
        writer.submit(book("BTC-KRW", exchange="upbit", bids=((138_459_000.0, 1.0),), asks=((138_600_000.0, 0.5),)))
        writer.submit(book("USDT-KRW", exchange="upbit", bids=((1400.0, 10_000.0),), asks=((1401.0, 10_000.0),)))
        with writer.confirming():
            yield redis_url


def test_one_reading_as_json(url: str) -> None:
    # The books were confirmed but once: how long the command takes to start must not matter.
    limits = ["--max-age", "600", "--fx-max-age", "600", "--max-skew", "600"]

    done = subprocess.run(
        [*COMMAND, "--once", "--json", "--symbols", "BTC,XRP", "--redis", url, *limits],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    found = {one["symbol"]: one for one in map(json.loads, done.stdout.splitlines())}
    assert found["BTC-USDT"]["net_bps"] == pytest.approx(251.1 / 99_000 * 1e4)
    assert (found["BTC-USDT"]["actionable"], found["BTC-USDT"]["size"]) == (True, 0.3)
    assert found["XRP-USDT"]["reason"].startswith("binance XRP-USDT is missing")
    assert done.stderr == ""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_without_a_traceback(url: str, number: signal.Signals, code: int) -> None:
    with subprocess.Popen(
        [*COMMAND, "--json", "--redis", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["symbol"] == "BTC-USDT"
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()

    assert (process.returncode, errors) == (code, "")
