"""The server configuration that compose uses: a server accepts it, and it limits what clients can do."""

import socket
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bookbus.feeders.redis_server import LocalServer
from tests.support.server_with_users import server_with_users
from tests.support.waiting import wait_for

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "valkey.conf"
DEPLOYED = ("--include", str(CONFIGURATION))


def test_server_takes_the_configuration_that_is_deployed() -> None:
    with LocalServer(options=DEPLOYED) as server, redis.Redis.from_url(server.url) as client:
        settings = client.config_get(
            "save", "appendonly", "maxmemory", "maxmemory-policy", "protected-mode", "timeout", "maxmemory-clients"
        )
        limits = client.config_get("client-output-buffer-limit")["client-output-buffer-limit"]

    assert settings == {
        "save": "",
        "appendonly": "no",
        "maxmemory": str(2**30),
        "maxmemory-policy": "noeviction",
        "protected-mode": "yes",
        "timeout": "300",
        "maxmemory-clients": str(2**28),
    }
    assert limits.startswith("normal 67108864 16777216 10 ")
    assert limits.endswith("pubsub 8388608 2097152 5")


def address_of_this_machine() -> str:
    """An address other than loopback. Skips where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_without_users_the_server_serves_this_machine_alone() -> None:
    address = address_of_this_machine()
    with LocalServer(options=(*DEPLOYED, "--bind", "127.0.0.1", address)) as server:
        with (
            redis.Redis(address, server.port) as other,
            pytest.raises(redis.exceptions.RedisError, match="DENIED"),
        ):
            other.hset("md:book:binance:BTC-USDT", "seq", "1")
        with redis.Redis("127.0.0.1", server.port) as client:
            assert client.exists("md:book:binance:BTC-USDT") == 0


def test_with_users_the_server_serves_other_machines(tmp_path: Path) -> None:
    address = address_of_this_machine()
    with server_with_users(tmp_path, (*DEPLOYED, "--bind", "127.0.0.1", address)) as guarded:
        url = guarded.url("viewer").replace("127.0.0.1", address)
        with redis.Redis.from_url(url) as viewer:
            assert viewer.ping()
        with redis.Redis(address, guarded.server.port) as stranger, pytest.raises(redis.exceptions.AuthenticationError):
            stranger.ping()


def test_an_idle_connection_without_login_is_closed(tmp_path: Path) -> None:
    with (
        server_with_users(tmp_path, (*DEPLOYED, "--timeout", "1")) as guarded,
        socket.create_connection(("127.0.0.1", guarded.server.port), 10) as idle,
    ):
        assert idle.recv(1) == b""


def test_answers_that_are_not_read_close_the_client_and_not_the_feeder(tmp_path: Path) -> None:
    """Four viewers that ask for one book over and over and read nothing."""
    with (
        server_with_users(tmp_path, DEPLOYED) as guarded,
        redis.Redis.from_url(guarded.url("feeder")) as feeder,
        redis.Redis.from_url(guarded.url("operator")) as operator,
    ):
        feeder.execute_command("CLIENT", "NO-EVICT", "ON")
        feeder.hset("md:book:binance:BTC-USDT", "book", b"x" * 100_000)
        viewers = [greedy_viewer(guarded.url("viewer")) for _ in range(4)]
        try:
            wait_for(lambda: viewer_count(operator) == 0, 30, "the end of the viewers")
        finally:
            for viewer in viewers:
                viewer.close()

        assert operator.info("memory")["used_memory_peak"] < 2**29
        assert feeder.hget("md:book:binance:BTC-USDT", "book") == b"x" * 100_000


def test_the_operator_ends_a_script_that_never_returns(tmp_path: Path) -> None:
    with server_with_users(tmp_path, (*DEPLOYED, "--busy-reply-threshold", "50")) as guarded:
        with redis.Redis.from_url(guarded.url("feeder")) as feeder:
            sha = feeder.script_load("while true do end")
        caller = threading.Thread(target=call_script, args=(guarded.url("feeder"), sha))
        caller.start()
        with redis.Redis.from_url(guarded.url("operator"), retry=Retry(NoBackoff(), 0)) as operator:
            wait_for(lambda: was_killed(operator), 10, "the script to be killed")
            caller.join(10)

            assert operator.ping()


def call_script(url: str, sha: str) -> None:
    with redis.Redis.from_url(url) as feeder, suppress(redis.exceptions.ResponseError):
        feeder.evalsha(sha, 1, "md:book:binance:BTC-USDT")


def was_killed(operator: "redis.Redis") -> bool:
    try:
        return bool(operator.script_kill())
    except redis.exceptions.ResponseError as error:
        if str(error).startswith("NOTBUSY"):
            return False  # not started yet
        raise


def greedy_viewer(url: str) -> socket.socket:
    """A connection with 2,000 requests whose answers, 200 MB, nobody reads."""
    parts = urlsplit(url)
    viewer = socket.create_connection((parts.hostname, parts.port), 10)
    viewer.sendall(f"AUTH {parts.username} {parts.password}\r\n".encode())
    viewer.sendall(b"HGETALL md:book:binance:BTC-USDT\r\n" * 2000)
    return viewer


def viewer_count(operator: "redis.Redis") -> int:
    return sum(client["user"] == "viewer" for client in operator.client_list())
