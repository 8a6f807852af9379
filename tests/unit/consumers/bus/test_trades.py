"""Trades from the bus: each once, in order, and none made up."""

from typing import Any

import fakeredis
import hiredis
import pytest
import redis

from bookbus.consumers.bus import trades as bus_trades
from bookbus.consumers.bus.trades import BusTradeTail, TradeSource
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.feeders.bus.publish_script import TradeStreamKey, trade_script_text
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import parse_redis_url
from bookbus.schemas.trade import Trade

NAMES = RedisNames()
STREAM = NAMES.trades("binance", "BTC-USDT")


def trade(trade_id: int, price: float = 100.0) -> Trade:
    return Trade("binance", "BTC-USDT", "BTCUSDT", trade_id, price, 0.5, "buy", 1_000_000, 1_100_000)


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def writer(server: fakeredis.FakeServer) -> Any:
    return fakeredis.FakeRedis(server=server)


@pytest.fixture
def tail(server: fakeredis.FakeServer) -> BusTradeTail:
    made = BusTradeTail(parse_redis_url("redis://127.0.0.1:1/0"), NAMES, "binance", "BTC-USDT", "BTCUSDT")
    made._client = fakeredis.FakeRedis(server=server, decode_responses=True)
    return made


def add(writer: Any, *trades: Trade) -> None:
    """Add them as a feeder does; only the newest 10,000 or a few more stay."""
    key = TradeStreamKey(NAMES, "binance", "BTC-USDT")
    for one in trades:
        reader = hiredis.Reader()
        reader.feed(key.pack(one))
        _, _, _, *arguments = reader.gets()
        writer.eval(trade_script_text(), 2, *arguments)


def test_only_trades_after_the_first_look_come_and_each_comes_once(writer: Any, tail: BusTradeTail) -> None:
    add(writer, trade(1))
    assert tail.take() == []

    add(writer, trade(2), trade(3, 101.5))

    assert tail.take() == [trade(2), trade(3, 101.5)]
    assert tail.take() == []


def test_trades_between_the_start_and_the_first_look_come(writer: Any, tail: BusTradeTail) -> None:
    add(writer, trade(1))
    tail.start()

    add(writer, trade(2), trade(3))

    assert tail.take() == [trade(2), trade(3)]
    assert tail.take() == []


def test_a_start_without_a_server_says_so_and_begins_when_it_is_back(
    server: fakeredis.FakeServer, writer: Any, tail: BusTradeTail
) -> None:
    server.connected = False
    tail.start()
    assert tail.error

    server.connected = True
    assert tail.take() == []
    add(writer, trade(1))
    assert tail.take() == [trade(1)]


def test_a_stream_that_does_not_exist_yet_is_read_from_its_first_trade(writer: Any, tail: BusTradeTail) -> None:
    assert tail.take() == []

    add(writer, trade(7))

    assert tail.take() == [trade(7)]


def test_more_trades_than_one_answer_holds_all_come(
    writer: Any, tail: BusTradeTail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_trades, "_BATCH", 3)
    tail.take()

    add(writer, *(trade(number) for number in range(1, 11)))

    assert [one.trade_id for one in tail.take()] == list(range(1, 11))


def test_what_is_no_trade_is_skipped_and_counted(writer: Any, tail: BusTradeTail) -> None:
    tail.take()
    writer.xadd(STREAM, {"price": "nonsense"})
    add(writer, trade(2))

    assert tail.take() == [trade(2)]
    assert tail.skipped == 1


def test_without_a_server_there_are_no_trades_and_a_reason_until_it_is_back(
    server: fakeredis.FakeServer, writer: Any, tail: BusTradeTail
) -> None:
    tail.take()
    server.connected = False
    assert tail.take() == []
    assert tail.error
    assert tail.trouble == tail.error

    server.connected = True
    add(writer, trade(1))

    assert tail.take() == [trade(1)]
    assert tail.error == ""


def test_the_redis_provider_is_a_source_of_trades_and_takes_any_spelling_of_a_symbol() -> None:
    provider = RedisMarketDataProvider("redis://127.0.0.1:1/0", "upbit", ["BTC"])

    tail = provider.trades("KRW-BTC")

    assert isinstance(provider, TradeSource)
    assert (tail._stream, tail._of) == ("md:trades:upbit:BTC-KRW", ("upbit", "BTC-KRW", "KRW-BTC"))


@pytest.mark.parametrize(("slept", "kept"), [(10, 3), (500, 100), (2, 1)])
def test_trades_that_left_the_stream_unread_are_counted_and_reported(
    writer: Any, tail: BusTradeTail, caplog: pytest.LogCaptureFixture, slept: int, kept: int
) -> None:
    add(writer, trade(1))
    tail.take()
    add(writer, *(trade(number) for number in range(2, slept + 2)))
    writer.xtrim(STREAM, maxlen=kept, approximate=False)

    trades = tail.take()

    assert [one.trade_id for one in trades] == list(range(slept + 2 - kept, slept + 2))
    assert tail.missed == slept - kept
    assert tail.error == f"{slept - kept} trades left {STREAM} before they were read"
    assert caplog.messages == [f"{tail.error}: read more often"]

    add(writer, trade(9_000))
    assert tail.take() == [trade(9_000)]
    assert (tail.missed, tail.error) == (slept - kept, "")


def test_trades_that_left_a_stream_that_was_empty_at_first_are_counted(writer: Any, tail: BusTradeTail) -> None:
    tail.take()
    add(writer, *(trade(number) for number in range(1, 8)))
    writer.xtrim(STREAM, maxlen=2, approximate=False)

    assert tail.take() == [trade(6), trade(7)]
    assert tail.missed == 5


def test_ids_that_fall_are_no_hole(writer: Any, tail: BusTradeTail) -> None:
    add(writer, trade(50))
    tail.take()

    add(writer, trade(9), trade(7), trade(2_000_000), trade(8))

    assert [one.trade_id for one in tail.take()] == [9, 7, 2_000_000, 8]
    assert (tail.missed, tail.error) == (0, "")


def test_after_a_loss_of_data_only_the_trades_of_the_new_stream_can_be_missed(writer: Any, tail: BusTradeTail) -> None:
    add(writer, *(trade(number) for number in range(1, 6)))
    tail.take()
    writer.flushall()
    add(writer, *(trade(number) for number in range(6, 10)))
    writer.xtrim(STREAM, maxlen=1, approximate=False)

    assert tail.take() == [trade(9)]
    assert (tail.missed, tail.resets) == (3, 1)


def test_a_loss_of_data_is_told_once(writer: Any, tail: BusTradeTail) -> None:
    add(writer, trade(1))
    tail.take()
    add(writer, trade(2))
    writer.flushall()
    add(writer, trade(3))

    assert tail.take() == [trade(3)]
    assert tail.error == f"the server lost trades of {STREAM}: some may be missing"
    assert (tail.take(), tail.error, tail.resets) == ([], "", 1)


def test_a_stream_that_begins_anew_while_the_clock_is_set_back_is_read_from_its_first_trade(
    writer: Any, tail: BusTradeTail
) -> None:
    tail.take()
    writer.xadd(STREAM, {**trade(1).fields(), "seq": "5-1"}, id="900-0")
    tail.take()
    writer.flushall()
    writer.xadd(STREAM, {**trade(2).fields(), "seq": "6-1"}, id="300-0")
    writer.xadd(STREAM, {**trade(3).fields(), "seq": "6-2"}, id="301-0")

    assert tail.take() == [trade(2), trade(3)]
    assert (tail.missed, tail.resets) == (0, 1)


def test_a_replica_that_took_over_without_the_last_trades_is_told_and_repeats_none(
    writer: Any, tail: BusTradeTail
) -> None:
    tail.take()
    for number in (1, 2, 3):
        writer.xadd(STREAM, {**trade(number).fields(), "seq": f"5-{number}"}, id=f"{number}00-0")
    tail.take()
    writer.xdel(STREAM, "300-0")

    assert tail.take() == []
    assert tail.resets == 1
    writer.xadd(STREAM, {**trade(4).fields(), "seq": "5-3"}, id="400-0")
    assert tail.take() == [trade(4)]
    assert (tail.missed, tail.resets) == (0, 1)


def test_trades_of_feeders_of_an_earlier_version_are_read_and_hide_holes(writer: Any, tail: BusTradeTail) -> None:
    tail.take()
    for one in (trade(3), trade(9)):
        fields = {name: value for name, value in one.fields().items() if name != "id"}
        writer.xadd(STREAM, fields, id=f"{one.trade_id}-0")
    add(writer, trade(10))

    assert tail.take() == [trade(3), trade(9), trade(10)]
    assert tail.missed == 0


def test_the_provider_starts_a_tail_at_once(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        provider = RedisMarketDataProvider(redis_url, "binance", ["BTC"])
        add(client, trade(1))
        tail = provider.trades("BTC")
        add(client, trade(2))

        assert tail.take() == [trade(2)]
        tail.close()
