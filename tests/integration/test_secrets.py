"""The password of the bus is in nothing that feeder and readers write, whatever goes wrong."""

import asyncio
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from bookbus.consumers.__main__ import make_app as make_consumers_app
from bookbus.feeders.__main__ import make_app as make_feeders_app
from bookbus.feeders.bus.connection import RedisConnectionError, open_connection
from bookbus.feeders.redis_server import free_port
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.schemas.redis_url import parse_redis_url
from tests.support.feeder_process import feeder_process
from tests.support.resp_server import Command, resp_server
from tests.support.runner_process import runner_process
from tests.support.server_with_users import ServerWithUsers, server_with_users
from tests.support.waiting import await_for

consumers_app = make_consumers_app()
feeders_app = make_feeders_app()

LIMIT = 30
PASSWORD = "Xq7-never-seen"  # noqa: S105 - of no server but the tests' own
EVERY_COMMAND = [
    (feeders_app, ["run", "--symbols", "BTC"]),
    (feeders_app, ["health"]),
    (feeders_app, ["audit"]),
    (consumers_app, ["show", "BTC"]),
    (consumers_app, ["tail", "BTC"]),
    (consumers_app, ["arbitrage"]),
    (consumers_app, ["list"]),
    (consumers_app, ["run", "--l2-source", "redis", "--symbols", "BTC"]),
]


def unused() -> str:
    return f"127.0.0.1:{free_port()}"


BAD_ADDRESSES = {
    "nobody there": f"redis://ada:{PASSWORD}@{unused()}/0",
    "nobody at the socket": f"unix://ada:{PASSWORD}@/nowhere/redis.sock",
    "no Sentinel there": f"redis+sentinel://ada:{PASSWORD}@{unused()}/books/0?sentinel_password={PASSWORD}",
    "a password in the options": f"redis://{unused()}/0?password={PASSWORD}",
    "no certificate there": f"rediss://ada:{PASSWORD}@{unused()}/0?ssl_ca_certs=/nowhere/ca.crt",
    "a slash in the password": f"redis://ada:{PASSWORD}/{PASSWORD}@{unused()}/0",
    "a mark in the password": f"redis://ada:#{PASSWORD}@{unused()}/0",
    "no scheme": f"ada:{PASSWORD}@{unused()}",
    "another scheme": f"http://ada:{PASSWORD}@{unused()}",
    "no port": f"redis://ada:{PASSWORD}@127.0.0.1:{PASSWORD}/0",
    "half an address": f"redis://ada:{PASSWORD}@[::1/0",
    "the password as name": f"redis://{PASSWORD}@{unused()}/0",
}


@pytest.mark.parametrize("what", BAD_ADDRESSES)
def test_no_command_repeats_the_password_of_an_address_that_fails(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outputs = {}
    with caplog.at_level("DEBUG"):
        for app, arguments in EVERY_COMMAND:
            environment = {"BOOKBUS_REDIS_URL": BAD_ADDRESSES[what], "BOOKBUS_OUTPUT_DIR": str(tmp_path)}
            result = CliRunner().invoke(app, arguments, env=environment)
            assert result.exit_code == 1, (arguments, result.output)
            outputs[" ".join(arguments)] = result.output + repr(result.exception)

    assert [command for command, output in outputs.items() if PASSWORD in output] == []
    assert [command for command, output in outputs.items() if "error: " not in output] == []
    assert PASSWORD not in caplog.text
    assert not any(PASSWORD in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def repeats(command: Command) -> Any:
    """What some servers answer to what they do not know."""
    return redis.ResponseError(f"ERR unknown command {b' '.join(command).decode()}")


async def test_nobody_tells_what_a_server_repeats_of_the_login(tmp_path: Path) -> None:
    async with resp_server(tmp_path, repeats) as server:
        url = server.url.replace("unix://", f"unix://ada:{PASSWORD}@")
        outputs = [
            (await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "--redis", url])).output
            for app, arguments in ((feeders_app, ["health"]), (consumers_app, ["show", "BTC"]))
        ]
        with pytest.raises(RedisConnectionError) as refused:
            await open_connection(parse_redis_url(url).servers[0])

    assert any(PASSWORD.encode() in command for command in server.commands)
    told = [*outputs, str(refused.value)]
    assert ["unknown command" in text for text in told] == [True] * 3, told
    assert [text for text in told if PASSWORD in text] == []


async def test_no_log_file_or_command_line_shows_a_password_through_outages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server dies and comes back, first with the same passwords, then with others."""
    monkeypatch.setenv("BOOKBUS_LOG_LEVEL", "debug")
    monkeypatch.setenv("PYTHONASYNCIODEBUG", "1")
    secrets, kept, out = tmp_path / "secrets", tmp_path / "kept", tmp_path / "run"
    with server_with_users(secrets) as guarded:
        kept.write_text(guarded.passwords["feeder"] + "\n")
        monkeypatch.setenv("BOOKBUS_REDIS_PASSWORD_FILE", str(kept))
        async with BinanceSimulator(symbols=["BTCUSDT"], seed=1, rate=10.0) as exchange:
            with feeder_process(
                guarded.url_without_password("feeder"), exchange.ws_url, exchange.rest_url, ["BTC"]
            ) as feeder:
                await await_for(lambda: "1 of 1 books live" in feeder.log, LIMIT, "a live book")
                monkeypatch.delenv("BOOKBUS_REDIS_PASSWORD_FILE")
                monkeypatch.setenv("BOOKBUS_REDIS_URL", guarded.url("runner"))
                with runner_process(out, "--l2-source", "redis", "--symbols", "BTC") as runner:
                    await await_for(lambda: runner.lines("decisions"), LIMIT, "a decision")
                    started = [command_line(process.pid) for process in (feeder.process, runner.process)]
                    guarded.server.kill()
                    await await_for(lambda: "reconnecting" in runner.log, LIMIT, "the runner's loss")
                    guarded.server.start()
                    await await_for(lambda: "connected to" in runner.log, LIMIT, "the runner's return")
                    await await_for(lambda: "answers again" in feeder.log, LIMIT, "the feeder's return")
                    give_other_passwords(secrets / "users.acl", guarded)
                    guarded.server.kill()
                    guarded.server.start()
                    await await_for(lambda: "WRONGPASS" in feeder.log, LIMIT, "the feeder's refusal")
                    await await_for(lambda: "WRONGPASS" in runner.log, LIMIT, "the runner's refusal")
                    runner.process.send_signal(signal.SIGINT)
                    runner.process.wait(LIMIT)
                    written = feeder.log + runner.log
    files = [path.read_text() for path in out.rglob("*") if path.is_file()]

    assert "DEBUG" in written
    assert files
    for password in guarded.passwords.values():
        assert [text for text in (written, *files, *started) if password in text] == []


def command_line(pid: int) -> str:
    """What everybody on the machine sees of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text()


def give_other_passwords(users: Path, guarded: ServerWithUsers) -> None:
    """From the server's next start on."""
    text = users.read_text()
    for password in guarded.passwords.values():
        digest = sha256(password.encode()).hexdigest()
        assert digest in text
        text = text.replace(digest, digest[::-1])
    users.write_text(text)
