"""Strategies as a user starts them: on the bus, on direct connections and through a recording, unchanged."""

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bookbus.feeders.simulator.process import SimulatorProcess
from tests.support.captures import capture_path
from tests.support.documents import ROOT, block
from tests.support.feeder_process import feeder_process
from tests.support.waiting import await_for

LIMIT = 60.0
STRATEGIES = ("two_sided_quoter", "two_leg_arbitrage")


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "consumers", "paper", "--output-dir", str(directory), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT * 2,
        check=False,
    )


def figures(directory: Path) -> dict[str, dict[str, Any]]:
    """The figures of each strategy of a run, by its name."""
    found = [msgspec.json.decode(path.read_bytes()) for path in directory.glob("strategy_*.json")]
    return {one["strategy"].rpartition(":")[2]: one for one in found}


@pytest.fixture
def strategies(tmp_path: Path) -> list[str]:
    """Options of three strategies: the documented one and those shipped."""
    path = tmp_path / "my_bot.py"
    path.write_text(block("docs/how-to/write-a-strategy.md", "python"))
    names = [f"{path}:Imbalance", *STRATEGIES]
    options = [word for name in names for word in ("--strategy", name)]
    return [*options, *("--set", "threshold=0.5", "--set", "hold=1", "--set", "half_spread_bps=0.1")]


def assert_traded(found: dict[str, dict[str, Any]], traders: Sequence[str]) -> None:
    assert {one["error"] for one in found.values()} == {""}
    assert set(found) == {"Imbalance", *STRATEGIES}
    for name in traders:
        orders = found[name]["orders"]
        assert orders.get("accepted", 0) > 0, found[name]


async def test_strategies_run_on_the_bus(redis_url: str, tmp_path: Path, strategies: list[str]) -> None:
    with SimulatorProcess(["BTCUSDT", "ETHUSDT"], exchange="binance") as exchange:
        arguments = (redis_url, exchange.ws_url, exchange.rest_url, ["BTCUSDT", "ETHUSDT"], "--topics", "book,trades")
        with feeder_process(*arguments) as feeder:
            await await_for(lambda: "live" in feeder.log or feeder.process.poll() is not None, LIMIT, "a feeder")
            options = ("--l2-source", "redis", "--redis", redis_url, "--symbols", "BTC,ETH", "--duration-seconds", "8")
            done = await asyncio.to_thread(run, tmp_path, *options, "--inventory-notional", "1000", *strategies)

    assert done.returncode == 0, done.stderr
    found = figures(tmp_path)
    assert_traded(found, ["two_sided_quoter"])
    assert found["two_sided_quoter"]["trades_seen"] > 0
    assert found["two_sided_quoter"]["end_reason"] == "duration"


async def test_arbitrage_runs_over_two_exchanges_on_the_bus(redis_url: str, tmp_path: Path) -> None:
    with (
        SimulatorProcess(["BTCUSDT"], exchange="binance") as binance,
        SimulatorProcess(["BTCUSDT"], exchange="bybit") as bybit,
        feeder_process(redis_url, binance.ws_url, binance.rest_url, ["BTCUSDT"]) as one,
        feeder_process(redis_url, bybit.ws_url, bybit.rest_url, ["BTCUSDT"], "--exchange", "bybit") as other,
    ):
        for feeder in (one, other):
            await await_for(lambda feeder=feeder: "live" in feeder.log, LIMIT, "a feeder")  # type: ignore[misc]
        options = ("--l2-source", "redis", "--redis", redis_url, "--exchange", "binance,bybit", "--fees", "bybit=1")
        more = ("--strategy", "two_leg_arbitrage", "--set", "edge_bps=-20", "--inventory-notional", "1000")
        done = await asyncio.to_thread(run, tmp_path, *options, *more, "--duration-seconds", "5")

    assert done.returncode == 0, done.stderr
    (found,) = figures(tmp_path).values()
    assert [one["symbol"] for one in found["symbols"]] == ["binance:BTC-USDT", "bybit:BTC-USDT"]
    assert set(found["balances"]) == {"binance", "bybit"}
    assert found["error"] == ""
    assert found["orders"]["accepted"] >= 2


def test_strategies_run_on_a_direct_connection(tmp_path: Path, strategies: list[str]) -> None:
    with SimulatorProcess(["BTCUSDT", "ETHUSDT"], exchange="binance") as exchange:
        urls = ("--binance-ws-url", exchange.ws_url, "--binance-rest-url", exchange.rest_url)
        options = ("--l2-source", "binance", "--symbols", "BTC,ETH", "--duration-seconds", "8", *urls)
        done = run(tmp_path, *options, *strategies)

    assert done.returncode == 0, done.stderr
    assert_traded(figures(tmp_path), ["Imbalance", "two_sided_quoter"])


def test_strategies_run_through_a_recording_twice_alike(tmp_path: Path, strategies: list[str]) -> None:
    with SimulatorProcess(["BTCUSDT", "ETHUSDT"], exchange="binance") as exchange:
        tape = tmp_path / "tape.jsonl.gz"
        recorded = subprocess.run(
            [
                *(sys.executable, "-m", "feeders", "record"),
                *("--ws-url", exchange.ws_url, "--rest-url", exchange.rest_url, "--symbols", "BTC,ETH"),
                *("--topics", "book,trades", "--seconds", "10", "--out", str(tape)),
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )
    assert recorded.returncode == 0, recorded.stderr
    runs = [
        run(tmp_path / name, "--l2-source", f"capture:{tape}", "--symbols", "BTC,ETH", *strategies) for name in "ab"
    ]

    assert [done.returncode for done in runs] == [0, 0], runs[0].stderr
    first, second = (figures(tmp_path / name) for name in "ab")
    assert_traded(first, ["two_sided_quoter"])
    assert {name: one["orders_sha256"] for name, one in first.items()} == {
        name: one["orders_sha256"] for name, one in second.items()
    }


def test_documented_example_trades_on_a_real_recording(tmp_path: Path, strategies: list[str]) -> None:
    tape = capture_path("binance_20240808_btc_eth_long")

    done = run(
        tmp_path, "--l2-source", f"capture:{tape}", "--symbols", "BTC,ETH", "--duration-seconds", "60", *strategies
    )

    assert done.returncode == 0, done.stderr
    assert figures(tmp_path)["Imbalance"]["orders"]["filled"] > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--strategy", "nonsense"), "write file.py:Class"),
        (("--strategy", "nowhere.py:Bot"), "there is no file nowhere.py"),
        (("--strategy", "two_sided_quoter", "--set", "size=1"), "no strategy of this run has it"),
        (("--strategy", "two_sided_quoter", "--latency", "soon"), "--latency soon"),
        (("--strategy", "two_sided_quoter", "--l2-source", "nonsense"), "--l2-source nonsense: use mock"),
        (("--strategy", "two_sided_quoter", "--cash", "-1"), "--cash -1.0: give a number above 0"),
        (("--strategy", "two_sided_quoter", "--fees", "upbit=1"), "upbit"),
        (("--strategy", "two_sided_quoter", "--tp-bps", "5"), "--tp-bps is an option of runs without --strategy"),
        (("--set", "size=1"), "--set is for the parameters of a --strategy"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run(tmp_path, "--log-level", "error", *arguments)

    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr


def test_crash_is_told_with_its_traceback_and_the_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "crashing.py"
    path.write_text(
        "from bookbus import Strategy\n\n\n"
        "class Crashing(Strategy):\n"
        "    timer: float = 0.2\n\n"
        "    def on_timer(self, ctx):\n"
        "        raise RuntimeError('mistake')\n"
    )

    done = run(tmp_path, "--strategy", f"{path}:Crashing", "--strategy", "two_sided_quoter", "--duration-seconds", "1")

    assert done.returncode == 1
    assert "line 8, in on_timer\n    raise RuntimeError" in done.stderr
    found = figures(tmp_path)
    assert (found["Crashing"]["end_reason"], found["two_sided_quoter"]["end_reason"]) == ("crashed", "duration")
