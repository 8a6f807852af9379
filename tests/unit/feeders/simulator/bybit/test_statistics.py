"""Bybit's figures of trades, with the values that follow from the tape, and request ids of both kinds."""

import json

import pytest

from bookbus.feeders.simulator.bybit import messages, statistics
from bookbus.feeders.simulator.core.feed import LiveFeed
from bookbus.feeders.simulator.core.market import SimulatedFill, instruments
from bookbus.feeders.simulator.core.settings import SimulatorSettings
from bookbus.feeders.simulator.core.tape import MINUTE

NOW = 1_770_897_600_000
BOUGHT = SimulatedFill(7, "buy", 6_200_000, 150_000, 101, 2)
SOLD = SimulatedFill(8, "sell", 6_100_000, 50_000, 102, 1)


def feed_of(*fills: SimulatedFill) -> LiveFeed:
    (instrument,) = instruments(["BTCUSDT"])
    feed = LiveFeed(instrument, SimulatorSettings(levels=120), truth_depth=50)
    feed.tape.record(fills, NOW - 30_000)
    return feed


def test_a_candle_of_rest_is_a_row_of_texts() -> None:
    feed = feed_of(BOUGHT, SOLD)
    (candle,) = feed.tape.candles(MINUTE, 1, NOW - 1)

    assert statistics.candle_answer(feed.instrument, candle) == [
        str(NOW - MINUTE),
        "62000.00000000",
        "62000.00000000",
        "61000.00000000",
        "61000.00000000",
        "2.00000000",
        "123500.00000000",
    ]


@pytest.mark.parametrize(("name", "confirm"), [("1", True), ("60", False)])
def test_a_candle_topic_confirms_what_has_ended(name: str, confirm: bool) -> None:
    topic = f"kline.{name}.BTCUSDT"

    message = json.loads(statistics.candle_message(topic, feed_of(BOUGHT, SOLD), name, NOW + MINUTE * (name == "60")))

    (candle,) = message["data"]
    assert (message["topic"], message["type"]) == (topic, "snapshot")
    assert (candle["interval"], candle["confirm"]) == (name, confirm)
    assert candle["end"] - candle["start"] == int(name) * MINUTE - 1


def test_the_day_adds_trades_to_what_was_traded_before_the_market_began() -> None:
    feed = feed_of(BOUGHT, SOLD)
    before = feed.instrument.typical_steps * 1000

    day = statistics.day(feed, NOW)

    assert day["volume24h"] == feed.instrument.quantity_text(before + 200_000)
    assert (day["lastPrice"], day["prevPrice24h"]) == ("61000.00000000", "62000.00000000")
    assert day["price24hPcnt"] == "-0.0161"
    assert {*statistics.day_answer(feed, NOW)} - {*day} == {"bid1Price", "bid1Size", "ask1Price", "ask1Size"}


def test_trades_of_rest_have_the_ids_of_the_topic() -> None:
    feed = feed_of(BOUGHT)
    topic = json.loads(messages.trades("publicTrade.BTCUSDT", feed.instrument, [BOUGHT], 1, NOW, 10)[0])

    (trade,) = statistics.trade_answers(feed.instrument, feed.tape.recent)

    assert (trade["execId"], trade["price"], trade["size"], trade["side"]) == (
        topic["data"][0]["i"],
        "62000.00000000",
        "1.50000000",
        "Buy",
    )


@pytest.mark.parametrize("request_id", [7, "7", "0b1f-uuid"])
def test_a_request_id_comes_back_as_it_was(request_id: int | str) -> None:
    request = json.dumps({"op": "ping", "req_id": request_id})

    assert json.loads(messages.answer(request, "c", 10, (), lambda _: True).text)["req_id"] == request_id
