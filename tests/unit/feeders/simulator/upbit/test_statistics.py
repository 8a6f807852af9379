"""Upbit's figures of trades, its won grid, and the spellings of a request."""

import json
from typing import Any

import pytest

from bookbus.feeders.simulator.core.feed import LiveFeed
from bookbus.feeders.simulator.core.market import SimulatedFill, SimulatedInstrument, instruments
from bookbus.feeders.simulator.core.settings import SimulatorSettings
from bookbus.feeders.simulator.core.tape import DAY, MINUTE
from bookbus.feeders.simulator.upbit import statistics
from bookbus.feeders.simulator.upbit.market import UpbitMarket, UpbitTrade, on_won_grid
from bookbus.feeders.simulator.upbit.messages import Subscription, parse_request, price_plain, supported_levels
from bookbus.schemas.instruments import EXCHANGES

NOW = 1_770_897_600_000
"""2026-02-12 12:00:00 UTC."""
BOUGHT = SimulatedFill(7, "buy", 85_000, 150_000, 101, 2)
SOLD = SimulatedFill(8, "sell", 84_000, 50_000, 102, 1)


def instrument_of(price: float, quote: str = "KRW") -> SimulatedInstrument:
    """A market with a fine grid, as the core makes it."""
    return SimulatedInstrument(f"{quote}-ABC", "ABC", quote, 4, 5, round(price * 10_000), 1000)


def market_of(*fills: SimulatedFill) -> UpbitMarket:
    (instrument,) = instruments(["KRW-BTC"], EXCHANGES["upbit"])
    feed = LiveFeed(on_won_grid(instrument, 120), SimulatorSettings(levels=120), truth_depth=30)
    market = UpbitMarket(feed, NOW, 1200)
    feed.tape.record(fills, NOW - 30_000)
    market.trades.extend(UpbitTrade(fill, NOW - 30_000, number) for number, fill in enumerate(fills))
    return market


@pytest.mark.parametrize(
    ("price", "tick"),
    [
        (84_709_000, 1000),
        (1_000_000, 1000),
        (999_999, 500),
        (100_000, 100),
        (50_000, 50),
        (10_000, 10),
        (5_000, 5),
        (3_000, 1),
        (826, 1),
    ],
)
def test_a_won_market_has_the_tick_of_its_price(price: float, tick: float) -> None:
    instrument = on_won_grid(instrument_of(price), levels=300)

    assert instrument.price(1) == tick
    assert instrument.price(instrument.start_ticks) == pytest.approx(price, abs=tick)
    assert price_plain(instrument, 1) == f"{tick:g}"


def test_prices_of_too_few_ticks_and_other_quotes_keep_their_grid() -> None:
    few, other = instrument_of(150.0), instrument_of(84_709_000.0, quote="USDT")

    assert on_won_grid(few, levels=300) is few
    assert on_won_grid(other, levels=300) is other


def test_levels_are_grouped_by_multiples_of_the_tick() -> None:
    assert supported_levels(market_of().instrument) == ["0", "10000", "100000", "1000000"]


def test_the_day_says_how_the_price_changed() -> None:
    market = market_of(BOUGHT, SOLD)

    day = statistics.day_answer(market, NOW)

    assert (day["market"], day["trade_price"], day["prev_closing_price"]) == ("KRW-BTC", 84_000_000.0, 85_000_000.0)
    assert (day["change"], day["change_price"], day["signed_change_price"]) == ("FALL", 1_000_000.0, -1_000_000.0)
    assert day["signed_change_rate"] == -day["change_rate"] == pytest.approx(-1 / 85)
    assert (day["trade_date"], day["trade_time"], day["trade_time_kst"]) == ("20260212", "115930", "205930")
    assert day["trade_timestamp"] == NOW - 30_000


def test_a_candle_has_both_local_times_and_one_of_minutes_its_unit() -> None:
    market = market_of(BOUGHT, SOLD)
    before, candle = market.feed.tape.candles(MINUTE, 2, NOW - 1)

    found = statistics.candle_answer(market.instrument, "minutes/1", candle, before, NOW - 1)

    assert found == {
        "market": "KRW-BTC",
        "candle_date_time_utc": "2026-02-12T11:59:00",
        "candle_date_time_kst": "2026-02-12T20:59:00",
        "opening_price": 85_000_000.0,
        "high_price": 85_000_000.0,
        "low_price": 84_000_000.0,
        "trade_price": 84_000_000.0,
        "timestamp": NOW - 1,
        "candle_acc_trade_price": 169_500_000.0,
        "candle_acc_trade_volume": 2.0,
        "unit": 1,
    }


def test_a_candle_of_a_day_tells_the_change_since_the_one_before() -> None:
    market = market_of(BOUGHT)
    before, candle = market.feed.tape.candles(DAY, 2, NOW)

    found = statistics.candle_answer(market.instrument, "days", candle, before, NOW)

    first = market.instrument.price(market.instrument.start_ticks)
    assert (found["prev_closing_price"], found["change_price"]) == (first, 85_000_000.0 - first)
    assert "unit" not in found


@pytest.mark.parametrize(("short", "type_name", "price_name"), [(False, "type", "trade_price"), (True, "ty", "tp")])
@pytest.mark.parametrize("kind", ["ticker", "candle.1m"])
def test_messages_come_in_both_spellings(short: bool, type_name: str, price_name: str, kind: str) -> None:
    text = statistics.message(market_of(BOUGHT, SOLD), kind, "REALTIME", NOW - 1, short=short, listed=True)

    (message,) = json.loads(text)
    assert (message[type_name], message[price_name]) == (kind, 84_000_000.0)


def test_a_trade_of_rest_has_the_id_of_the_stream() -> None:
    market = market_of(SOLD)

    trade = statistics.trade_answer(market.instrument, market.trades[0])

    assert (trade["sequential_id"], trade["ask_bid"], trade["trade_price"]) == (0, "ASK", 84_000_000.0)
    assert (trade["trade_date_utc"], trade["trade_time_utc"]) == ("2026-02-12", "11:59:30")


@pytest.mark.parametrize(
    ("flags", "snapshot", "realtime"),
    [
        ({}, True, True),
        ({"isOnlyRealtime": True}, False, True),
        ({"isOnlySnapshot": True}, True, False),
        ({"is_only_realtime": True}, False, True),
        ({"is_only_snapshot": True}, True, False),
    ],
)
def test_snapshot_or_realtime_can_be_asked_for_in_both_spellings(
    flags: dict[str, Any], snapshot: bool, realtime: bool
) -> None:
    request = [{"ticket": "t"}, {"type": "orderbook", "codes": ["KRW-BTC"], **flags}]

    subscription = parse_request(json.dumps(request))

    assert isinstance(subscription, Subscription)
    (part,) = subscription.parts
    assert (part.snapshot, part.realtime) == (snapshot, realtime)
