"""`show` and `tail` against a real bus."""

import itertools
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import msgpack
import pytest
import redis
from typer.testing import CliRunner, Result

from bookbus.consumers.__main__ import make_app
from bookbus.schemas.redis_names import RedisNames
from tests.support.builders import book
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

app = make_app()

BTC = RedisNames().book("binance", "BTC-USDT")
NOBODY = "redis://:secret@127.0.0.1:1/0"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def writer(client: redis.Redis) -> Iterator[BusWriter]:
    writer = BusWriter(client)
    with writer.confirming():
        yield writer


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env=environment)


@pytest.mark.parametrize("name", ["BTC", "BTCUSDT", "BTC-USDT", "btc-usdt"])
def test_show_prints_the_book_by_any_of_its_names(redis_url: str, writer: BusWriter, name: str) -> None:
    writer.update(bids=((99.5, 1.25), (99.0, 2.0)), asks=((100.5, 1.5),))

    shown = run("show", name, "--redis", redis_url)

    assert (shown.exit_code, shown.stderr) == (0, "")
    for text in ("binance BTC-USDT (BTCUSDT) is live", "99.5", "1.25", "100.5", "100.00 bps", "update 100", "feeder A"):
        assert text in shown.stdout


def test_show_takes_its_options_from_the_environment(redis_url: str, client: redis.Redis) -> None:
    writer = BusWriter(client, prefix="other")
    writer.update("BTC-KRW", exchange="upbit", native="KRW-BTC")
    options = {
        "BOOKBUS_REDIS_URL": redis_url,
        "BOOKBUS_EXCHANGE": "upbit",
        "BOOKBUS_PREFIX": "other",
        "BOOKBUS_LEVELS": "1",
    }

    with writer.confirming():
        shown = run("show", "BTC", **options)

    assert shown.exit_code == 0
    assert "upbit BTC-KRW (KRW-BTC) is live" in shown.stdout
    assert "99.0" not in shown.stdout


def test_show_as_json_has_every_field(redis_url: str, writer: BusWriter) -> None:
    writer.update(bids=((99.5, 1.25),))

    shown = json.loads(run("show", "BTC", "--json", "--redis", redis_url).stdout)

    assert (shown["symbol"], shown["status"], shown["bids"]) == ("BTC-USDT", "live", [[99.5, 1.25]])
    assert {"seq", "age", "feeder", "exchange_us", "received_us", "published_us", "depth"} <= shown.keys()


def test_show_of_a_book_that_is_not_live_says_why_and_fails(redis_url: str, writer: BusWriter) -> None:
    writer.update()
    writer.submit(book(state="suspect"), "state")

    shown = run("show", "BTC", "--redis", redis_url)

    assert shown.exit_code == 1
    assert "is suspect: it is out of sync" in shown.stdout
    assert "99.5" in shown.stdout


def test_show_of_a_book_that_is_not_there_names_near_ones(redis_url: str, writer: BusWriter) -> None:
    writer.update("BTC-USDT")

    shown = run("show", "BTCC-USDT", "--redis", redis_url)

    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr == (
        "error: BTCC-USDT: no book was received yet; did you mean BTC-USDT? (exchange binance, prefix md)\n"
    )


def test_show_prints_what_does_not_fit_the_type(redis_url: str, client: redis.Redis) -> None:
    of_another_version = msgpack.packb({"v": 2, "seq": 7, "symbol": "BTC-USDT", "new": [1, b"\xff"]})
    client.hset(BTC, mapping={"seq": "7", "feeder": "B", "book": of_another_version})

    shown = run("show", "BTC", "--redis", redis_url)

    assert shown.exit_code == 1
    stored = json.loads(shown.stdout)
    assert (stored["seq"], stored["feeder"]) == ("7", "B")
    assert (stored["book"]["v"], stored["book"]["new"]) == (2, [1, repr(b"\xff")])
    assert "is no book" in shown.stderr
    assert shown.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["show", "tail"])
def test_without_a_server_a_one_line_error_says_what_to_do(command: str) -> None:
    done = run(command, "BTC", "--redis", NOBODY)

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "`make redis` or `docker compose up redis`" in done.stderr
    assert "secret" not in done.stderr


@pytest.mark.parametrize("command", ["show", "tail"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["BTC", "--exchange", "nowhere"], "unknown exchange 'nowhere'"),
        (["B T C"], "is no symbol of binance"),
        (["BTC", "--redis", "http://x"], "not a usable Redis URL"),
        (["BTC", "--prefix", "a b"], "prefix 'a b'"),
    ],
)
def test_what_cannot_be_is_one_line(redis_url: str, command: str, arguments: list[str], message: str) -> None:
    done = run(command, *arguments, BOOKBUS_REDIS_URL=redis_url)

    assert done.exit_code == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_tail_prints_a_line_for_each_change_until_a_signal(
    redis_url: str, writer: BusWriter, number: signal.Signals, code: int
) -> None:
    writer.update("BTC-USDT", 1)
    command = [sys.executable, "-m", "consumers", "tail", "BTC", "ETH", "--redis", redis_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            writer.update("ETH-USDT", 2, bids=((7.5, 3.0),), asks=((8.5, 1.0),))
            second = process.stdout.readline()
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
        finally:
            process.kill()

    # How long the command takes to start must not matter.
    assert re.match(r"BTC-USDT     (live|stale)  +99.5 x 1 \| 100.5 x 1.5  100.00 bps  seq \d+  age ", first)
    assert re.match(r"ETH-USDT     live     7.5 x 3 \| 8.5 x 1 ", second)
    assert (process.returncode, errors) == (code, "")


def test_tail_as_json_ends_quietly_when_nobody_reads_on(redis_url: str, writer: BusWriter) -> None:
    writer.update("BTC-USDT", 1)
    command = f"{sys.executable} -m consumers tail '*' --json --redis {redis_url} | head -n 1"
    with subprocess.Popen(
        ["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        line = json.loads(process.stdout.readline())
        for update_id in range(2, 400):
            writer.update("BTC-USDT", update_id)
            if process.poll() is not None:
                break
        _, errors = process.communicate(timeout=30)

    assert (line["symbol"], line["seq"] > 0, line["conflated"]) == ("BTC-USDT", True, 0)
    assert errors == ""


@pytest.mark.parametrize("command", ["show", "tail"])
def test_help_has_examples(command: str) -> None:
    shown = run(command, "--help", COLUMNS="200")

    assert f"python -m consumers {command} " in shown.stdout
    assert "BOOKBUS_REDIS_URL" in shown.stdout


@pytest.mark.parametrize("names", [["*"], ["BTC", "ETH/USDT"]])
def test_tail_begins_when_the_first_books_do(redis_url: str, writer: BusWriter, names: list[str]) -> None:
    command = [sys.executable, "-m", "consumers", "tail", *names, "--redis", redis_url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as tail:
        try:
            wait_for(lambda: writer.client.client_list(_type="pubsub") or names == ["*"], 30, "the reader")
            time.sleep(1)
            writer.update("BTC-USDT")
            writer.update("ETH-USDT")
            assert tail.stdout is not None
            # A book that nobody confirms again comes once more, as stale.
            lines = (line.split()[0] for line in tail.stdout)
            shown: set[str] = set()
            while shown < {"BTC-USDT", "ETH-USDT"}:
                shown.add(next(lines))
            # Later books follow as well.
            if names == ["*"]:
                writer.update("SOL-USDT")
                assert "SOL-USDT" in itertools.islice(lines, 10)
        finally:
            tail.terminate()

    assert shown == {"BTC-USDT", "ETH-USDT"}


@pytest.mark.parametrize("command", ["show", "tail"])
@pytest.mark.parametrize("name", ["!!", "BTC/USDT:USDT", "BTC-USDT-PERP"])
def test_what_can_be_no_symbol_is_refused_at_once(redis_url: str, command: str, name: str) -> None:
    refused = run(command, name, "--redis", redis_url)

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith(f"error: {name!r} is no symbol of binance; write it like BTC")
