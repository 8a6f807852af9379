"""The tape of a simulated market: candles without gaps by the calendar, windows, and what is forgotten."""

from datetime import UTC, datetime

import pytest

from bookbus.feeders.simulator.core.market import SimulatedFill
from bookbus.feeders.simulator.core.tape import (
    DAY,
    HOUR,
    MINUTE,
    MONTH,
    SECOND,
    WEEK,
    Candle,
    TradeHistory,
    interval_end,
    interval_start,
)

NOON = round(datetime(2026, 2, 12, 12, tzinfo=UTC).timestamp() * 1000)


def fill(ticks: int, steps: int = 1, aggressor: str = "buy", last_id: int = 0, trades: int = 1) -> SimulatedFill:
    return SimulatedFill(last_id, "buy" if aggressor == "buy" else "sell", ticks, steps, last_id, trades)


def ms(year: int, month: int, day: int, hour: int = 0) -> int:
    return round(datetime(year, month, day, hour, tzinfo=UTC).timestamp() * 1000)


def test_trades_of_an_interval_become_one_candle() -> None:
    tape = TradeHistory(100)
    tape.record([fill(105, 2, "buy", 11, 2), fill(95, 3, "sell", 12)], NOON + 1)
    tape.record([fill(101, 4, "sell", 13)], NOON + 59_999)

    assert tape.candles(MINUTE, 1, NOON + 59_999) == [
        Candle(NOON, 105, 105, 95, 101, 9, 105 * 2 + 95 * 3 + 101 * 4, 2, 210, 10, 13, 4)
    ]


def test_a_candle_without_trades_has_the_price_before_it() -> None:
    tape = TradeHistory(100)
    tape.record([fill(105, last_id=1)], NOON)
    tape.record([fill(90, last_id=2)], NOON + 3 * MINUTE)

    candles = tape.candles(MINUTE, 6, NOON + 4 * MINUTE)

    assert [candle.start_ms for candle in candles] == [NOON + minute * MINUTE for minute in range(-1, 5)]
    assert [(candle.open, candle.close, candle.trades) for candle in candles] == [
        (100, 100, 0),
        (105, 105, 1),
        (105, 105, 0),
        (105, 105, 0),
        (90, 90, 1),
        (90, 90, 0),
    ]


def test_a_price_from_before_the_asked_candles_counts() -> None:
    tape = TradeHistory(100)
    tape.record([fill(105)], NOON)

    (candle,) = tape.candles(MINUTE, 1, NOON + HOUR)

    assert (candle.open, candle.close, candle.volume) == (105, 105, 0)


def test_candles_from_a_time_begin_with_the_first_one_that_starts_then_or_later() -> None:
    tape = TradeHistory(100)

    starts = [candle.start_ms for candle in tape.candles(HOUR, 3, NOON + 9 * HOUR, since_ms=NOON + 1)]

    assert starts == [NOON + HOUR, NOON + 2 * HOUR, NOON + 3 * HOUR]
    assert tape.candles(HOUR, 3, NOON, since_ms=NOON + 1) == []


def test_seconds_have_candles_of_their_own() -> None:
    tape = TradeHistory(100)
    tape.record([fill(101)], NOON + 400)
    tape.record([fill(102)], NOON + 1_400)

    assert [candle.close for candle in tape.candles(SECOND, 3, NOON + 2_000)] == [101, 102, 102]


@pytest.mark.parametrize(
    ("time_ms", "interval", "start"),
    [
        (ms(2026, 2, 12, 13), DAY, ms(2026, 2, 12)),
        (ms(2026, 2, 12, 13), WEEK, ms(2026, 2, 9)),  # a Monday
        (ms(2026, 2, 9), WEEK, ms(2026, 2, 9)),
        (ms(2026, 2, 12, 13), MONTH, ms(2026, 2, 1)),
        (ms(2026, 2, 12, 13), 4 * HOUR, ms(2026, 2, 12, 12)),
    ],
)
def test_intervals_begin_where_the_calendar_says(time_ms: int, interval: int, start: int) -> None:
    assert interval_start(time_ms, interval) == start


def test_a_month_ends_with_its_last_day() -> None:
    assert interval_end(ms(2026, 2, 1), MONTH) == ms(2026, 3, 1) - 1
    assert interval_end(ms(2026, 12, 1), MONTH) == ms(2027, 1, 1) - 1
    assert interval_end(ms(2026, 2, 9), WEEK) == ms(2026, 2, 16) - 1


def test_the_months_before_are_those_of_the_calendar() -> None:
    starts = [candle.start_ms for candle in TradeHistory(1).candles(MONTH, 4, ms(2026, 2, 12))]

    assert starts == [ms(2025, 11, 1), ms(2025, 12, 1), ms(2026, 1, 1), ms(2026, 2, 1)]


def test_a_day_may_begin_in_another_time_zone() -> None:
    (candle,) = TradeHistory(1).candles(DAY, 1, ms(2026, 2, 12, 17), zone_ms=8 * HOUR)

    assert candle.start_ms == ms(2026, 2, 12, 16)


def test_a_window_has_the_minutes_within_it() -> None:
    tape = TradeHistory(100)
    tape.record([fill(150)], NOON - 2 * HOUR)
    tape.record([fill(120), fill(130)], NOON - 30 * MINUTE)

    window = tape.window(HOUR, NOON)

    assert (window.open, window.high, window.low, window.close, window.trades) == (120, 130, 120, 130, 2)
    assert tape.window(MINUTE, NOON) == Candle(NOON - MINUTE, 130, 130, 130, 130)


def test_the_newest_thousand_trades_are_remembered() -> None:
    tape = TradeHistory(100)
    tape.record([fill(100, last_id=number) for number in range(1500)], NOON)

    assert [trade.fill.last_trade_id for trade in tape.recent] == list(range(500, 1500))


def test_old_seconds_are_forgotten_before_old_minutes() -> None:
    tape = TradeHistory(100)
    for second in range(2000):
        tape.record([fill(100 + second)], NOON + second * SECOND)

    until = NOON + 1999 * SECOND
    assert tape.candles(SECOND, 1500, until)[0].open == 600
    assert tape.candles(SECOND, 2000, until)[0].volume == 0
    assert tape.candles(MINUTE, 34, until)[0].open == 100
