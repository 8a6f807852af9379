"""The users in docs/operations.md may do all that feeders and readers do, and nothing else."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from consumers.redis_provider import RedisMarketDataProvider
from feeders.local_redis import LocalServer
from feeders.simulator.binance import BinanceSimulator
from schemas.snapshot import BookStatus
from tests.support.feeder_process import feeder_process
from tests.support.waiting import await_for

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"


def url_of(server: LocalServer, user: str) -> str:
    return f"redis://{user}:{user}-password@{urlsplit(server.url).netloc}/0"


@pytest.fixture
def guarded(own_redis_server: LocalServer) -> LocalServer:
    """A server with the documented users, and no rights for anybody else."""
    with redis.Redis.from_url(own_redis_server.url) as admin:
        for line in re.findall(r"^ACL (SETUSER .*)$", PAGE.read_text(), re.MULTILINE):
            # A selector in parentheses is one argument.
            admin.execute_command("ACL", *re.findall(r"\(.*?\)|\S+", line))
        admin.execute_command("ACL", "SETUSER", "default", "off")
    return own_redis_server


async def test_feeder_and_reader_work_with_their_users(guarded: LocalServer) -> None:
    provider = RedisMarketDataProvider(url_of(guarded, "reader"), "binance", ["BTC"])
    async with BinanceSimulator(symbols=["BTCUSDT"], seed=1, rate=10.0) as exchange:
        topics = ("--topics", "book,quote,trades")
        with feeder_process(url_of(guarded, "feeder"), exchange.ws_url, exchange.rest_url, ["BTC"], *topics) as feeder:
            async with provider:
                await await_for(lambda: provider.read("BTC").status is BookStatus.LIVE, 20, "a live book")
                with redis.Redis.from_url(url_of(guarded, "reader"), decode_responses=True) as reader:
                    await await_for(lambda: reader.smembers("md:books") == {"md:book:binance:BTC-USDT"}, 5, "the list")
                    await await_for(lambda: reader.xrange("md:trades:binance:BTC-USDT"), 10, "a trade")
                await await_for(lambda: provider.status("BTC").feeder_alive, 5, "the feeder's heartbeat")
                with redis.Redis.from_url(url_of(guarded, "feeder")) as client:
                    await await_for(lambda: list(client.scan_iter("md:consumer:*")), 5, "the reader's own heartbeat")

            assert feeder.stop() == 0, feeder.log
            assert "NOPERM" not in feeder.log


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("reader", ["HSET", "md:book:binance:BTC-USDT", "seq", "1"]),
        ("reader", ["PUBLISH", "md:book:binance:BTC-USDT", "x"]),
        ("reader", ["DEL", "md:book:binance:BTC-USDT"]),
        ("reader", ["HGETALL", "other"]),
        ("reader", ["PSUBSCRIBE", "*"]),
        ("reader", ["SUBSCRIBE", "other"]),
        ("reader", ["EVAL", "return 1", "0"]),
        ("feeder", ["HSET", "other", "a", "b"]),
        ("feeder", ["PUBLISH", "other", "x"]),
        ("feeder", ["FLUSHALL"]),
        ("feeder", ["CONFIG", "GET", "*"]),
        ("feeder", ["KEYS", "*"]),
    ],
    ids=str,
)
def test_user_may_do_nothing_else(guarded: LocalServer, user: str, command: list[str]) -> None:
    with redis.Redis.from_url(url_of(guarded, user)) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)
