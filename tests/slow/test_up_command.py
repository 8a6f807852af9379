"""`bookbus up`, `status` and `down` on real processes: server, simulated exchange, feeder."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bookbus.feeders.redis_server import free_port
from tests.support.waiting import wait_for

CONFIGURATION = """
[redis]
url = "redis://127.0.0.1:{redis}/0"

[programs.server]
command = ["redis", "--port", "{redis}"]

[programs.exchange]
command = ["simulate", "--exchange", "binance", "--port", "{ws}", "--rest-port", "{rest}"]

[feeders.binance]
symbols = ["BTC", "ETH"]
ws_url = "ws://127.0.0.1:{ws}"
rest_url = "http://127.0.0.1:{rest}"
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    ports = {name: free_port() for name in ("redis", "ws", "rest")}
    (tmp_path / "bookbus.toml").write_text(CONFIGURATION.format(**ports))
    yield tmp_path
    run(tmp_path, "down")


def run(directory: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bookbus", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(directory / "cache")} | environment,
    )


def parts(directory: Path) -> dict[str, dict[str, Any]]:
    lines = run(directory, "status", "--json").stdout.splitlines()
    return {one["name"]: one for one in map(json.loads, lines)}


def live_books(directory: Path) -> list[str]:
    lines = run(directory, "books", "--json").stdout.splitlines()
    return [one["symbol"] for one in map(json.loads, lines) if one["state"] == "live"]


def test_what_the_file_names_runs_and_a_killed_feeder_comes_back(directory: Path) -> None:
    up = run(directory, "up", "--detach")

    assert (up.returncode, up.stderr) == (0, "")
    assert [line.split()[0] for line in up.stdout.splitlines()] == ["server", "exchange", "binance"]
    wait_for(lambda: live_books(directory) == ["BTC-USDT", "ETH-USDT"], 60)
    status = run(directory, "status")
    assert (status.returncode, status.stdout.count("running")) == (0, 3)
    assert "runs already" in run(directory, "up").stderr

    first = parts(directory)["binance"]["pid"]
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: parts(directory)["binance"]["restarts"] == 1, 60)
    wait_for(lambda: parts(directory)["binance"]["state"] == "running", 60)
    assert parts(directory)["binance"]["reason"].startswith("signal SIGKILL")
    wait_for(lambda: live_books(directory) == ["BTC-USDT", "ETH-USDT"], 60)

    pids = [one["pid"] for one in parts(directory).values()]
    down = run(directory, "down")
    assert (down.returncode, down.stdout) == (0, "ended: server, exchange, binance\n")
    assert [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()] == []
    after = run(directory, "status")
    assert after.returncode == 1
    assert after.stderr.endswith("runs: start it with bookbus up\n")
    assert run(directory, "down").stdout == "nothing was running\n"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signal_in_the_foreground_ends_every_part(directory: Path, number: int, code: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bookbus", "up"],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as up:
        wait_for(lambda: [one["state"] for one in parts(directory).values()] == ["running"] * 3, 60)
        pids = [one["pid"] for one in parts(directory).values()]
        up.send_signal(number)
        said, complaints = up.communicate(timeout=60)

    assert (up.returncode, complaints) == (code, "")
    assert said.splitlines()[-1] == "all parts ended"
    assert [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists()] == []


def test_part_that_fails_is_named_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "bookbus.toml").write_text('[redis]\nurl = "redis://127.0.0.1:1/0"\n[feeders.binance]')
    try:
        up = run(tmp_path, "up", "--detach")
        wait_for(lambda: parts(tmp_path)["binance"]["state"] == "waiting", 60)
        status = run(tmp_path, "status")
    finally:
        run(tmp_path, "down")

    assert up.returncode == 0
    assert status.returncode == 2
    assert "exit code 1: error: no Redis at redis://127.0.0.1:1/0" in status.stdout


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names nothing to run: add a feeder, [feeders.binance]"),
        ("[feeders.binance]\ndepht = 1", "feeders.binance.depht: no such setting; did you mean depth?"),
    ],
)
def test_file_that_is_wrong_starts_nothing(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "bookbus.toml").write_text(text)

    up = run(tmp_path, "up")

    assert up.returncode == 1
    assert up.stderr.endswith(f"{reason}\n")
    assert not (tmp_path / ".bookbus").exists()


def test_no_file_says_how_to_make_one(tmp_path: Path) -> None:
    refused = run(tmp_path, "up")

    assert refused.returncode == 1
    assert refused.stderr.startswith("error: no bookbus.toml here: name one with --config, or write one")


def test_variable_that_would_make_all_feeders_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bookbus.toml").write_text("[feeders.binance]\n[feeders.upbit]")

    refused = run(tmp_path, "up", BOOKBUS_EXCHANGE="bybit")

    assert refused.returncode == 1
    assert "BOOKBUS_EXCHANGE in the environment would make all feeders of the file one" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "environment", "server"),
    [
        ((), {}, "redis://127.0.0.1:3/0"),
        ((), {"BOOKBUS_REDIS_URL": "redis://127.0.0.1:2/0"}, "redis://127.0.0.1:2/0"),
        (("--redis", "redis://127.0.0.1:1/0"), {"BOOKBUS_REDIS_URL": "redis://127.0.0.1:2/0"}, "redis://127.0.0.1:1/0"),
        (("--redis", "redis://127.0.0.1:1/0"), {}, "redis://127.0.0.1:1/0"),
    ],
)
@pytest.mark.parametrize("word", ["feed", "books", "health"])
def test_option_wins_over_environment_and_that_over_the_file(
    tmp_path: Path, word: str, arguments: tuple[str, ...], environment: dict[str, str], server: str
) -> None:
    (tmp_path / "bookbus.toml").write_text('[redis]\nurl = "redis://127.0.0.1:3/0"\n[feeders.binance]')

    refused = run(tmp_path, word, *arguments, **environment)

    assert refused.returncode == 1
    assert server in refused.stderr


def test_default_counts_without_a_file_and_another_file_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text('[redis]\nurl = "redis://127.0.0.1:4/0"')

    named = run(tmp_path, "--config", "other.toml", "health")
    wrong = run(tmp_path, "--config=none.toml", "health")

    assert "127.0.0.1:4" in named.stderr
    assert wrong.stderr == "error: cannot read none.toml: No such file or directory\n"


def test_password_is_read_from_the_file_that_the_configuration_names(tmp_path: Path) -> None:
    (tmp_path / "bookbus.toml").write_text('[redis]\nurl = "redis://u@127.0.0.1:1/0"\npassword_file = "missing"')

    refused = run(tmp_path, "health")

    assert refused.stderr == (
        f"error: cannot read BOOKBUS_REDIS_PASSWORD_FILE {tmp_path}/missing: No such file or directory\n"
    )


def test_check_prints_what_the_file_means(directory: Path) -> None:
    checked = run(directory, "config", "check", BOOKBUS_DEPTH="7")
    variables = run(directory, "config", "env", "binance")

    assert checked.returncode == 0
    assert "feeder binance: binance BTC,ETH" in checked.stdout.splitlines()
    assert "BOOKBUS_SYMBOLS=BTC,ETH" in variables.stdout.splitlines()
    assert run(directory, "config", "env", "nobody").returncode == 1
