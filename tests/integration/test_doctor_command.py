"""`bookbus doctor` on set-ups that are wrong on purpose: each is found, with what to change."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from bookbus.doctor import ask_server, judge_server
from bookbus.feeders.redis_server import LocalServer, free_port
from bookbus.feeders.simulator.process import SimulatorProcess
from tests.support.resp_server import RespServer
from tests.support.server_with_users import server_with_users

GOOD = ("--client-output-buffer-limit", "pubsub 8mb 2mb 5")


def run(
    directory: Path, *arguments: str, files: int = 4096, **environment: str
) -> tuple[int, dict[tuple[str, str], str], str]:
    """Exit code, the remedy of each finding by its level and subject, and everything printed."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    done = subprocess.run(
        [sys.executable, "-m", "bookbus", "doctor", "--json", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"XDG_CACHE_HOME": str(directory / "cache")} | environment,
        preexec_fn=limit,
    )
    findings: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    found = {(one["level"], one["subject"]): one["remedy"] for one in findings if one["level"] != "ok"}
    return done.returncode, found, done.stdout + done.stderr


def test_good_setup_has_no_fault(tmp_path: Path, own_redis_server: LocalServer) -> None:
    with SimulatorProcess(["BTCUSDT"]) as exchange:
        (tmp_path / "bookbus.toml").write_text(
            f'[redis]\nurl = "{own_redis_server.url}"\n[feeders.binance]\nws_url = "{exchange.ws_url}"\n'
            f'rest_url = "{exchange.rest_url}"'
        )
        with redis.Redis.from_url(own_redis_server.url) as client:
            client.config_set("client-output-buffer-limit", "pubsub 8mb 2mb 5")
        code, found, said = run(tmp_path)

    assert found == {}
    assert code == 0
    assert "exchange binance" in said


def test_no_server(tmp_path: Path) -> None:
    code, found, _ = run(tmp_path, "--redis", f"redis://127.0.0.1:{free_port()}/0")

    assert code == 1
    assert "bookbus redis --shared" in found["wrong", "server"]


def test_wrong_and_missing_password(tmp_path: Path) -> None:
    with server_with_users(tmp_path) as users:
        url = users.url_without_password("feeder")
        wrong = run(tmp_path, "--redis", url, BOOKBUS_REDIS_PASSWORD=users.passwords["feeder"][::-1])
        missing = run(tmp_path, "--redis", f"redis://127.0.0.1:{users.server.port}/0")
        right = run(tmp_path, "--redis", url, BOOKBUS_REDIS_PASSWORD=users.passwords["feeder"])
        reader = run(
            tmp_path, "--redis", url.replace("feeder", "runner"), BOOKBUS_REDIS_PASSWORD=users.passwords["runner"]
        )

    for code, found, said in (wrong, missing):
        assert code == 1
        assert "BOOKBUS_REDIS_PASSWORD" in found["wrong", "login"]
        assert users.passwords["feeder"][::-1] not in said
    assert [key for key in right[1] if key[0] == "wrong"] == []
    assert ("advice", "rights") in reader[1]


@pytest.mark.parametrize(
    ("options", "level", "subject", "remedy"),
    [
        (("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru", *GOOD), "wrong", "eviction", "noeviction"),
        (("--client-output-buffer-limit", "pubsub 64kb 32kb 5"), "wrong", "output limit", "pubsub 8mb 2mb 5"),
        (("--protected-mode", "no", *GOOD), "wrong", "protection", "protected-mode yes"),
        (("--maxmemory", "1mb", *GOOD), "wrong", "memory", "raise maxmemory"),
    ],
)
def test_wrong_setting(tmp_path: Path, options: Sequence[str], level: str, subject: str, remedy: str) -> None:
    with LocalServer(options=options) as server:
        code, found, _ = run(tmp_path, "--redis", server.url)

    assert code == 1
    assert remedy in found[level, subject]


def test_replica(tmp_path: Path, own_redis_server: LocalServer) -> None:
    with LocalServer(options=("--replicaof", f"127.0.0.1 {own_redis_server.port}", *GOOD)) as replica:
        code, found, _ = run(tmp_path, "--redis", replica.url)

    assert code == 1
    assert "primary" in found["wrong", "role"]


async def answers(path: Path, name: bytes, reply: Any) -> list[tuple[str, str]]:
    """What is found at a server that gives this reply to one command."""
    server = RespServer(path)

    def answer(command: list[bytes]) -> Any:
        if command[0] == b"CONFIG":
            return []
        return reply if command[0] == name else server.answer_by_fakeredis(command)

    server.answer = answer
    await server.start()
    try:
        findings = judge_server(await ask_server(server.url))
    finally:
        await server.stop()
    return [(one.level, one.subject) for one in findings]


@pytest.mark.parametrize("version", ["5.0.7", "6.0.20", "2.8.24"])
def test_old_version(tmp_path: Path, version: str) -> None:
    info = f"# Server\r\nredis_version:{version}\r\nrole:master\r\n".encode()

    assert ("wrong", "server") in asyncio.run(answers(tmp_path / "s", b"INFO", info))


@pytest.mark.parametrize(("ahead", "level"), [(-3600.0, "wrong"), (10.0, "wrong"), (0.8, "advice"), (0.0, "ok")])
def test_clock_of_the_server(tmp_path: Path, ahead: float, level: str) -> None:
    seconds, part = divmod(time.time() + ahead, 1)
    reply = [str(int(seconds)).encode(), str(int(part * 1e6)).encode()]

    assert (level, "clock") in asyncio.run(answers(tmp_path / "s", b"TIME", reply))


def test_unwritable_cache_and_few_files(tmp_path: Path, own_redis_server: LocalServer) -> None:
    (tmp_path / "file").write_text("")

    code, found, _ = run(
        tmp_path, "--redis", own_redis_server.url, files=200, XDG_CACHE_HOME=str(tmp_path / "file" / "cache")
    )

    assert code == 1
    assert "XDG_CACHE_HOME" in found["wrong", "directory"]
    assert "ulimit -n" in found["wrong", "open files"]


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("[feeders.kraken]", "configuration"),
        ("[feeders.binance]\ndepht = 2", "configuration"),
        ('[feeders.binance]\nrest_url = "http://127.0.0.1:1"\nws_url = "ws://127.0.0.1:1"', "exchange binance"),
    ],
)
def test_wrong_file(tmp_path: Path, own_redis_server: LocalServer, text: str, subject: str) -> None:
    (tmp_path / "bookbus.toml").write_text(text)

    code, found, _ = run(tmp_path, "--redis", own_redis_server.url)

    assert code == 1
    assert ("wrong", subject) in found


def test_exchange_that_is_not_known(tmp_path: Path, own_redis_server: LocalServer) -> None:
    code, found, _ = run(tmp_path, "--redis", own_redis_server.url, "--exchange", "kraken")

    assert (code, ("wrong", "exchange") in found) == (1, True)


def test_text_says_what_to_change(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bookbus", "doctor", "--redis", "redis://127.0.0.1:1/0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert "wrong   server: redis://127.0.0.1:1/0: connection refused\n        -> start one: " in done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 wrong, ")
