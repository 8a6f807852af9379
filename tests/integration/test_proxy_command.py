"""The `proxy` command as a user runs it."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
import redis
import typer
from typer.testing import CliRunner

from bookbus.feeders.commands.proxy import proxy as proxy_command

LIMIT = 20.0


@pytest.fixture
def proxy(redis_url: str) -> Iterator[dict[str, str]]:
    """What a proxy before the server said when it was ready."""
    command = [sys.executable, "-m", "feeders", "proxy", redis_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())
        process.terminate()
        assert process.wait(LIMIT) == 0


def control(proxy: dict[str, str], path: str, body: str | None = None) -> tuple[int, dict[str, object]]:
    data = None if body is None else body.encode()
    request = urllib.request.Request(f"{proxy['control_url']}/control/{path}", data)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:  # noqa: S310
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_it_leads_to_the_server_and_is_cut_and_mended_by_its_control_endpoint(proxy: dict[str, str]) -> None:
    with redis.Redis.from_url(proxy["url"]) as client:
        assert client.ping()
        assert control(proxy, "network", '{"cut": true}') == (200, {"ok": True})
    with redis.Redis.from_url(proxy["url"], retry=None) as client, pytest.raises(redis.exceptions.ConnectionError):
        client.ping()
    control(proxy, "network", "{}")
    with redis.Redis.from_url(proxy["url"]) as client:
        assert client.ping()

    status, answer = control(proxy, "network")
    assert status == 200
    assert answer["connects"] == 2
    assert control(proxy, "reset", "")[0] == 200
    assert control(proxy, "network", '{"rain": 1}')[0] == 400
    assert control(proxy, "network", '{"latency": -1}')[0] == 400
    assert control(proxy, "weather")[0] == 404


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("somewhere", "name the target as HOST:PORT"),
        ("127.0.0.1:99999", "Port out of range"),
        ("rediss://127.0.0.1:6379", "an encrypted connection"),
    ],
)
def test_an_invalid_target_is_an_error_of_one_line(target: str, hint: str) -> None:
    command = typer.Typer()
    command.command()(proxy_command)

    result = CliRunner().invoke(command, [target])

    assert result.exit_code == 1
    assert hint in result.output
    assert len(result.output.splitlines()) == 1
