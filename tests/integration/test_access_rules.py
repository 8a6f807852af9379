"""The users of `make acl` have the rights that feeders and readers need, and no others."""

import asyncio
import os
import re
import shlex
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
from typing import IO

import pytest
import redis
import typer
from typer.testing import CliRunner, Result

from bookbus.consumers.__main__ import make_app as make_consumers_app
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.__main__ import make_app as make_feeders_app
from bookbus.feeders.commands.acl import ROLES
from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.schemas.snapshot import BookStatus
from tests.support.feeder_process import feeder_process
from tests.support.server_with_users import ServerWithUsers, generate, server_with_users
from tests.support.waiting import await_for

consumers_app = make_consumers_app()
feeders_app = make_feeders_app()

BOOK = "md:book:binance:BTC-USDT"
WRITES_KEY = "return redis.call('HSET', KEYS[1], 'seq', '1')"
SHA = sha1(WRITES_KEY.encode(), usedforsecurity=False).hexdigest()

LOOKING_ROUND = ["PING", "SELECT 1", "TIME", "ROLE", "CLUSTER|INFO", "CLUSTER|SLOTS", "COMMAND", "ASKING"]
READING = [
    *LOOKING_ROUND,
    f"HGET {BOOK} seq",
    f"HMGET {BOOK} seq book",
    f"HGETALL {BOOK}",
    f"HSTRLEN {BOOK} book",
    "SMEMBERS md:books",
    "XRANGE md:trades:x - +",
    "XREVRANGE md:trades:x + -",
    "XREAD STREAMS md:trades:x 0",
    "CLIENT|SETNAME me",
]
ALLOWED = {
    "feeder": [
        *LOOKING_ROUND,
        f"HSET {BOOK} seq 1",
        f"HGET {BOOK} seq",
        f"HMGET {BOOK} seq",
        "HGETALL md:network:binance",
        "HDEL md:network:binance released",
        "SMEMBERS md:books",
        f"SREM md:books {BOOK}",
        f"EXPIRE {BOOK} 9",
        f"PERSIST {BOOK}",
        f"PUBLISH {BOOK} x",
        f"SPUBLISH {BOOK} x",
        "SADD md:books x",
        "XADD md:trades:x * a b",
        f"DEL {BOOK}",
        "SCAN 0",
        f'SCRIPT|LOAD "{WRITES_KEY}"',
        f"EVALSHA {SHA} 1 {BOOK}",
        "CLIENT|NO-EVICT ON",
        "INFO memory",
    ],
    "runner": [
        *READING,
        f"SUBSCRIBE {BOOK}",
        f"UNSUBSCRIBE {BOOK}",
        f"SSUBSCRIBE {BOOK}",
        f"SUNSUBSCRIBE {BOOK}",
        "SCAN 0",
        "HSET md:consumer:me lag 1",
        "EXPIRE md:consumer:me 5",
        "DEL md:consumer:me",
    ],
    "viewer": [*READING, "SCAN 0", "CLIENT|LIST"],
    "operator": [*LOOKING_ROUND, "INFO memory", "CLIENT|LIST", "CLIENT|KILL ID 999999", "SCRIPT|KILL", "SLOWLOG|GET 1"],
}
CHANGES_A_BOOK = [
    f"HSET {BOOK} seq 1",
    f"HINCRBY {BOOK} seq 1",
    f"DEL {BOOK}",
    f"UNLINK {BOOK}",
    f"EXPIRE {BOOK} 1",
    f"RENAME {BOOK} md:consumer:x",
    f"COPY md:consumer:x {BOOK}",
    f"RESTORE {BOOK} 0 x",
    "SADD md:books x",
    "XADD md:trades:x * a b",
    f"PUBLISH {BOOK} x",
    f"SPUBLISH {BOOK} x",
    "PUBLISH md:feeders x",
    f'EVAL "{WRITES_KEY}" 1 {BOOK}',
    f"EVALSHA {SHA} 1 {BOOK}",
    f'SCRIPT|LOAD "{WRITES_KEY}"',
    f"FCALL x 1 {BOOK}",
    "HSET md:feeder:x time_us 1",
    "MULTI",
]
HARMS_OTHERS = [
    "FLUSHALL",
    "FLUSHDB",
    "SWAPDB 0 1",
    "CONFIG|GET *",
    "CONFIG|SET maxmemory 1",
    "ACL|LIST",
    "ACL|SETUSER x on",
    "SHUTDOWN NOSAVE",
    "CLUSTER|RESET",
    "CLUSTER|FAILOVER",
    "MONITOR",
    "KEYS *",
    "CLIENT|KILL TYPE normal",
    "CLIENT|PAUSE 1000",
    "SCRIPT|FLUSH",
    "SCRIPT|KILL",
    "FUNCTION|FLUSH",
    "REPLICAOF NO ONE",
    "SAVE",
    "MODULE|LIST",
    "GET other",
    "SET other 1",
    "HGETALL other",
    "HSET other a b",
    "PUBLISH other x",
    "SUBSCRIBE other",
    "PSUBSCRIBE *",
    "PSUBSCRIBE md:*",
    "SORT other",
    "OBJECT|FREQ other",
    "HGET mdx:book seq",
]
REFUSED = {
    "feeder": [
        *HARMS_OTHERS,
        "CLIENT|LIST",
        f"EVALSHA {SHA} 1 other",
        f"SUBSCRIBE {BOOK}",
        f'EVAL "{WRITES_KEY}" 1 {BOOK}',
    ],
    "runner": [*HARMS_OTHERS, *CHANGES_A_BOOK, "CLIENT|LIST", "HSET md:consumers a b"],
    "viewer": [*HARMS_OTHERS, *CHANGES_A_BOOK, f"SUBSCRIBE {BOOK}", "HSET md:consumer:me lag 1"],
    "operator": [
        *(command for command in HARMS_OTHERS if not command.startswith(("SCRIPT|KILL", "CLIENT|KILL"))),
        *CHANGES_A_BOOK,
        "CLIENT|NO-EVICT ON",
        f"HGETALL {BOOK}",
        f"SUBSCRIBE {BOOK}",
    ],
}


@pytest.fixture(scope="module")
def shared_guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerWithUsers]:
    """A server that knows the script of these tests."""
    with server_with_users(tmp_path_factory.mktemp("secrets")) as server:
        with redis.Redis.from_url(server.url("feeder")) as feeder:
            feeder.script_load(WRITES_KEY)
        yield server


def is_refused(url: str, command: str) -> bool:
    """Whether the server refuses the command to this user. One connection each, because of subscriptions."""
    with redis.Redis.from_url(url, protocol=2) as client:
        try:
            client.execute_command(*shlex.split(command.replace("|", " ", 1)))
        except redis.exceptions.NoPermissionError:
            return True
        except redis.exceptions.ResponseError as error:
            # Allowed, but there is no cluster, or no script that runs.
            if "cluster support disabled" in str(error) or str(error).startswith("NOTBUSY"):
                return False
            if "ACL failure in script" in str(error):
                return True
            raise
    return False


@pytest.mark.parametrize("role", ROLES)
def test_user_may_do_what_its_role_needs(shared_guarded: ServerWithUsers, role: str) -> None:
    assert [command for command in ALLOWED[role] if is_refused(shared_guarded.url(role), command)] == []


@pytest.mark.parametrize("role", ROLES)
def test_user_may_do_nothing_else(shared_guarded: ServerWithUsers, role: str) -> None:
    assert [command for command in REFUSED[role] if not is_refused(shared_guarded.url(role), command)] == []


@pytest.mark.parametrize("role", ROLES)
def test_every_right_of_a_user_is_tried(tmp_path: Path, role: str) -> None:
    generate(tmp_path)
    (line,) = re.findall(f"^user {role} (.*)$", (tmp_path / "users.acl").read_text(), re.MULTILINE)

    given = {right.strip("()").upper() for right in re.findall(r"\+(\S+)", line)}

    assert given == {command.split()[0] for command in ALLOWED[role]}


@pytest.mark.parametrize("login", ["", "default:@", "default:x@", ":x@", "feeder:@", "feeder:x@"])
def test_a_login_needs_a_password_of_a_role(shared_guarded: ServerWithUsers, login: str) -> None:
    url = f"redis://{login}127.0.0.1:{shared_guarded.server.port}/0"

    with redis.Redis.from_url(url) as client, pytest.raises(redis.exceptions.AuthenticationError):
        client.ping()


@pytest.mark.parametrize("login", ["", "feeder@", "feeder:x@"])
def test_a_refused_login_is_an_error_that_says_what_to_do(shared_guarded: ServerWithUsers, login: str) -> None:
    url = f"redis://{login}127.0.0.1:{shared_guarded.server.port}/0"

    for app, arguments in ((feeders_app, ["run", "--symbols", "BTC"]), (consumers_app, ["tail", "BTC"])):
        result = CliRunner().invoke(app, [*arguments, "--redis", url])

        assert result.exit_code == 1
        assert result.output.startswith("error: redis://")
        assert "password" in result.output.lower()
        assert result.output.count("\n") == 1


def test_generated_files_hold_the_passwords_for_their_owner_alone(tmp_path: Path) -> None:
    first = generate(tmp_path / "one")
    second = generate(tmp_path / "two")

    users = (tmp_path / "one" / "users.acl").read_text()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "one").iterdir()}
    assert modes == {"users.acl": 0o644} | {f"{role}.env": 0o600 for role in ("feeder", "runner", "viewer", "operator")}
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o700
    assert len({*first.values(), *second.values()}) == 8
    assert min(map(len, first.values())) >= 43
    assert not any(password in users for password in first.values())


def test_existing_passwords_are_not_replaced(tmp_path: Path) -> None:
    generate(tmp_path)
    before = {path: path.read_text() for path in tmp_path.iterdir()}

    again = CliRunner().invoke(feeders_app, ["acl", "--out", str(tmp_path)])

    assert again.exit_code == 1
    assert again.output.startswith(f"error: {tmp_path / 'users.acl'} already exists: remove")
    assert again.output.count("\n") == 1
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before


def test_users_of_one_prefix_reach_nothing_of_another(tmp_path: Path) -> None:
    passwords = generate(tmp_path, prefix="paper")
    with LocalServer(options=("--aclfile", str(tmp_path / "users.acl"))) as server:
        url = f"redis://feeder:{passwords['feeder']}@127.0.0.1:{server.port}/0"

        assert not is_refused(url, "HSET paper:book:binance:BTC-USDT seq 1")
        assert is_refused(url, f"HSET {BOOK} seq 1")


def command(app: typer.Typer, url: str, password: str, *arguments: str) -> Result:
    """A command of the user's, with the password in its environment."""
    return CliRunner().invoke(app, [*arguments, "--redis", url], env={"BOOKBUS_REDIS_PASSWORD": password})


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[ServerWithUsers]:
    """A server for one test."""
    with server_with_users(tmp_path) as server:
        yield server


async def test_feeder_and_readers_work_with_their_users(guarded: ServerWithUsers) -> None:
    provider = RedisMarketDataProvider(guarded.url("runner"), "binance", ["BTC"])
    async with BinanceSimulator(symbols=["BTCUSDT"], seed=1, rate=10.0) as exchange:
        topics = ("--topics", "book,quote,trades")
        with feeder_process(guarded.url("feeder"), exchange.ws_url, exchange.rest_url, ["BTC"], *topics) as feeder:
            async with provider:
                await await_for(lambda: provider.read("BTC").status is BookStatus.LIVE, 20, "a live book")
                with redis.Redis.from_url(guarded.url("viewer"), decode_responses=True) as viewer:
                    await await_for(lambda: viewer.smembers("md:books") == {BOOK}, 5, "the list")
                    await await_for(lambda: viewer.xrange("md:trades:binance:BTC-USDT"), 10, "a trade")
                    await await_for(lambda: list(viewer.scan_iter("md:consumer:*")), 5, "the reader's own heartbeat")
                await await_for(lambda: provider.status("BTC").feeder_alive, 5, "the feeder's heartbeat")
                listed = await asyncio.to_thread(list_readers, guarded)
                assert (listed.returncode, len(listed.stdout.splitlines())) == (0, 1), listed.stderr

            health = await asyncio.to_thread(command, feeders_app, *login(guarded, "feeder"), "health")
            show = await asyncio.to_thread(command, consumers_app, *login(guarded, "viewer"), "show", "BTC")
            assert (health.exit_code, show.exit_code) == (0, 0), health.output + show.output
            assert "binance BTC-USDT (BTCUSDT) is live" in show.output
            with tail_process(guarded) as tail:
                assert (await asyncio.to_thread(tail.readline)).startswith(b"BTC-USDT     live")

            assert feeder.stop() == 0, feeder.log
            assert "NOPERM" not in feeder.log


def login(guarded: ServerWithUsers, role: str) -> tuple[str, str]:
    return guarded.url_without_password(role), guarded.passwords[role]


def list_readers(guarded: ServerWithUsers) -> "subprocess.CompletedProcess[bytes]":
    command = [sys.executable, "-m", "consumers", "list", "--json", "--redis", guarded.url_without_password("runner")]
    environment = os.environ | {"BOOKBUS_REDIS_PASSWORD": guarded.passwords["runner"]}
    return subprocess.run(command, capture_output=True, env=environment, check=False)


@contextmanager
def tail_process(guarded: ServerWithUsers) -> Iterator[IO[bytes]]:
    """The output of a `tail` whose password only its environment has."""
    command = [sys.executable, "-m", "consumers", "tail", "BTC", "--redis", guarded.url_without_password("runner")]
    environment = os.environ | {"BOOKBUS_REDIS_PASSWORD": guarded.passwords["runner"]}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.terminate()
