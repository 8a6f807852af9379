"""The readers in docs/wire-format.md work as printed, against a real server."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from schemas.redis_names import RedisNames
from schemas.wire import encode
from tests.support.builders import book

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "wire-format.md").read_text()
BOOK = book(seq=1_700_000_000_000_042, bids=((64_999.5, 0.25),), asks=((65_000.5, 1.5),))
NAME = RedisNames().book(BOOK.exchange, BOOK.symbol)


def example(language: str) -> str:
    """The one example on the page in this language."""
    (source,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
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
    words = printed_by([sys.executable, "-"], example("python"), redis_url)

    assert words == ["BTC-USDT", "live", "1700000000000042", "64999.5", "0.25", "65000.5", "1.5"]


def test_javascript_reader_prints_the_book(redis_url: str) -> None:
    node = shutil.which("node")
    if node is None or not all((ROOT / "node_modules" / name).exists() for name in ("redis", "@msgpack/msgpack")):
        pytest.skip("needs node and, in this folder, npm install --no-save redis @msgpack/msgpack")

    words = printed_by([node, "--input-type=module", "-"], example("javascript"), redis_url)

    assert words == ["BTC-USDT", "live", "1700000000000042", "64999.5", "0.25", "65000.5", "1.5"]
