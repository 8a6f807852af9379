"""Binance's figures of trades: candles, rolling windows and trades, with the values that follow from the tape."""

import json
from typing import Any

import pytest

from bookbus.feeders.simulator.binance import statistics
from bookbus.feeders.simulator.core.feed import LiveFeed
from bookbus.feeders.simulator.core.market import SimulatedFill, instruments
from bookbus.feeders.simulator.core.settings import SimulatorSettings
from bookbus.feeders.simulator.core.tape import DAY, HOUR, MINUTE, TimedFill

NOW = 1_770_897_600_000
"""A full minute."""


def feed_of(*fills: SimulatedFill, at: int = NOW - 30_000) -> LiveFeed:
    (instrument,) = instruments(["BTCUSDT"])
    feed = LiveFeed(instrument, SimulatorSettings(levels=120), truth_depth=20)
    feed.tape.record(fills, at)
    return feed


BOUGHT = SimulatedFill(7, "buy", 6_200_000, 150_000, 101, 2)  # 62,000 × 1.5
SOLD = SimulatedFill(8, "sell", 6_100_000, 50_000, 102, 1)  # 61,000 × 0.5


def test_a_candle_of_rest_has_twelve_fields() -> None:
    feed = feed_of(BOUGHT, SOLD)
    (candle,) = feed.tape.candles(MINUTE, 1, NOW - 1)

    assert statistics.candle_answer(feed.instrument, candle, MINUTE, 0) == [
        NOW - MINUTE,
        "62000.00000000",
        "62000.00000000",
        "61000.00000000",
        "61000.00000000",
        "2.00000000",
        NOW - 1,
        "123500.00000000",
        3,
        "1.50000000",
        "93000.00000000",
        "0",
    ]


@pytest.mark.parametrize(("unit", "end"), [(1, NOW - 1), (1000, NOW * 1000 - 1)])
def test_a_candle_event_says_when_its_candle_ended_in_the_unit_asked_for(unit: int, end: int) -> None:
    feed = feed_of(BOUGHT, SOLD)
    (candle,) = feed.tape.candles(MINUTE, 1, NOW - 1)

    text = statistics.candle_event(feed.instrument, candle, "1m", 0, NOW, NOW * unit)

    event = json.loads(text)
    assert (event["e"], event["E"], event["s"]) == ("kline", NOW * unit, "BTCUSDT")
    body: dict[str, Any] = event["k"]
    assert list(body) == [*"tTsifLochlvnxqVQB"]
    assert (body["t"], body["T"], body["i"], body["x"]) == ((NOW - MINUTE) * unit, end, "1m", True)
    assert (body["f"], body["L"], body["n"], body["c"]) == (100, 102, 3, "61000.00000000")


def test_an_empty_candle_names_no_trades_and_has_not_ended_within_its_time() -> None:
    feed = feed_of()
    (candle,) = feed.tape.candles(HOUR, 1, NOW + 1)

    body = json.loads(statistics.candle_event(feed.instrument, candle, "1h", 0, NOW + 1, NOW + 1))["k"]

    assert (body["f"], body["L"], body["n"], body["x"], body["v"]) == (-1, -1, 0, False, "0.00000000")


def test_the_figures_of_a_window_follow_from_its_trades() -> None:
    found = statistics.figures(feed_of(BOUGHT, SOLD), HOUR, NOW)

    assert found["openPrice"] == found["highPrice"] == "62000.00000000"
    assert found["lowPrice"] == found["lastPrice"] == "61000.00000000"
    assert (found["priceChange"], found["priceChangePercent"]) == ("-1000.00000000", "-1.613")
    assert found["weightedAvgPrice"] == "61750.00000000"
    assert (found["volume"], found["quoteVolume"], found["lastQty"]) == (
        "2.00000000",
        "123500.00000000",
        "0.50000000",
    )
    assert (found["openTime"], found["closeTime"]) == (NOW - HOUR, NOW)
    assert (found["firstId"], found["lastId"], found["count"]) == (100, 102, 3)


def test_a_market_without_trades_has_its_best_bid_as_last_price_and_a_synthetic_day() -> None:
    feed = feed_of()
    volumes = statistics.volumes([feed])

    found = statistics.figures(feed, DAY, NOW, volumes["BTCUSDT"])

    assert found["lastPrice"] == found["bidPrice"]
    assert float(found["quoteVolume"]) == pytest.approx(2_000_000_000, rel=1e-6)
    assert (found["firstId"], found["count"]) == (-1, 0)


def test_a_stream_tells_a_window_by_short_names() -> None:
    found = statistics.figures(feed_of(BOUGHT, SOLD), DAY, NOW)

    mini = statistics.event(statistics.WINDOWS["miniTicker"], found, NOW)
    ticker = statistics.event(statistics.WINDOWS["ticker"], found, NOW * 1000)

    assert mini == {
        "e": "24hrMiniTicker",
        "E": NOW,
        "s": "BTCUSDT",
        "c": "61000.00000000",
        "o": "62000.00000000",
        "h": "62000.00000000",
        "l": "61000.00000000",
        "v": "2.00000000",
        "q": "123500.00000000",
    }
    assert list(ticker) == [*"eEspPwxcQbBaAohlvqOCFLn"]
    assert (ticker["O"], ticker["C"]) == ((NOW - DAY) * 1000, NOW * 1000)


def test_rest_leaves_out_what_a_form_does_not_have() -> None:
    found = statistics.figures(feed_of(), DAY, NOW)

    short = set(statistics.answer(found, short=True))
    rolling = set(statistics.answer(found, short=False, rolling=True))

    assert len(statistics.answer(found, short=False)) == 21
    assert rolling - short == {"priceChange", "priceChangePercent", "weightedAvgPrice"}
    assert short == {
        *("symbol", "openPrice", "highPrice", "lowPrice", "lastPrice", "volume", "quoteVolume"),
        *("openTime", "closeTime", "firstId", "lastId", "count"),
    }


def test_the_average_price_is_that_of_five_minutes() -> None:
    feed = feed_of(BOUGHT, at=NOW - HOUR)
    feed.tape.record([SOLD], NOW - MINUTE)

    assert json.loads(statistics.average_event(feed, NOW, NOW)) == {
        "e": "avgPrice",
        "E": NOW,
        "s": "BTCUSDT",
        "i": "5m",
        "w": "61000.00000000",
        "T": NOW - MINUTE,
    }


def test_single_trades_share_the_quantity_of_their_aggregate() -> None:
    (instrument,) = instruments(["BTCUSDT"])
    trades = [TimedFill(BOUGHT, NOW)]

    singles = statistics.trade_answers(instrument, trades)
    (aggregate,) = statistics.aggregate_answers(instrument, trades)

    assert [(single["id"], single["qty"], single["quoteQty"]) for single in singles] == [
        (100, "0.75000000", "46500.00000000"),
        (101, "0.75000000", "46500.00000000"),
    ]
    assert {single["isBuyerMaker"] for single in singles} == {False}
    assert aggregate == {
        "a": 7,
        "p": "62000.00000000",
        "q": "1.50000000",
        "f": 100,
        "l": 101,
        "T": NOW,
        "m": False,
        "M": True,
    }
