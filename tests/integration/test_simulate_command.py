"""The `simulate` command as a user runs it."""

import json
import os
import signal
import subprocess
import sys
import urllib.request

import pytest
import typer
from typer.testing import CliRunner

from bookbus.feeders.commands.simulate import simulate as simulate_command

LIMIT = 20.0


def simulate(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "feeders", "simulate", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def test_it_prints_its_addresses_serves_plays_its_faults_and_ends_on_ctrl_c() -> None:
    faults = ("--fault", '{"kind":"drop","count":9}', "--fault", "ack_lost")
    with simulate("--levels", "100", *faults, BOOKBUS_SYMBOLS="3") as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        with urllib.request.urlopen(f"{ready['rest_url']}/api/v3/depth?symbol=BNBUSDT", timeout=LIMIT) as answer:  # noqa: S310
            depth = json.load(answer)
        with urllib.request.urlopen(f"{ready['rest_url']}/control/status", timeout=LIMIT) as answer:  # noqa: S310
            waiting = json.load(answer)["faults_waiting"]
        process.send_signal(signal.SIGINT)
        code = process.wait(LIMIT)

    assert ready["symbols"] == ["BTCUSDT", "ETHUSDT", "BNBUSDT"]
    assert len(depth["bids"]) == 100
    assert waiting == ["drop", "ack_lost"]
    assert code == 130


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
def test_an_invalid_option_is_an_error_of_one_line(arguments: list[str], hint: str) -> None:
    command = typer.Typer()
    command.command()(simulate_command)

    result = CliRunner().invoke(command, arguments)

    assert result.exit_code == 1
    assert result.stdout == ""
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1
