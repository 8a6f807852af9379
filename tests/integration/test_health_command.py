"""`python -m feeders health`, as a container's health check calls it."""

import socket
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from feeders.__main__ import app
from schemas.heartbeat import FeederHeartbeat, heartbeat_fields
from schemas.redis_names import RedisNames


def check(url: str, *options: str) -> tuple[int, str]:
    """Exit code and everything printed."""
    result = CliRunner().invoke(app, ["health", "--redis", url, *options])
    return result.exit_code, result.output


def beat(url: str, host: str, feeder: str = "a", prefix: str = "md") -> None:
    """A feeder on `host` says that it lives."""
    heartbeat = FeederHeartbeat(
        feeder=feeder, exchange="binance", endpoint="wss://x", states={}, host=host, pid=1, started_us=0, time_us=0
    )
    fields: dict[Any, Any] = {**heartbeat_fields(heartbeat)}
    with redis.Redis.from_url(url) as client:
        client.hset(RedisNames(prefix).feeder(feeder), mapping=fields)


def test_a_feeder_on_this_host_is_healthy(redis_url: str) -> None:
    beat(redis_url, socket.gethostname())

    assert check(redis_url) == (0, "md:feeder:a\n")


def test_no_feeder_is_not_healthy(redis_url: str) -> None:
    assert check(redis_url) == (1, f"error: no feeder on {socket.gethostname()} shows signs of life\n")


def test_feeders_of_other_hosts_and_prefixes_do_not_count(redis_url: str) -> None:
    beat(redis_url, "elsewhere")
    beat(redis_url, socket.gethostname(), prefix="paper")

    assert check(redis_url)[0] == 1
    assert check(redis_url, "--host", "elsewhere")[0] == 0
    assert check(redis_url, "--prefix", "paper")[0] == 0


def test_a_server_that_does_not_answer_is_one_line_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    code, output = check(f"redis://:secret@127.0.0.1:{port}/0")

    assert code == 1
    assert output.startswith(f"error: no answer from redis://:***@127.0.0.1:{port}/0")
    assert "secret" not in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("options", [["--prefix", "a:b"], ["--redis", "nonsense"]])
def test_an_option_that_makes_no_sense_is_one_line(redis_url: str, options: list[str]) -> None:
    code, output = check(redis_url, *options)

    assert code == 1
    assert output.startswith("error: ")
    assert output.count("\n") == 1
