"""`list` against a real bus with readers of several kinds."""

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from bookbus.consumers.__main__ import make_app
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.redis_server import LocalServer
from tests.support.server_with_users import server_with_users
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

app = make_app()

NO_CLIENTS = "this user may not run CLIENT LIST"
NO_RECORDS = "this user may not read the hashes of the readers"


@pytest.fixture
def client(own_redis_server: LocalServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_redis_server.url) as client:
        yield client


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["list", "--redis", url, *arguments])


def listed(url: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(url, "--json").stdout.splitlines()]


def as_user(client: redis.Redis, server: LocalServer, *rights: str) -> str:
    client.acl_setuser(
        "somebody", enabled=True, passwords=["+s"], keys=["md:*"], commands=["+client|setname", "+ping", *rights]
    )
    return f"redis://somebody:s@127.0.0.1:{server.port}/0"


def test_readers_and_other_programs_are_listed(own_redis_server: LocalServer, client: redis.Redis) -> None:
    url = own_redis_server.url
    BusWriter(client).update()
    pubsub = client.pubsub()  # type: ignore[no-untyped-call]
    pubsub.subscribe("md:book:binance:BTC-USDT")
    with RedisMarketDataProvider(url, "binance", ["BTC", "ETH"]):
        wait_for(lambda: client.keys("md:consumer:*"))
        other, ours = listed(url)
        shown = run(url)
    pubsub.close()

    assert (other["record"], other["subscriptions"], other["state"]) == (None, 1, "ok")
    assert (ours["record"]["symbols"], ours["subscriptions"], ours["state"]) == (["BTC-USDT", "ETH-USDT"], 3, "ok")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert ours["name"] in shown.stdout
    assert "2 readers, 0 slow or stopped" in shown.stdout
    wait_for(lambda: not client.client_list(_type="pubsub"))
    assert run(url).stdout == "no readers\n"


def test_a_program_that_does_not_read_is_called_slow(own_redis_server: LocalServer, client: redis.Redis) -> None:
    url = own_redis_server.url
    with socket.create_connection(("127.0.0.1", own_redis_server.port)) as connection:
        connection.sendall(b"CLIENT SETNAME bot\r\nSUBSCRIBE md:book:binance:BTC-USDT\r\n")
        wait_for(lambda: client.client_list(_type="pubsub"))

        def waiting() -> bool:
            client.publish("md:book:binance:BTC-USDT", b"x" * 15_000)
            return int(client.client_list(_type="pubsub")[0]["omem"]) > 100_000

        wait_for(waiting, 30)
        (reader,) = listed(url)
        shown = run(url)

    assert (reader["state"], reader["name"].partition(" ")[0]) == ("slow", "bot")
    assert "MB wait for it at the server" in reader["reason"]
    assert (shown.exit_code, "1 reader, 1 slow or stopped" in shown.stdout) == (1, True)


def test_with_generated_users_a_runner_registers_and_a_viewer_sees_it(tmp_path: Path) -> None:
    with server_with_users(tmp_path) as server, RedisMarketDataProvider(server.url("runner"), "binance", ["BTC"]):
        wait_for(lambda: listed(server.url("viewer"))[0]["record"])
        (reader,) = listed(server.url("viewer"))
        shown = run(server.url("viewer"))

    assert (reader["user"], reader["subscriptions"], reader["record"]["symbols"]) == ("runner", 2, ["BTC-USDT"])
    assert (shown.exit_code, NO_CLIENTS in shown.stdout, NO_RECORDS in shown.stdout) == (0, False, False)


def test_without_the_right_to_list_clients_it_says_so_and_lists_registered_readers(
    own_redis_server: LocalServer, client: redis.Redis
) -> None:
    url = as_user(client, own_redis_server, "+scan", "+hgetall")
    with RedisMarketDataProvider(own_redis_server.url, "binance", ["BTC"]):
        wait_for(lambda: client.keys("md:consumer:*"))
        (reader,) = listed(url)
        shown = run(url)

    assert (reader["record"]["symbols"], reader["subscriptions"]) == (["BTC-USDT"], None)
    assert (shown.exit_code, NO_CLIENTS in shown.stdout, NO_RECORDS in shown.stdout) == (0, True, False)


@pytest.mark.parametrize("may_read", [True, False])
def test_without_the_right_to_search_readers_are_found_by_their_connections(
    own_redis_server: LocalServer, client: redis.Redis, may_read: bool
) -> None:
    url = as_user(client, own_redis_server, "+client|list", *(["+hgetall"] if may_read else []))
    with RedisMarketDataProvider(own_redis_server.url, "binance", ["BTC"]):
        wait_for(lambda: client.keys("md:consumer:*"))
        (reader,) = listed(url)
        shown = run(url)

    assert (reader["record"] is not None, reader["subscriptions"]) == (may_read, 2)
    assert (shown.exit_code, NO_CLIENTS in shown.stdout, NO_RECORDS in shown.stdout) == (0, False, not may_read)


def test_a_user_without_rights_gets_a_one_line_error(own_redis_server: LocalServer, client: redis.Redis) -> None:
    shown = run(as_user(client, own_redis_server))

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "does not allow this user to read the bus" in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_without_a_server_a_one_line_error_says_what_to_do() -> None:
    shown = run("redis://:secret@127.0.0.1:1/0")

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "`make redis` or `docker compose up redis`" in shown.stderr
    assert "secret" not in shown.stderr


def test_a_server_that_is_no_redis_is_a_one_line_error() -> None:
    def answer() -> None:
        peer, _ = server.accept()
        with peer:
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n")
            peer.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as server:
        answering = threading.Thread(target=answer)
        answering.start()
        shown = run(f"redis://127.0.0.1:{server.getsockname()[1]}")
        answering.join()

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert "is no Redis" in shown.stderr
    assert shown.stderr.count("\n") == 1


def test_a_record_that_is_no_hash_is_left_out(own_redis_server: LocalServer, client: redis.Redis) -> None:
    client.set("md:consumer:x", "text")
    client.hset("md:consumer:y", "pid", "7")

    assert [reader["name"] for reader in listed(own_redis_server.url)] == ["y"]


def test_help_has_examples() -> None:
    shown = CliRunner().invoke(app, ["list", "--help"], env={"COLUMNS": "200"})

    assert "python -m consumers list " in shown.stdout
    assert "BOOKBUS_REDIS_URL" in shown.stdout
