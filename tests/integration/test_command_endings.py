"""Commands end in one line, or in none, whatever happens to them: early signals, odd terminals, odd environments."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.support.runner_process import runner_process
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

ROOT = Path(__file__).parents[2]
LIMIT = 30.0

INTERRUPTED = """
import os, signal, sys, threading, time
from bookbus.{package}.__main__ import main
ready = threading.Event()

def interrupt():
    ready.wait()
    time.sleep({delay})
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=interrupt, daemon=True).start()
ready.set()
main()
"""


@pytest.mark.parametrize("delay", [0.03, 0.05, 0.1, 0.2, 0.3, 0.5])
@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        ("feeders", ["run"]),
        ("feeders", ["simulate"]),
        ("feeders", ["--help"]),
        ("consumers", ["tail", "BTC"]),
        ("consumers", ["run", "--trade-interval", "0.1"]),
    ],
)
def test_an_early_interrupt_leaves_no_traceback(
    redis_url: str, tmp_path: Path, package: str, arguments: list[str], delay: float
) -> None:
    program = INTERRUPTED.format(package=package, delay=delay)
    environment = os.environ | {"BOOKBUS_REDIS_URL": redis_url, "BOOKBUS_OUTPUT_DIR": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        cwd=ROOT,
        env=environment,
        check=False,
    )

    assert "Traceback" not in done.stderr
    assert done.returncode == 130 or arguments == ["--help"], done.stderr


def test_a_hangup_ends_a_run_like_sigterm(tmp_path: Path) -> None:
    with runner_process(tmp_path, "--trade-interval", "0.1") as runner:
        wait_for(lambda: runner.lines("decisions"), LIMIT, "a decision")
        runner.process.send_signal(signal.SIGHUP)

        assert runner.process.wait(LIMIT) == 0
        assert runner.kpi()["end_reason"] == "terminated"


COMMANDS = {
    "show": ("show", "BTC"),
    "show --json": ("show", "BTC", "--json"),
    "tail": ("tail", "BTC"),
    "tail --json": ("tail", "BTC", "--json"),
    "arbitrage": ("arbitrage", "--symbols", "BTC", "--once"),
}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp949", "utf-8"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_of_another_encoding_ends_no_command(redis_url: str, command: str, encoding: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        writer = BusWriter(client, feeder="фидер-ß-피더")
        writer.update("BTC-USDT", exchange="binance")
        writer.heartbeat(["BTC-USDT"])
        with writer.confirming():
            environment = os.environ | {"BOOKBUS_REDIS_URL": redis_url, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
            process = subprocess.Popen(
                [sys.executable, "-m", "consumers", *COMMANDS[command]],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            try:
                assert process.stdout is not None
                first = process.stdout.readline()
                if command.startswith("tail"):
                    process.send_signal(signal.SIGTERM)
                rest, errors = process.communicate(timeout=LIMIT)
            finally:
                process.kill()

    assert b"Traceback" not in errors
    assert (b"arbitrage" if command == "arbitrage" else b"BTC") in first + rest
    # `show` says by its exit code that the book is live; `tail` was ended by SIGTERM.
    assert process.returncode == 0


@pytest.mark.parametrize("value", ["10m", "", "0", "-1", "nan", "inf"])
def test_an_odd_interval_of_listings_ends_run_alone(value: str) -> None:
    environment = os.environ | {"BOOKBUS_LISTINGS_INTERVAL": value, "BOOKBUS_REDIS_URL": "redis://127.0.0.1:1/0"}

    def ran(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)

    assert ran("feeders", "--help").returncode == ran("consumers", "--help").returncode == 0
    assert ran("feeders", "health").stderr.startswith("error: no reply from")
    run = ran("feeders", "run")
    assert (run.returncode, run.stderr) == (
        1,
        f"error: BOOKBUS_LISTINGS_INTERVAL {value}: use a number of seconds above zero\n",
    )
