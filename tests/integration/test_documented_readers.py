"""The programs in the documentation work as printed, against a real server and simulated exchanges."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

import pytest
import redis

from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.wire import encode
from tests.support.builders import book
from tests.support.documents import PAGES, ROOT, block, blocks, lines, name_of
from tests.support.feeder_process import FeederProcess, feeder_process
from tests.support.waiting import wait_for

BOOK = book(seq=1_700_000_000_000_042, bids=((64_999.5, 0.25),), asks=((65_000.5, 1.5),))
NAME = RedisNames().book(BOOK.exchange, BOOK.symbol)
DOCUMENTED_URL = "redis://127.0.0.1:6379/0"


def printed_by(command: list[str], source: str, url: str) -> list[str]:
    """The words that a program, given on its standard input, prints of the book on this server."""
    with redis.Redis.from_url(url) as server:
        server.hset(NAME, "book", encode(BOOK))
    ran = subprocess.run(
        [*command, NAME],
        input=source,
        cwd=ROOT,
        env=os.environ | {"BOOKBUS_REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return re.findall(r"[\w.-]+", ran.stdout)


def test_python_reader_prints_the_book(redis_url: str) -> None:
    words = printed_by([sys.executable, "-"], block("docs/reference/wire-format.md", "python"), redis_url)

    assert words == ["BTC-USDT", "live", "1700000000000042", "64999.5", "0.25", "65000.5", "1.5"]


def test_javascript_reader_prints_the_book(redis_url: str) -> None:
    node = shutil.which("node")
    if node is None or not all((ROOT / "node_modules" / name).exists() for name in ("redis", "@msgpack/msgpack")):
        pytest.skip("needs node and, in this folder, npm install --no-save redis @msgpack/msgpack")

    source = block("docs/reference/wire-format.md", "javascript")
    words = printed_by([node, "--input-type=module", "-"], source, redis_url)

    assert words == ["BTC-USDT", "live", "1700000000000042", "64999.5", "0.25", "65000.5", "1.5"]


def test_python_follower_prints_the_book_and_each_newer_one(redis_url: str) -> None:
    source = block("docs/reference/redis.md", "python").replace(DOCUMENTED_URL, redis_url)
    newer = book(seq=BOOK.seq + 1, bids=((65_000.0, 1.0),), asks=())

    with redis.Redis.from_url(redis_url) as server:
        server.hset(NAME, "book", encode(BOOK))
        with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True) as follower:
            try:
                assert follower.stdout is not None
                first = follower.stdout.readline()
                server.publish(NAME, encode(BOOK))
                server.publish(NAME, encode(newer))
                second = follower.stdout.readline()
            finally:
                follower.kill()

    assert (first, second) == ("live [64999.5, 0.25] [65000.5, 1.5]\n", "live [65000.0, 1.0]\n")


def test_redis_commands_on_the_page_are_accepted(redis_url: str) -> None:
    commands = [line for line in lines(ROOT / "docs/reference/redis.md") if line.startswith("redis-cli ")]

    with redis.Redis.from_url(redis_url) as server:
        for command in commands:
            _, name, *arguments = shlex.split(command, comments=True)
            if name != "SUBSCRIBE":
                server.execute_command(name, *arguments)

    assert len(commands) > 3


class Bus(NamedTuple):
    """A server with the books of two simulated exchanges."""

    url: str
    binance: SimulatorProcess
    cleanup: ExitStack

    def feed(self, simulated: SimulatorProcess, exchange: str) -> FeederProcess:
        feeder = feeder_process(
            self.url, simulated.ws_url, simulated.rest_url, simulated.symbols, "--exchange", exchange
        )
        return self.cleanup.enter_context(feeder)

    def wait_for_books(self, *names: str) -> None:
        with redis.Redis.from_url(self.url) as server:
            for name in names:
                wait_for(partial(is_live, server, name), timeout=30, what=f"a live {name}")


def is_live(server: redis.Redis, name: str) -> bool:
    return bool(server.hget(name, "state") == b"live")


@pytest.fixture(scope="module")
def bus() -> Iterator[Bus]:
    with ExitStack() as cleanup:
        server = cleanup.enter_context(LocalServer())
        binance = cleanup.enter_context(SimulatorProcess(["BTCUSDT", "ETHUSDT"]))
        upbit = cleanup.enter_context(SimulatorProcess(["KRW-BTC", "KRW-ETH", "KRW-USDT"], exchange="upbit"))
        bus = Bus(server.url, binance, cleanup)
        bus.feed(binance, "binance")
        bus.feed(upbit, "upbit")
        names = RedisNames()
        bus.wait_for_books(
            *(names.book("binance", symbol) for symbol in ("BTC-USDT", "ETH-USDT")),
            *(names.book("upbit", symbol) for symbol in ("BTC-KRW", "ETH-KRW", "USDT-KRW")),
        )
        yield bus


def run_block(page: str, bus: Bus) -> str:
    """What the first Python program on a page prints; it ends by itself and without an error."""
    program = next(one.text for one in blocks(ROOT / page) if one.language == "python")
    ran = subprocess.run(
        [sys.executable, "-c", program.replace(DOCUMENTED_URL, bus.url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_program_of_the_readme_prints_a_book(bus: Bus) -> None:
    printed = run_block("README.md", bus)

    assert re.fullmatch(r"BTC-USDT( [\d.]+){4}\n", printed)


def test_program_of_the_provider_page_prints_a_live_book(bus: Bus) -> None:
    printed = run_block("docs/reference/provider.md", bus)

    assert re.fullmatch(r"BTC-USDT [\d.]+ live\n", printed)


def test_program_of_several_exchanges_prints_both_and_their_opportunities(bus: Bus) -> None:
    book_line, *offers = run_block("docs/how-to/several-exchanges.md", bus).splitlines()

    assert re.fullmatch(r"(VenueLevel\(price=[\d.]+, .*exchange='\w+'\) ){2}\{.*\}", book_line)
    (offer,) = offers
    assert set(offer.split()[:2]) == {"binance", "upbit"}


def test_bot_of_the_tutorial_prints_what_it_reads() -> None:
    with ExitStack() as cleanup:
        url = cleanup.enter_context(LocalServer()).url
        exchange = cleanup.enter_context(SimulatorProcess(["BTCUSDT", "ETHUSDT"]))
        bus = Bus(url, exchange, cleanup)
        feeder = bus.feed(exchange, "binance")
        bot = subprocess.Popen(
            [sys.executable, "-c", block("docs/tutorial/first-bot.md", "python")],
            env=os.environ | {"BOOKBUS_REDIS_URL": url},
            stdout=subprocess.PIPE,
            text=True,
        )
        cleanup.enter_context(bot)
        cleanup.callback(bot.kill)
        assert bot.stdout is not None
        printed = iter(bot.stdout.readline, "")

        def read_until(beginning: str) -> str:
            for line in printed:
                if line.startswith(beginning):
                    return line
            raise AssertionError(f"the bot ended without {beginning!r}")

        prices = read_until("BTC-USDT ")
        feeder.signal(signal.SIGINT)
        closed = read_until("no trade: closed")
        bus.feed(exchange, "binance")
        read_until("BTC-USDT ")
        exchange.stop()
        suspect = read_until("no trade: suspect")

    assert re.fullmatch(r"BTC-USDT [\d.]+ (buy|sell|wait)\n", prices)
    assert re.match(r"no trade: closed (BTC|ETH): \w", closed)
    assert re.match(r"no trade: suspect (BTC|ETH): \w", suspect)


def test_every_fault_on_the_pages_is_accepted_by_the_exchange(bus: Bus) -> None:
    bodies = [
        json.loads(body)
        for page in PAGES
        for body in re.findall(r"curl -d '([^']+)' \S+/control/fault", page.read_text())
    ]

    for body in bodies:
        bus.binance.inject(**body)
        bus.binance.clear()

    assert len(bodies) > 3


def test_every_python_program_on_the_pages_is_run_here() -> None:
    # The strategy of the how-to is run by test_strategies.py.
    run = {
        "README.md",
        "docs/how-to/write-a-strategy.md",
        "docs/reference/provider.md",
        "docs/reference/redis.md",
        "docs/reference/wire-format.md",
        "docs/how-to/several-exchanges.md",
        "docs/tutorial/first-bot.md",
    }

    assert {name_of(page) for page in PAGES if any(one.language == "python" for one in blocks(page))} == run
