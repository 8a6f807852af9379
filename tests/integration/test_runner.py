"""The runner as a user starts it: exchange, feeder, Redis, runner."""

import asyncio
import gzip
import os
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from msgspec.structs import replace

from bookbus.consumers.paper.calibration.table import save_table
from bookbus.consumers.paper.calibration.tape import tape_hash
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.feeders.simulator.core.faults import Fault
from bookbus.schemas.capture import decode_frame, encode_frame
from tests.support.binance_capture import write_capture
from tests.support.calibrations import table, tape_info
from tests.support.feeder_process import feeder_process
from tests.support.runner_process import RunnerProcess, runner_process
from tests.support.tapes import SyntheticTape
from tests.support.waiting import await_for, wait_for

MAX_AGE = 2.0
LIMIT = 30


def entered(runner: RunnerProcess) -> int:
    return sum(decision["action"] == "enter" for decision in runner.lines("decisions"))


def makers(runner: RunnerProcess) -> list[dict[str, Any]]:
    return [fill for fill in runner.lines("fill_events") if fill["liquidity"] == "maker"]


def skipped(runner: RunnerProcess) -> set[str]:
    return {decision["reason"] for decision in runner.lines("decisions") if decision["action"] == "skip"}


async def test_a_runner_whose_feeder_dies_stops_says_why_and_goes_on_when_it_is_back(
    redis_url: str, tmp_path: Path
) -> None:
    async with BinanceSimulator(symbols=["BTCUSDT"], seed=3, rate=10.0) as exchange:
        addresses = (redis_url, exchange.ws_url, exchange.rest_url, ["BTCUSDT"])
        options = ("--redis", redis_url, "--l2-source", "redis", "--trade-interval", "0.5", "--max-age", f"{MAX_AGE}")
        with feeder_process(*addresses) as feeder:
            # A runner asks for live books when it starts.
            await await_for(lambda: "live" in feeder.log or feeder.process.poll() is not None, LIMIT, "a feeder")
            with runner_process(tmp_path, *options) as runner:
                await await_for(lambda: len(runner.lines("fill_events")) >= 4, LIMIT, "the first fills")
                feeder.signal(signal.SIGKILL)
                feeder.process.wait()
                killed_at = datetime.now(UTC)
                await await_for(lambda: bool(skipped(runner) & {"stale", "feeder_down"}), LIMIT, "a stale book")
                fills = runner.lines("fill_events")

                with feeder_process(*addresses):
                    before = entered(runner)
                    await await_for(lambda: entered(runner) >= before + 2, LIMIT, "trades after the restart")
                runner.process.send_signal(signal.SIGINT)
                code = runner.process.wait(LIMIT)

                kpi = runner.kpi()
                assert code == 130, runner.log
                last = max(datetime.fromisoformat(fill["timestamp"]) for fill in fills)
                # The last confirmation may be as old as the kill, and a step takes a tenth of a second.
                assert (last - killed_at).total_seconds() <= MAX_AGE + 0.5
                assert all(fill["book_age_ms"] <= MAX_AGE * 1e3 for fill in runner.lines("fill_events"))
                assert kpi["end_reason"] == "interrupted"
                assert set(kpi["orders_by_book_status"]) == {"live"}
                assert set(kpi["skipped_decisions"]) & {"stale", "feeder_down"}
                assert kpi["gaps"]["longest_seconds"] > 0


async def test_waiting_orders_are_filled_by_trades_from_the_bus(redis_url: str, tmp_path: Path) -> None:
    async with BinanceSimulator(symbols=["BTCUSDT"], seed=3, rate=10.0) as exchange:
        with feeder_process(
            redis_url, exchange.ws_url, exchange.rest_url, ["BTCUSDT"], "--topics", "book,trades"
        ) as feeder:
            await await_for(lambda: "live" in feeder.log or feeder.process.poll() is not None, LIMIT, "a feeder")
            options = ("--redis", redis_url, "--l2-source", "redis", "--trade-interval", "2", "--fill-model", "queue")
            with runner_process(tmp_path, *options, "--entry-bps-min", "0", "--sl-bps", "1000") as runner:
                await await_for(
                    lambda: makers(runner) or runner.process.poll() is not None, LIMIT, "a waiting order to be filled"
                )
                assert runner.process.poll() is None, runner.log
                maker = makers(runner)[0]
                assert maker["effective_price"] == maker["target_price"]
                assert maker["book_seq"] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--l2-source", "nonsense"), "--l2-source nonsense: use mock"),
        (("--l2-source", "capture:missing.jsonl"), "missing.jsonl"),
        (("--fill-model", "queue"), "no trades"),
        (("--fill-model", "nonsense"), "unknown fill model 'nonsense'"),
        (("--fill-model", "queue", "--l2-source", "multi"), "waits on one exchange"),
        (("--grid", "tp-bps=1,2"), "--grid goes over a recording"),
        (("--trade-interval", "0"), "--trade-interval"),
        (("--entry-bps-mode", "zone_random"), "--calibration-path"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    with runner_process(tmp_path, "--log-level", "error", *arguments) as runner:
        assert runner.process.wait(LIMIT) == 1
        (line,) = runner.log.splitlines()

    assert message in line
    assert line.startswith("error: ")


@pytest.mark.parametrize("more", [(), ("--grid", "tp-bps=6,12"), ("--fill-model", "calibrated")])
def test_a_recording_is_not_traded_on_with_the_table_it_made(tmp_path: Path, more: tuple[str, ...]) -> None:
    capture, path, results = tmp_path / "monday.jsonl.gz", tmp_path / "table.json", tmp_path / "results"
    write_capture(capture, SyntheticTape(1, seconds=10.0, entry_rate=0.8, exit_rate=1.2).events())
    tape = replace(tape_info("monday.jsonl.gz"), sha256=tape_hash(capture))
    save_table(table(tapes=(tape,)), path)
    options = ("--log-level", "error", "--l2-source", f"capture:{capture}", "--calibration-path", str(path))

    with runner_process(results, *options, *more) as runner:
        assert runner.process.wait(LIMIT) == 1
        assert runner.log == "error: the table was fitted on monday.jsonl.gz: monday.jsonl.gz cannot validate it\n"

    assert not results.exists()


def test_options_have_twins_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    twins = {"L2_SOURCE": "mock", "DURATION_SECONDS": "1", "TRADE_INTERVAL": "0.5", "SESSION_TAG": "twin"}
    for name, value in twins.items():
        monkeypatch.setenv(f"BOOKBUS_{name}", value)

    with runner_process(tmp_path) as runner:
        assert runner.process.wait(LIMIT) == 0, runner.log

    kpi = runner.kpi()
    assert kpi["session_id"].endswith("_twin")
    assert (kpi["settings"]["trade_interval"], kpi["end_reason"]) == (0.5, "duration")


async def test_reconnects_of_the_feeder_are_in_the_figures_of_a_run(redis_url: str, tmp_path: Path) -> None:
    async with BinanceSimulator(symbols=["BTCUSDT"], seed=3, rate=10.0) as exchange:
        addresses = (redis_url, exchange.ws_url, exchange.rest_url, ["BTCUSDT"])
        options = ("--redis", redis_url, "--l2-source", "redis", "--trade-interval", "0.5")
        with feeder_process(*addresses) as feeder, redis.Redis.from_url(redis_url) as client:
            await await_for(lambda: "live" in feeder.log or feeder.process.poll() is not None, LIMIT, "a feeder")

            def reconnects() -> int:
                (key,) = client.keys("md:feeder:*")
                return int(msgspec.json.decode(client.hget(key, "counters"))["reconnects"])

            announced = client.pubsub(ignore_subscribe_messages=True)
            announced.subscribe("md:feeders")
            heartbeats: list[object] = []

            async def two_more_heartbeats() -> None:
                """The runner counts from the first heartbeat that it hears, up to the last."""
                wanted, decided = len(heartbeats) + 2, len(runner.lines("decisions")) + 2

                def heard() -> bool:
                    heartbeats.extend(iter(lambda: announced.get_message(timeout=0), None))
                    return len(heartbeats) >= wanted and len(runner.lines("decisions")) >= decided

                await await_for(heard, LIMIT, "two heartbeats and two decisions")

            with runner_process(tmp_path, *options) as runner:
                await await_for(lambda: runner.lines("decisions"), LIMIT, "a decision")
                await two_more_heartbeats()
                exchange.inject(Fault(kind="reset"))
                await await_for(lambda: reconnects() >= 1, LIMIT, "a reconnect")
                await two_more_heartbeats()
                runner.process.send_signal(signal.SIGTERM)
                await asyncio.to_thread(runner.process.wait, LIMIT)

            assert runner.kpi()["reconnects"] == reconnects() >= 1


@pytest.mark.parametrize(
    ("number", "reason", "code"),
    [(signal.SIGTERM, "terminated", 0), (signal.SIGHUP, "terminated", 0), (signal.SIGINT, "interrupted", 130)],
)
@pytest.mark.parametrize("interval", ["0.001", "0.7"])
def test_a_signal_ends_a_run_within_a_long_hole_of_a_recording(
    tmp_path: Path, interval: str, number: signal.Signals, reason: str, code: int
) -> None:
    capture = tmp_path / "hole.jsonl.gz"
    tape = SyntheticTape(1, seconds=2.0, entry_rate=0.8, exit_rate=1.2)
    write_capture(capture, tape.events())
    last = decode_frame(gzip.decompress(capture.read_bytes()).splitlines()[-1])
    with gzip.open(capture, "ab") as file:
        file.write(encode_frame(replace(last, t=last.t + 6 * 86_400)))
    options = ("--log-level", "error", "--trade-interval", interval, "--l2-source", f"capture:{capture}")

    with runner_process(tmp_path / "results", *options, "--grid", "tp-bps=4,8,12,16,20") as runner:
        wait_for(
            lambda: any(path.stat().st_size > 100_000 for path in runner.directory.glob("decisions_*")),
            LIMIT,
            "decisions in the hole",
        )
        runner.process.send_signal(number)
        assert runner.process.wait(LIMIT) == code, runner.log

    ends = [msgspec.json.decode(path.read_bytes())["end_reason"] for path in (tmp_path / "results").glob("kpi_*.json")]
    assert ends == [reason] * 5


def test_a_recording_that_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with runner_process(tmp_path, "--log-level", "error", "--l2-source", f"capture:{tmp_path}/pipe") as runner:
        assert runner.process.wait(LIMIT) == 1
        (line,) = runner.log.splitlines()

    assert "a recording is a regular file" in line
