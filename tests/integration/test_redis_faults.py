"""Redis loses its data, restarts, hangs or refuses: every book comes back by itself, with rising numbers."""

from collections.abc import Callable

import redis
from redis.exceptions import RedisError

from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.schemas import wire
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot
from tests.support.feeder_process import feeder_process
from tests.support.waiting import await_for

NATIVES = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
NAMES = [RedisNames().book("binance", symbol) for symbol in ("BTC-USDT", "ETH-USDT", "SOL-USDT", "XRP-USDT")]


def _stored(client: "redis.Redis") -> dict[str, OrderBookSnapshot]:
    try:
        blobs = {name: client.hget(name, "book") for name in NAMES}
    except (RedisError, OSError):
        return {}
    return {name: wire.decode(blob) for name, blob in blobs.items() if isinstance(blob, bytes)}


def _all_live(client: "redis.Redis") -> Callable[[], bool]:
    def check() -> bool:
        books = _stored(client)
        return len(books) == len(NAMES) and all(book.state == "live" for book in books.values())

    return check


async def _books_return(server: LocalServer, action: Callable[[], None], limit: float) -> None:
    async with BinanceSimulator(symbols=NATIVES, seed=31, rate=2.0) as exchange:
        with (
            feeder_process(server.url, exchange.ws_url, exchange.rest_url, NATIVES) as feeder,
            redis.Redis.from_url(server.url, socket_timeout=0.5) as client,
        ):
            await await_for(_all_live(client), 20, "all books")
            before = _stored(client)
            action()
            await await_for(_all_live(client), limit, "all books again")
            # The first look after some faults still shows the old data: wait for what came after.
            await await_for(
                lambda: bool(after := _stored(client)) and all(after[name].seq > before[name].seq for name in NAMES),
                limit,
                "rising numbers",
            )

            after = _stored(client)
            assert all(after[name].update_id >= before[name].update_id for name in NAMES), feeder.log
            await await_for(lambda: client.scard("md:books") == len(NAMES), 5, "the list of books")


async def test_flushall_brings_every_book_back(own_redis_server: LocalServer) -> None:
    with redis.Redis.from_url(own_redis_server.url) as client:
        await _books_return(own_redis_server, client.flushall, 4.0)


async def test_restart_without_persistence_brings_every_book_back(own_redis_server: LocalServer) -> None:
    def restart() -> None:
        own_redis_server.kill()
        own_redis_server.start()

    await _books_return(own_redis_server, restart, 5.0)


async def test_a_flushed_script_is_loaded_again(own_redis_server: LocalServer) -> None:
    with redis.Redis.from_url(own_redis_server.url) as client:
        await _books_return(own_redis_server, client.script_flush, 4.0)


async def test_a_full_server_gets_the_books_when_there_is_room_again(own_redis_server: LocalServer) -> None:
    with redis.Redis.from_url(own_redis_server.url) as client:

        def fill_up() -> None:
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", "1mb")
            client.config_set("maxmemory", "0")

        await _books_return(own_redis_server, fill_up, 5.0)


async def test_a_foreign_type_under_a_book_name_stops_only_that_book(own_redis_server: LocalServer) -> None:
    async with BinanceSimulator(symbols=NATIVES, seed=32, rate=5.0) as exchange:
        with redis.Redis.from_url(own_redis_server.url) as client:
            client.set(NAMES[0], "not a hash")
            with feeder_process(own_redis_server.url, exchange.ws_url, exchange.rest_url, NATIVES) as feeder:
                await await_for(
                    lambda: all(client.hget(name, "state") == b"live" for name in NAMES[1:]), 20, "the other books"
                )
                await await_for(lambda: "WRONGTYPE" in feeder.log, 5, "the complaint")
                assert client.get(NAMES[0]) == b"not a hash"
                client.delete(NAMES[0])
                await await_for(_all_live(client), 5, "the book under the freed name")


async def test_a_wrong_password_is_one_clear_line(own_redis_server: LocalServer) -> None:
    with redis.Redis.from_url(own_redis_server.url) as client:
        client.config_set("requirepass", "right")
        url = own_redis_server.url.replace("redis://", "redis://:wrong@")
        with feeder_process(url, "ws://127.0.0.1:9", "http://127.0.0.1:9", NATIVES) as feeder:
            assert feeder.process.wait(10) == 1
            lines = [line for line in feeder.log.splitlines() if line]
            assert len(lines) == 1
            assert "wrong" not in lines[0]
            assert lines[0].startswith("error: ")
