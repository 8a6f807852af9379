"""The interface of `web` and `serve` over a real bus, and what it refuses."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
import redis
from typer.testing import CliRunner

from bookbus.consumers.__main__ import make_app
from bookbus.consumers.web.server import BusServer, Settings, serving
from bookbus.feeders.redis_server import LocalServer
from tests.support.builders import book
from tests.support.waiting import await_for
from tests.support.writer import BusWriter

LIMIT = 5.0
TOKEN = "secret"  # noqa: S105 - of this test


@pytest.fixture
def writer(redis_url: str) -> Iterator[BusWriter]:
    with redis.Redis.from_url(redis_url) as client:
        yield BusWriter(client)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(LIMIT)) as session:
        yield session


def settings(redis_url: str, *, token: str = "", page: bool = True) -> Settings:
    return Settings(redis=redis_url, exchanges=("binance", "upbit"), port=0, token=token, page=page)


async def with_books(server: BusServer, count: int = 1) -> str:
    """The base address, once the server has that many books."""
    await await_for(lambda: len(server.rows) == count and all(row.bid for row in server.rows), LIMIT, "the books")
    return f"http://127.0.0.1:{server.port}"


async def test_books_are_listed_and_read_in_full(
    redis_url: str, writer: BusWriter, session: aiohttp.ClientSession
) -> None:
    writer.update(bids=((99.5, 1.25), (99.0, 2.0)), asks=((100.5, 1.5),))
    writer.heartbeat(["BTC-USDT"])
    async with serving(settings(redis_url)) as server:
        url = await with_books(server)
        async with session.get(f"{url}/api/books") as answer:
            listed = await answer.json()
        async with session.get(f"{url}/api/books/binance/BTCUSDT") as answer:
            full = await answer.json()

    assert [(row["symbol"], row["bid"], row["ask"]) for row in listed["books"]] == [("BTC-USDT", 99.5, 100.5)]
    assert full["bids"] == [[99.5, 1.25], [99.0, 2.0]]
    assert full["update_id"] == 100


@pytest.mark.parametrize(
    "path", ["/api/books/binance/XRP", "/api/books/kraken/BTC", "/api/books/binance/!!", "/nothing"]
)
async def test_what_is_not_there_is_404_with_a_reason(
    redis_url: str, session: aiohttp.ClientSession, path: str
) -> None:
    async with serving(settings(redis_url)) as server, session.get(f"http://127.0.0.1:{server.port}{path}") as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]


async def test_the_stream_sends_all_rows_then_changes(
    redis_url: str, writer: BusWriter, session: aiohttp.ClientSession
) -> None:
    writer.submit_all([book("BTC-USDT", update_id=1), book("ETH-USDT", update_id=1)])
    async with serving(settings(redis_url)) as server:
        url = await with_books(server, 2)
        async with session.ws_connect(f"{url}/api/stream") as stream:
            first = await stream.receive_json(timeout=LIMIT)
            await stream.send_json({"open": "binance:ETH-USDT"})
            writer.update("BTC-USDT", update_id=2, bids=((98.0, 1.0),))
            seen, opened = [], None
            async with asyncio.timeout(LIMIT):
                while 98.0 not in seen or opened is None:
                    message = await stream.receive_json()
                    seen += [row["bid"] for row in message["books"] if row["symbol"] == "BTC-USDT"]
                    opened = opened or message.get("book")

    assert {row["symbol"] for row in first["books"]} == {"BTC-USDT", "ETH-USDT"}
    assert opened["row"]["symbol"] == "ETH-USDT"


async def test_a_lost_server_is_an_error_in_the_stream_and_heals(
    own_redis_server: LocalServer, session: aiohttp.ClientSession
) -> None:
    with redis.Redis.from_url(own_redis_server.url) as client:
        BusWriter(client).update()
    async with serving(settings(own_redis_server.url)) as server:
        await with_books(server)
        own_redis_server.kill()
        await await_for(lambda: server.error, 15.0, "the error")
        await await_for(lambda: server.rows[0].urgency > 0, 15.0, "the mark")
        own_redis_server.start()
        await await_for(lambda: not server.error, 15.0, "the end of the error")


async def test_feeders_and_readers_are_listed(
    redis_url: str, writer: BusWriter, session: aiohttp.ClientSession
) -> None:
    writer.update()
    async with serving(settings(redis_url)) as server:
        url = await with_books(server)

        async def feeders() -> list[Any]:
            writer.heartbeat(["BTC-USDT"])
            async with session.get(f"{url}/api/feeders") as answer:
                return list(await answer.json())

        async def readers() -> list[Any]:
            async with session.get(f"{url}/api/readers") as answer:
                return list(await answer.json())

        async with asyncio.timeout(LIMIT):
            while not (found := await feeders()):  # noqa: ASYNC110 - each question is a request
                await asyncio.sleep(0.02)
        async with asyncio.timeout(4 * LIMIT):
            while len(await readers()) < 2:  # noqa: ASYNC110 - this server reads both exchanges
                await asyncio.sleep(0.1)

    assert [(one["feeder"], one["books"], one["live"]) for one in found] == [("A", 1, 1)]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_requests_of_other_sites_are_refused(
    redis_url: str, session: aiohttp.ClientSession, headers: dict[str, str], status: int
) -> None:
    async with (
        serving(settings(redis_url)) as server,
        session.get(f"http://127.0.0.1:{server.port}/api/books", headers=headers) as answer,
    ):
        assert answer.status == status


@pytest.mark.parametrize(
    ("query", "headers", "status"),
    [
        ("", {}, 401),
        ("?token=wrong", {}, 401),
        ("?token=gehéim", {}, 401),
        ("?token=secret", {}, 200),
        ("", {"Authorization": "Bearer secret"}, 200),
        ("", {"Cookie": "bookbus_token=secret"}, 200),
    ],
)
async def test_a_token_is_asked_for_everywhere(
    redis_url: str, session: aiohttp.ClientSession, query: str, headers: dict[str, str], status: int
) -> None:
    async with serving(settings(redis_url, token=TOKEN)) as server:
        for path in ("/", "/app.js", "/api/books"):
            async with session.get(f"http://127.0.0.1:{server.port}{path}{query}", headers=headers) as answer:
                assert answer.status == status


async def test_the_page_forbids_scripts_from_elsewhere(redis_url: str, session: aiohttp.ClientSession) -> None:
    async with serving(settings(redis_url)) as server, session.get(f"http://127.0.0.1:{server.port}/") as answer:
        policy, text = answer.headers["Content-Security-Policy"], await answer.text()

    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "http" not in text


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch"])
async def test_nothing_can_be_written(redis_url: str, session: aiohttp.ClientSession, method: str) -> None:
    async with (
        serving(settings(redis_url)) as server,
        session.request(method, f"http://127.0.0.1:{server.port}/api/books") as answer,
    ):
        assert answer.status == 405


async def test_serve_has_no_page(redis_url: str, session: aiohttp.ClientSession) -> None:
    async with (
        serving(settings(redis_url, page=False)) as server,
        session.get(f"http://127.0.0.1:{server.port}/") as answer,
    ):
        assert answer.status == 404


@pytest.mark.parametrize("command", ["web", "serve"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--host", "192.0.2.1"], "token"),
        (["--exchanges", "kraken"], "kraken"),
        (["--exchanges", ","], "names nothing"),
        (["--redis", "http://x"], "redis"),
        (["--prefix", "a:b"], "prefix"),
    ],
)
def test_wrong_options_are_one_line(command: str, arguments: list[str], expected: str) -> None:
    result = CliRunner().invoke(make_app(), [command, *arguments])

    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1


async def test_a_port_that_is_taken_is_one_line(redis_url: str) -> None:
    async with serving(settings(redis_url)) as server:
        arguments = ["-m", "consumers", "web", "--port", str(server.port), "--redis", redis_url]
        process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.PIPE)
        _, errors = await asyncio.wait_for(process.communicate(), 20.0)

    assert process.returncode == 1
    assert errors.decode().startswith(f"error: cannot listen on 127.0.0.1:{server.port}")
    assert len(errors.splitlines()) == 1
