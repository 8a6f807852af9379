"""RedisMarketDataProvider on fakeredis: what it makes of what is stored and published."""

from collections.abc import Iterator

import pytest
import redis

from bookbus.consumers.reading import ConnectionStatus
from bookbus.consumers.redis_provider import Mode, RedisMarketDataProvider
from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import BookStatus
from tests.support.builders import book
from tests.support.fake_server import fake_server
from tests.support.waiting import wait_for
from tests.support.writer import BusWriter

BTC = RedisNames().book("binance", "BTC-USDT")
MODES: tuple[Mode, ...] = ("push", "pull")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with fake_server() as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url, protocol=2) as client:
        client.flushall()
        yield client


@pytest.fixture
def writer(client: redis.Redis) -> Iterator[BusWriter]:
    writer = BusWriter(client)
    with writer.confirming():
        yield writer


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> Mode:
    chosen: Mode = request.param
    return chosen


def test_books_that_are_there_are_there_after_start(url: str, writer: BusWriter, mode: Mode) -> None:
    writer.submit_all([book("BTC-USDT", update_id=5), book("ETH-USDT", update_id=6)])
    with RedisMarketDataProvider(url, "binance", ["BTC", "ETHUSDT"], mode) as provider:
        found = {name: snapshot and snapshot.update_id for name, snapshot in provider.get_many(["BTC", "ETH"]).items()}

    assert found == {"BTC": 5, "ETH": 6}


def test_what_comes_later_is_read_too(url: str, writer: BusWriter, mode: Mode) -> None:
    with RedisMarketDataProvider(url, "binance", ["BTC"], mode) as provider:
        for update_id in (1, 2, 3):
            assert writer.update(update_id=update_id) == 1
        wait_for(lambda: provider.status("BTC").update_id == 3)
        status = provider.status("BTC")

    assert (status.state, status.missed, status.resets, status.skipped) == (BookStatus.LIVE, 0, 0, 0)
    assert status.feeder == "A"


def test_what_came_between_two_questions_is_conflated_not_missed(url: str, writer: BusWriter) -> None:
    writer.update(update_id=1)
    with RedisMarketDataProvider(url, "binance", ["BTC"], "pull") as provider:
        for update_id in (2, 3, 4):
            writer.update(update_id=update_id)
        status = provider.status("BTC")

    assert (status.update_id, status.received, status.conflated, status.missed) == (4, 4, 2, 0)


def test_symbols_may_be_one_text(url: str) -> None:
    assert RedisMarketDataProvider(url, "upbit", "BTC, ETH").symbols == ["BTC-KRW", "ETH-KRW"]


def test_prefixes_do_not_mix(url: str, client: redis.Redis, mode: Mode) -> None:
    writer = BusWriter(client, prefix="test")
    writer.update(update_id=9)
    with (
        writer.confirming(),
        RedisMarketDataProvider(url, "binance", ["BTC"], mode) as usual,
        RedisMarketDataProvider(url, "binance", ["BTC"], mode, prefix="test") as other,
    ):
        assert usual.get_latest_snapshot("BTC") is None
        assert other.read("BTC").require_live().update_id == 9


def test_a_snapshot_is_decoded_once(url: str, writer: BusWriter, mode: Mode) -> None:
    writer.update()
    with RedisMarketDataProvider(url, "binance", ["BTC"], mode) as provider:
        assert provider.get_latest_snapshot("BTC") is provider.get_latest_snapshot("BTCUSDT")


def test_a_shorter_limit_can_be_asked_for_a_single_read(url: str, writer: BusWriter, mode: Mode) -> None:
    writer.update()
    with RedisMarketDataProvider(url, "binance", ["BTC"], mode) as provider:
        wait_for(lambda: provider.read("BTC", max_age=0.01).status is not BookStatus.LIVE)
        strict, usual = provider.read("BTC", max_age=0.01), provider.read("BTC")

    assert (strict.status, usual.status) == (BookStatus.STALE, BookStatus.LIVE)
    assert strict.reason.startswith("BTC: not confirmed for ")
    assert strict.snapshot is usual.snapshot


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"exchange": "nowhere"}, SymbolError, "unknown exchange 'nowhere'; known: binance"),
        ({"symbols": ["B T C"]}, SymbolError, "is no symbol of binance"),
        ({"symbols": []}, ValueError, "no symbols asked for"),
        ({"symbols": ""}, ValueError, "is no symbol"),
        ({"mode": "both"}, ValueError, "'push' or 'pull'"),
        ({"max_age": 0}, ValueError, "max_age"),
        ({"prefix": "a:b"}, ValueError, "prefix"),
        ({"url": "http://:secret@x"}, ValueError, "not a usable Redis URL"),
    ],
)
def test_what_cannot_be_is_refused_at_once(arguments: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        RedisMarketDataProvider(**arguments)  # type: ignore[arg-type]

    assert "secret" not in str(caught.value)


def test_status_before_start_says_so() -> None:
    provider = RedisMarketDataProvider(symbols=["BTC"])

    status = provider.get_connection_status()

    assert status == ConnectionStatus(
        is_running=False,
        connected=False,
        thread_alive=False,
        reconnect_count=0,
        error="not started",
        symbols={"BTC-USDT": provider.status("BTC")},
    )
    assert provider.read("BTC").reason == "BTC: not started"
