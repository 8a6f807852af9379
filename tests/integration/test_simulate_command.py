"""The `simulate` command as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest

LIMIT = 20.0


def simulate(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "feeders", "simulate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_it_prints_its_addresses_serves_and_ends_on_ctrl_c() -> None:
    with simulate("--levels", "100", BOOKBUS_SYMBOLS="3") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with urllib.request.urlopen(f"{ready['rest_url']}/api/v3/depth?symbol=BNBUSDT", timeout=LIMIT) as answer:  # noqa: S310
            depth = json.load(answer)
        process.send_signal(signal.SIGINT)
        code = process.wait(LIMIT)

    assert ready["symbols"] == ["BTCUSDT", "ETHUSDT", "BNBUSDT"]
    assert len(depth["bids"]) == 100
    assert code == 130


def test_a_fault_given_at_the_start_waits_for_what_it_strikes() -> None:
    with simulate("--levels", "100", "--fault", '{"kind":"drop","count":9}', "--fault", "ack_lost") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with urllib.request.urlopen(f"{ready['rest_url']}/control/status", timeout=LIMIT) as answer:  # noqa: S310
            waiting = json.load(answer)["faults_waiting"]
        process.terminate()
        code = process.wait(LIMIT)

    assert waiting == ["drop", "ack_lost"]
    assert code == 0


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--fault", "rain"], "unknown fault 'rain'"),
        (["--fault", "{"], "--fault {: "),
        (["--rate", "11"], "rate must be between 0 and 10"),
        (["--exchange", "nowhere"], "no simulator for 'nowhere'"),
        (["--snapshot-mode", "psychic"], "snapshot_mode"),
        (["--symbols", ","], "no symbol given"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(arguments: list[str], hint: str) -> None:
    with simulate(*arguments) as process:
        output, errors = process.communicate(timeout=LIMIT)

    assert process.returncode == 1
    assert output == ""
    assert hint in errors
    assert errors.count("\n") == 1
