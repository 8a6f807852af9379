"""One connection: order of replies, deadline, login, and errors of one line without secrets."""

import asyncio
from pathlib import Path
from typing import Any

import hiredis
import pytest

from bookbus.feeders.bus.connection import RedisConnectionError, Reply, RespConnection, open_connection, pack_command
from bookbus.schemas.redis_url import RedisServer, parse_redis_url
from tests.support.resp_server import Command, RespServer, resp_server
from tests.support.waiting import await_for


def echo(command: Command) -> Any:
    return command[-1]


def parse_address(url: str) -> RedisServer:
    (server,) = parse_redis_url(url).servers
    return server


async def connect(server: RespServer, login: str = "", **options: float) -> RespConnection:
    return await open_connection(parse_address(server.url.replace("unix://", f"unix://{login}")), **options)


async def test_replies_come_back_in_order_one_list_a_batch(tmp_path: Path) -> None:
    async with resp_server(tmp_path, echo) as server:
        connection = await connect(server)
        answered: list[list[Reply]] = []

        connection.send(pack_command("ECHO", "a") + pack_command("ECHO", b"b"), 2, answered.append)
        connection.send(pack_command("ECHO", 3), 1, answered.append)

        await await_for(lambda: len(answered) == 2)
        assert answered == [[b"a", b"b"], [b"3"]]
        connection.close()


async def test_a_large_batch_comes_back_whole(tmp_path: Path) -> None:
    async with resp_server(tmp_path, echo) as server:
        connection = await connect(server)
        values = [b"%d" % number * 50 for number in range(2000)]
        answered: list[list[Reply]] = []

        connection.send(b"".join(pack_command("ECHO", value) for value in values), len(values), answered.append)

        await await_for(lambda: answered)
        assert answered == [values]
        connection.close()


async def test_an_error_reply_is_an_answer_like_another(tmp_path: Path) -> None:
    async with resp_server(tmp_path, lambda _: ValueError("OOM no memory")) as server:
        connection = await connect(server)

        reply = await connection.call("SET", "a", "b")

        assert isinstance(reply, hiredis.ReplyError)
        assert str(reply) == "OOM no memory"
        connection.close()


async def test_a_server_that_hangs_is_left_after_the_deadline(tmp_path: Path) -> None:
    async with resp_server(tmp_path, echo) as server:
        connection = await connect(server, reply_timeout=0.05)
        server.answering.clear()

        with pytest.raises(RedisConnectionError, match=r"did not answer within 0\.05 s"):
            await connection.call("PING")


async def test_the_deadline_counts_from_the_last_sign_of_life(tmp_path: Path) -> None:
    async with resp_server(tmp_path, echo) as server:
        connection = await connect(server, reply_timeout=1.0)
        answered: list[list[Reply]] = []
        loop = asyncio.get_running_loop()
        started = loop.time()

        def again(replies: list[Reply]) -> None:
            answered.append(replies)
            connection.send(pack_command("ECHO", len(answered)), 1, again)

        again([])
        await await_for(lambda: loop.time() - started > 2.0)

        connection.close()
        assert str(await connection.wait_closed()) == f"unix://{server.path}: closed"
        assert len(answered) > 1


async def test_an_idle_connection_has_no_deadline(tmp_path: Path) -> None:
    async with resp_server(tmp_path, echo) as server:
        connection = await connect(server, reply_timeout=0.5)
        await connection.call("ECHO", "a")
        loop = asyncio.get_running_loop()
        started = loop.time()

        await await_for(lambda: loop.time() - started > 1.0)

        assert await connection.call("ECHO", "b") == b"b"
        connection.close()


async def test_a_lost_connection_says_why(tmp_path: Path) -> None:
    async with resp_server(tmp_path, echo) as server:
        connection = await connect(server)
        await connection.call("ECHO", "a")

        server.drop()

        assert f"unix://{server.path}: " in str(await connection.wait_closed())
        with pytest.raises(RedisConnectionError):
            await connection.call("ECHO", "b")


async def test_who_does_not_speak_redis_is_left(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, tmp_path / "web.sock")
    connection = await open_connection(parse_address(f"unix://{tmp_path}/web.sock"))

    with pytest.raises(RedisConnectionError, match="does not speak the Redis protocol"):
        await connection.call("PING")

    server.close()


async def test_nobody_there_is_one_line_that_names_the_place(tmp_path: Path) -> None:
    address = parse_address(f"unix://{tmp_path}/none.sock")

    with pytest.raises(RedisConnectionError) as caught:
        await open_connection(address)

    assert str(caught.value) == f"unix://{tmp_path}/none.sock: no such file or directory"


async def test_user_password_and_database_are_told_first(tmp_path: Path) -> None:
    async with resp_server(tmp_path, lambda _: "OK") as server:
        connection = await connect(server, login="ada:s3cret@")
        connection.close()
        plain = await open_connection(parse_address(f"{server.url.replace('unix://', 'unix://:pw@')}?db=2"))
        plain.close()

        assert server.commands == [[b"AUTH", b"ada", b"s3cret"], [b"AUTH", b"pw"], [b"SELECT", b"2"]]


async def test_a_refused_login_is_one_line_without_the_password(tmp_path: Path) -> None:
    async with resp_server(tmp_path, lambda _: ValueError("WRONGPASS invalid pair")) as server:
        with pytest.raises(RedisConnectionError) as caught:
            await connect(server, login="ada:s3cret@")

    assert str(caught.value) == f"unix://ada:***@{server.path}: refused AUTH (WRONGPASS invalid pair)"


async def test_a_full_socket_is_told_and_that_it_takes_again(tmp_path: Path) -> None:
    async with resp_server(tmp_path, echo) as server:
        connection = await connect(server)
        told: list[bool] = []
        answered: list[list[Reply]] = []
        connection.on_writable = lambda: told.append(connection.writable)
        server.answering.clear()

        connection.send(pack_command("ECHO", b"x" * 8_000_000), 1, answered.append)
        connection.send(pack_command("ECHO", b"x" * 8_000_000), 1, answered.append)
        assert not connection.writable
        assert connection.unsent_bytes > 0
        server.answering.set()

        await await_for(lambda: told == [True])
        connection.close()
