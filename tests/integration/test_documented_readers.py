"""The readers in the documentation work as printed, against a real server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.wire import encode
from tests.support.builders import book

ROOT = Path(__file__).parents[2]
BOOK = book(seq=1_700_000_000_000_042, bids=((64_999.5, 0.25),), asks=((65_000.5, 1.5),))
NAME = RedisNames().book(BOOK.exchange, BOOK.symbol)


def example(page: str, language: str) -> str:
    """The one example on the page in this language."""
    text = (ROOT / "docs" / page).read_text()
    (source,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return str(source)


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
    words = printed_by([sys.executable, "-"], example("wire-format.md", "python"), redis_url)

    assert words == ["BTC-USDT", "live", "1700000000000042", "64999.5", "0.25", "65000.5", "1.5"]


def test_javascript_reader_prints_the_book(redis_url: str) -> None:
    node = shutil.which("node")
    if node is None or not all((ROOT / "node_modules" / name).exists() for name in ("redis", "@msgpack/msgpack")):
        pytest.skip("needs node and, in this folder, npm install --no-save redis @msgpack/msgpack")

    words = printed_by([node, "--input-type=module", "-"], example("wire-format.md", "javascript"), redis_url)

    assert words == ["BTC-USDT", "live", "1700000000000042", "64999.5", "0.25", "65000.5", "1.5"]


def test_python_follower_prints_the_book_and_each_newer_one(redis_url: str) -> None:
    source = example("redis.md", "python").replace("redis.Redis()", f"redis.Redis.from_url({redis_url!r})")
    newer = book(seq=BOOK.seq + 1, bids=((65_000.0, 1.0),), asks=())

    with redis.Redis.from_url(redis_url) as server:
        server.hset(NAME, "book", encode(BOOK))
        with subprocess.Popen([sys.executable, "-u", "-c", source], stdout=subprocess.PIPE, text=True) as follower:
            try:
                assert follower.stdout is not None
                first = follower.stdout.readline()
                server.publish(NAME, encode(BOOK))
                server.publish(NAME, encode(newer))
                second = follower.stdout.readline()
            finally:
                follower.kill()

    assert (first, second) == ("live [64999.5, 0.25] [65000.5, 1.5]\n", "live [65000.0, 1.0]\n")
