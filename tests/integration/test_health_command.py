"""`python -m feeders health`, as a container's health check calls it."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from typer.testing import CliRunner

from bookbus.feeders.__main__ import make_app
from bookbus.schemas.heartbeat import FeederHeartbeat, LineReport, heartbeat_fields
from bookbus.schemas.redis_names import RedisNames
from tests.support.writer import BusWriter

app = make_app()


def check(url: str, *options: str) -> tuple[int, str]:
    """Exit code and everything printed."""
    result = CliRunner().invoke(app, ["health", "--redis", url, *options])
    return result.exit_code, result.output


def beat(url: str, host: str, feeder: str = "a", prefix: str = "md", **more: Any) -> None:
    """Write the heartbeat of a feeder on `host`."""
    known: dict[str, Any] = {"exchange": "binance", "endpoint": "wss://x", "pid": 1, "states": {}, "time_us": 0}
    heartbeat = FeederHeartbeat(feeder=feeder, host=host, started_us=0, **known | more)
    fields: dict[Any, Any] = {**heartbeat_fields(heartbeat)}
    with redis.Redis.from_url(url) as client:
        client.hset(RedisNames(prefix).feeder(feeder), mapping=fields)


@contextlib.contextmanager
def beating(url: str) -> Iterator[None]:
    """The heartbeats that are stored advance, as those of living feeders do."""
    stopping = threading.Event()

    def run() -> None:
        with redis.Redis.from_url(url) as client:
            while not stopping.wait(0.02):
                for key in client.scan_iter("*:feeder:*"):
                    client.hincrby(key, "time_us", 20_000)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


@pytest.fixture(autouse=True)
def _living(request: pytest.FixtureRequest, redis_url: str) -> Iterator[None]:
    with contextlib.nullcontext() if "dead" in request.node.name else beating(redis_url):
        yield


@pytest.mark.parametrize("ahead", [-600, 0, 600])
def test_a_heartbeat_that_does_not_advance_is_that_of_a_dead_feeder(redis_url: str, ahead: int) -> None:
    beat(redis_url, socket.gethostname(), time_us=time.time_ns() // 1000 + ahead * 1_000_000)

    assert check(redis_url) == (1, f"error: no feeder on {socket.gethostname()} is alive\n")


def test_a_dead_feeder_does_not_hide_a_living_one(redis_url: str) -> None:
    beat(redis_url, socket.gethostname(), "dead")
    with redis.Redis.from_url(redis_url) as client:
        living = BusWriter(client, "living")
        over = threading.Event()

        def run() -> None:
            while not over.wait(0.05):
                living.heartbeat([])

        thread = threading.Thread(target=run)
        thread.start()
        try:
            assert check(redis_url, "--host", "test") == (0, "md:feeder:living\n")
        finally:
            over.set()
            thread.join()
    assert check(redis_url, "--host", "test")[0] == 1


def test_a_feeder_on_this_host_is_healthy(redis_url: str) -> None:
    beat(redis_url, socket.gethostname())

    assert check(redis_url) == (0, "md:feeder:a\n")


REFUSED = {f"S{number}-USDT": "feeder b publishes it" for number in range(7)}


@pytest.mark.parametrize(("refused", "code"), [({}, 0), (REFUSED, 2)])
def test_strictly_a_feeder_whose_books_are_refused_is_not_healthy(
    redis_url: str, refused: dict[str, str], code: int
) -> None:
    beat(redis_url, socket.gethostname(), states={"S0-USDT": "live"}, refused_books=refused)

    exit_code, output = check(redis_url, "--strict")

    assert exit_code == code
    rows = [row for row in output.splitlines() if "refused" in row]
    assert rows[:1] == (["  S0-USDT refused: feeder b publishes it"] if refused else [])
    assert rows[5:] == (["  and 2 more books refused"] if refused else [])
    assert check(redis_url)[0] == 0


LINES = [
    LineReport(
        line=1, connections=1, open=1, reconnects=0, updates=90, first=80, lead_median_ms=1.25, lead_p99_ms=20.0
    ),
    LineReport(line=2, connections=1, open=0, reconnects=3, updates=70, first=10, silent=True),
]


def test_the_books_and_each_line_have_a_row(redis_url: str) -> None:
    counters = {"accepted": 12.0, "confirmed": 9.0, "duplicates": 3.0, "frames": 99.0}
    states = {"BTC-USDT": "live", "ETH-USDT": "suspect"}
    beat(redis_url, socket.gethostname(), states=states, counters=counters, lines=LINES)

    assert check(redis_url) == (
        0,
        "md:feeder:a\n"
        "  1 of 2 books live; 12 accepted, 9 already present, 3 older\n"
        "  line 1: 1 of 1 open, first with 80 of 90 updates, by 1.2 ms (median), 20.0 ms (p99)\n"
        "  line 2: SILENT, 0 of 1 open, first with 10 of 70 updates\n",
    )


@pytest.mark.parametrize(
    ("states", "lines", "code"),
    [
        pytest.param({"BTC-USDT": "live"}, LINES[:1], 0, id="healthy"),
        pytest.param({"BTC-USDT": "live"}, LINES, 2, id="a silent line"),
        pytest.param({"BTC-USDT": "live", "ETH-USDT": "syncing"}, [], 2, id="a book that is not live"),
        pytest.param({}, [], 2, id="no book"),
    ],
)
def test_a_strict_check_needs_live_books_and_no_silent_line(
    redis_url: str, states: dict[str, Any], lines: list[LineReport], code: int
) -> None:
    beat(redis_url, socket.gethostname(), states=states, lines=lines)

    assert check(redis_url)[0] == 0
    assert check(redis_url, "--strict")[0] == code


def test_fields_in_the_format_of_another_version_are_left_out(redis_url: str) -> None:
    beat(redis_url, socket.gethostname())
    with redis.Redis.from_url(redis_url) as client:
        client.hset("md:feeder:a", mapping={"lines": '[{"line":"one"}]'})

    assert check(redis_url) == (0, "md:feeder:a\n")


def test_no_feeder_is_not_healthy(redis_url: str) -> None:
    assert check(redis_url) == (1, f"error: no feeder on {socket.gethostname()} is alive\n")


def test_feeders_of_other_hosts_and_prefixes_do_not_count(redis_url: str) -> None:
    beat(redis_url, "elsewhere")
    beat(redis_url, socket.gethostname(), prefix="paper")

    assert check(redis_url)[0] == 1
    assert check(redis_url, "--host", "elsewhere")[0] == 0
    assert check(redis_url, "--prefix", "paper")[0] == 0


def test_a_server_that_does_not_answer_is_a_one_line_error_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    code, output = check(f"redis://:secret@127.0.0.1:{port}/0")

    assert code == 1
    assert output.startswith(f"error: no reply from redis://:***@127.0.0.1:{port}/0")
    assert "secret" not in output
    assert output.count("\n") == 1


@pytest.mark.parametrize("options", [["--prefix", "a:b"], ["--redis", "nonsense"]])
def test_a_wrong_option_is_a_one_line_error(redis_url: str, options: list[str]) -> None:
    code, output = check(redis_url, *options)

    assert code == 1
    assert output.startswith("error: ")
    assert output.count("\n") == 1


HERE = socket.gethostname()


@pytest.mark.parametrize(
    ("options", "code", "output"),
    [
        (("--exchange", "upbit"), 0, "md:feeder:up-aaaaaa\n"),
        (("--exchange", "binance"), 1, f"error: no feeder of binance on {HERE} is alive\n"),
        (("--exchange", "upbit,binance"), 1, f"error: no feeder of binance on {HERE} is alive\n"),
        (("--exchange", "bybit,upbit"), 0, "md:feeder:by-1-bbbbbb\nmd:feeder:up-aaaaaa\n"),
        (("--feeder-name", "up"), 0, "md:feeder:up-aaaaaa\n"),
        (("--feeder-name", "by-1"), 0, "md:feeder:by-1-bbbbbb\n"),
        (("--feeder-name", "by"), 1, f"error: no feeder called by on {HERE} is alive\n"),
        (("--feeder-name", "up,down"), 1, f"error: no feeder called down on {HERE} is alive\n"),
        (
            ("--exchange", "upbit", "--feeder-name", "by-1"),
            1,
            f"error: no feeder of upbit on {HERE} is alive; no feeder called by-1 on {HERE} is alive\n",
        ),
    ],
)
@pytest.mark.parametrize("strict", [(), ("--strict",)])
def test_only_what_is_expected_counts_and_all_of_it(
    redis_url: str, options: tuple[str, ...], code: int, output: str, strict: tuple[str, ...]
) -> None:
    for feeder, exchange in (("up-aaaaaa", "upbit"), ("by-1-bbbbbb", "bybit")):
        beat(redis_url, HERE, feeder, exchange=exchange)
    beat(redis_url, "elsewhere", "bin-cccccc", exchange="binance")

    checked = check(redis_url, *options, *strict)

    assert checked == (code or (2 if strict else 0), output)


def test_a_strict_check_looks_at_the_expected_feeders_alone(redis_url: str) -> None:
    beat(redis_url, HERE, "up-aaaaaa", exchange="upbit", states={"BTC-KRW": "live"})
    beat(redis_url, HERE, "bin-bbbbbb", exchange="binance", states={"BTC-USDT": "suspect"})

    assert check(redis_url, "--strict")[0] == 2
    assert check(redis_url, "--strict", "--exchange", "upbit")[0] == 0
    assert check(redis_url, "--strict", "--exchange", "binance")[0] == 2


def test_health_imports_neither_redis_py_nor_the_exchanges() -> None:
    program = (
        "import sys\nsys.argv[1:] = ['health', '--redis', 'redis://127.0.0.1:1/0']\n"
        "from bookbus.feeders.__main__ import main\n"
        "try:\n    main()\nfinally:\n    print({'redis', 'aiohttp', 'websockets', 'rich', 'uvloop'} & {*sys.modules})\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.stdout == "set()\n"


def test_dropped_trades_have_a_row(redis_url: str) -> None:
    beat(redis_url, socket.gethostname(), counters={"trades": 5.0, "trades_dropped": 3.0})

    found = check(redis_url)

    assert found == (
        0,
        "md:feeder:a\n  3 trades dropped: Redis refused them or there was no room, see the feeder's log\n",
    )
