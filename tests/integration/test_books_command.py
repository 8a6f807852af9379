"""`books` against a real bus: every book and feeder, whoever publishes them."""

import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from typer.testing import CliRunner, Result

from bookbus.consumers.__main__ import make_app
from bookbus.consumers.commands.books import NOT_LIVE, decimals
from bookbus.feeders.redis_server import LocalServer
from bookbus.schemas.heartbeat import FeederHeartbeat, heartbeat_fields
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot
from tests.support.builders import book
from tests.support.writer import BusWriter

app = make_app()


@pytest.fixture
def client(own_redis_server: LocalServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_redis_server.url) as client:
        yield client


def run(url: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["books", "--redis", url, *arguments])


def feeder(client: redis.Redis, name: str, host: str, states: dict[str, Any], exchange: str = "binance") -> None:
    beat = FeederHeartbeat(
        feeder=name, exchange=exchange, endpoint="wss://x", states=states, host=host, pid=1, started_us=0, time_us=5
    )
    fields: dict[Any, Any] = {**heartbeat_fields(beat)}
    client.hset(RedisNames().feeder(name), mapping=fields)


@contextlib.contextmanager
def published(client: redis.Redis, *books: OrderBookSnapshot, name: str = "A") -> Iterator[None]:
    """These books, confirmed all the time."""
    writer, ended = BusWriter(client, name), threading.Event()

    def confirm() -> None:
        while not ended.wait(0.05):
            for one in books:
                writer.submit(one, "again")

    for one in books:
        writer.submit(one)
    thread = threading.Thread(target=confirm)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_every_book_has_a_row_whoever_publishes_it(own_redis_server: LocalServer, client: redis.Redis) -> None:
    url = own_redis_server.url
    feeder(client, "bin-1", "host-a", {"BTC-USDT": "live", "SHIB-USDT": "live"})
    feeder(client, "up-1", "host-b", {"BTC-KRW": "live"}, "upbit")
    cheap = book("SHIB-USDT", bids=((0.00001233, 5.0),), asks=((0.0000124, 7.0),))
    won = book("BTC-KRW", exchange="upbit", native="KRW-BTC", bids=((93000000.0, 1.0),), asks=((93001000.0, 1.0),))
    with published(client, book(), cheap), published(client, won, name="B"):
        shown, encoded, upbit = run(url), run(url, "--json"), run(url, "--exchange", "UPBIT", "--json")

    assert (shown.exit_code, shown.stderr) == (0, "")
    lines = shown.stdout.splitlines()
    rows = {line.split()[1]: line for line in lines if line.split()[:1] in (["binance"], ["upbit"])}
    assert list(rows) == ["BTC-USDT", "SHIB-USDT", "BTC-KRW"]
    assert [row.split()[-1] for row in rows.values()] == ["A", "A", "B"]
    assert "99.5" in rows["BTC-USDT"]
    assert "0.00001233" in rows["SHIB-USDT"]
    assert "0.00001240" in rows["SHIB-USDT"]
    assert "93,000,000" in rows["BTC-KRW"]
    # Points are below each other.
    assert rows["BTC-USDT"].index("99.5") + 1 == rows["SHIB-USDT"].index("0.00001233")
    assert "feeder bin-1 on host-a: 2 of 2 books live" in lines
    assert "feeder up-1 on host-b: 1 of 1 books live" in lines
    assert lines[-1] == "3 of 3 books live"
    objects = [json.loads(line) for line in encoded.stdout.splitlines()]
    assert [(one["symbol"], one["state"], one["bid"]) for one in objects] == [
        ("BTC-USDT", "live", 99.5),
        ("SHIB-USDT", "live", 0.00001233),
        ("BTC-KRW", "live", 93000000.0),
    ]
    assert [json.loads(line)["symbol"] for line in upbit.stdout.splitlines()] == ["BTC-KRW"]


def test_exit_code_says_that_a_book_is_not_live(own_redis_server: LocalServer, client: redis.Redis) -> None:
    with published(client, book()):
        BusWriter(client).submit(book("ETH-USDT", state="suspect"), "state")
        shown = run(own_redis_server.url)

    assert shown.exit_code == NOT_LIVE
    assert shown.stdout.splitlines()[-1] == "1 of 2 books live"


def test_no_books_and_no_server_are_errors(own_redis_server: LocalServer) -> None:
    empty, nobody = run(own_redis_server.url), run("redis://127.0.0.1:1/0")
    other = run(own_redis_server.url, "--exchange", "kraken")

    assert (empty.exit_code, nobody.exit_code, other.exit_code) == (1, 1, 1)
    assert "error: no books under the prefix md: start a feeder" in empty.stderr
    assert nobody.stderr.startswith("error: ")
    assert other.stderr == "error: unknown exchange kraken: use binance, upbit, bybit\n"


def test_feeders_are_unknown_without_the_right_to_look(own_redis_server: LocalServer, client: redis.Redis) -> None:
    feeder(client, "bin-1", "host-a", {"BTC-USDT": "live"})
    client.acl_setuser(
        "reader",
        enabled=True,
        passwords=["+s"],
        keys=["md:*"],
        channels=["md:*"],
        commands=["+@all", "-scan"],
    )
    with published(client, book()):
        shown = run(f"redis://reader:s@127.0.0.1:{own_redis_server.port}/0")

    assert shown.exit_code == 0
    assert "the feeders are unknown: " in shown.stdout


@pytest.mark.parametrize(
    ("prices", "digits"),
    [((100.0,), 0), ((99.5, 100.25), 2), ((1e-8,), 8), ((93000000.0,), 0), ((), 0), ((1e-15,), 12)],
)
def test_prices_have_the_digits_of_the_finest(prices: tuple[float, ...], digits: int) -> None:
    assert decimals([(price, 1.0) for price in prices]) == digits
