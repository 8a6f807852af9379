"""A full disk and a lack of file descriptors end one duty or one attempt, never the books."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.recording import CaptureFile
from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.schemas.snapshot import BookStatus
from tests.support.feeder_process import FeederProcess, feeder_process
from tests.support.waiting import await_for, wait_for
from tests.support.writer import BusWriter


def heartbeat(client: "redis.Redis", field: str) -> Any:
    """A field of the only feeder's heartbeat."""
    (key,) = client.scan_iter(match="md:feeder:*")
    text: Any = client.hget(key, field)
    return json.loads(text or b"null")


def frames(client: "redis.Redis") -> int:
    return int(heartbeat(client, "counters")["frames"])


@contextmanager
def limit(pid: int, kind: int, value: int) -> Iterator[None]:
    """Lower a limit of a process for the block."""
    before = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (value, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, kind, before)


@pytest.mark.parametrize("name", ["frames.jsonl", "frames.jsonl.gz"])
async def test_a_full_disk_ends_the_recording_and_not_the_feeder(
    own_redis_server: LocalServer, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    async with BinanceSimulator(symbols=["BTCUSDT"], seed=1, rate=10.0) as exchange:
        where = own_redis_server.url, exchange.ws_url, exchange.rest_url, ["BTC"], "--record", str(path)
        with redis.Redis.from_url(own_redis_server.url) as client, feeder_process(*where) as feeder:
            await await_for(lambda: path.exists() and path.stat().st_size > 20_000, 30, "a recording")
            # Writing beyond this size fails, as on a disk that is full. The feeder's log is shorter.
            with limit(feeder.process.pid, resource.RLIMIT_FSIZE, 30_000):
                await await_for(lambda: heartbeat(client, "failed"), 15, "the end of the recording")
                counted = frames(client)
                await await_for(lambda: frames(client) > counted + 20, 10, "frames after it")

            assert heartbeat(client, "failed") == {"recording": "file too large"}
            assert heartbeat(client, "states") == {"BTC-USDT": "live"}
            assert feeder.log.count(f"the recording in {path} ended: file too large") == 1
            assert "Traceback" not in feeder.log
            assert feeder.stop() == 0

        with feeder_process(*where) as feeder, redis.Redis.from_url(own_redis_server.url) as client:
            second = tmp_path / name.replace("frames", "frames-2")
            await await_for(lambda: second.exists() and second.stat().st_size, 30, "a second recording")
            assert f"{path} exists: recording to {second}" in feeder.log
            assert feeder.stop() == 0
    assert list(CaptureFile(path))
    assert list(CaptureFile(second))


@pytest.mark.parametrize("target", ["no/such/directory/frames.jsonl", "file/frames.jsonl", "x" * 300])
async def test_a_feeder_that_cannot_record_publishes_books(
    own_redis_server: LocalServer, tmp_path: Path, target: str
) -> None:
    (tmp_path / "file").write_text("")
    async with BinanceSimulator(symbols=["BTCUSDT"], seed=1, rate=10.0) as exchange:
        with (
            redis.Redis.from_url(own_redis_server.url) as client,
            feeder_process(
                own_redis_server.url, exchange.ws_url, exchange.rest_url, ["BTC"], "--record", str(tmp_path / target)
            ) as feeder,
        ):
            await await_for(lambda: client.exists("md:book:binance:BTC-USDT"), 30, "a book")
            await await_for(lambda: list(client.scan_iter(match="md:feeder:*")), 5, "a heartbeat")

            assert set(heartbeat(client, "failed")) == {"recording"}
            assert feeder.log.count("cannot record to") == 1
            assert "Traceback" not in feeder.log


async def test_a_feeder_without_home_and_cache_publishes_books(
    own_redis_server: LocalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.delenv("HOME", raising=False)
    async with BinanceSimulator(symbols=["BTCUSDT"], seed=1, rate=10.0) as exchange:
        arguments = ["--redis", own_redis_server.url, "--ws-url", exchange.ws_url, "--rest-url", exchange.rest_url]
        feeder = FeederProcess(*arguments, "--symbols", "BTC", cache=str(tmp_path / "file" / "cache"))
        try:
            with redis.Redis.from_url(own_redis_server.url) as client:
                await await_for(lambda: client.exists("md:book:binance:BTC-USDT"), 30, "a book")
            assert feeder.log.count("cannot cache the instruments") == 1
            assert "Traceback" not in feeder.log
        finally:
            feeder.close()


async def test_a_feeder_without_file_descriptors_goes_on_when_there_are_some(own_redis_server: LocalServer) -> None:
    async with BinanceSimulator(symbols=["BTCUSDT"], seed=1, rate=10.0) as exchange:
        with (
            redis.Redis.from_url(own_redis_server.url) as client,
            feeder_process(own_redis_server.url, exchange.ws_url, exchange.rest_url, ["BTC"]) as feeder,
        ):
            await await_for(lambda: client.exists("md:book:binance:BTC-USDT"), 30, "a book")
            with limit(feeder.process.pid, resource.RLIMIT_NOFILE, 3):
                client.client_kill_filter(_type="normal", skipme=True)
                await await_for(lambda: "cannot write the heartbeat" in feeder.log, 15, "a failed heartbeat")
                assert feeder.process.poll() is None, feeder.log
            await await_for(lambda: list(client.scan_iter(match="md:feeder:*")), 15, "a heartbeat")
            counted = frames(client)
            await await_for(lambda: frames(client) > counted, 10, "frames after it")
            assert "Traceback" not in feeder.log


def test_a_reader_without_file_descriptors_reads_again_when_there_are_some(own_redis_server: LocalServer) -> None:
    with (
        redis.Redis.from_url(own_redis_server.url) as client,
        RedisMarketDataProvider(own_redis_server.url, "binance", ["BTC"]) as provider,
    ):
        writer = BusWriter(client)
        writer.update("BTC-USDT")
        wait_for(lambda: provider.read("BTC").status is BookStatus.LIVE, 10, "a live book")
        with limit(0, resource.RLIMIT_NOFILE, 3):
            client.client_kill_filter(_type="pubsub")
            wait_for(lambda: "too many open files" in provider.get_connection_status().error, 10, "the failure")
        wait_for(lambda: not provider.get_connection_status().error, 10, "a connection")
        writer.update("BTC-USDT")

        wait_for(lambda: provider.read("BTC").status is BookStatus.LIVE, 10, "a live book")
        assert provider.get_connection_status().thread_alive
