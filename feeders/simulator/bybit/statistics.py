"""Bybit spot's day figures, candles and trades, in the forms of REST and of its topics."""

from collections.abc import Iterable
from typing import Any

import msgspec

from bookbus.feeders.simulator.core.feed import MarketFeed, window
from bookbus.feeders.simulator.core.market import SimulatedInstrument
from bookbus.feeders.simulator.core.tape import DAY, MINUTE, MONTH, WEEK, Candle, TimedFill, interval_end

INTERVALS = {
    **{f"{minutes}": minutes * MINUTE for minutes in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)},
    "D": DAY,
    "W": WEEK,
    "M": MONTH,
}
_USUAL_DAY = 1000
"""Typical sizes of a level that were traded in the day before a market began."""


def day(feed: MarketFeed, now_ms: int) -> dict[str, str]:
    """The figures of a day that REST and the topic share."""
    instrument = feed.instrument
    candle = window(feed, DAY, now_ms, instrument.typical_steps * _USUAL_DAY)
    return {
        "symbol": instrument.native,
        "lastPrice": instrument.price_text(candle.close),
        "prevPrice24h": instrument.price_text(candle.open),
        "price24hPcnt": f"{candle.close / candle.open - 1:.4f}",
        "highPrice24h": instrument.price_text(candle.high),
        "lowPrice24h": instrument.price_text(candle.low),
        "turnover24h": instrument.turnover_text(candle.turnover),
        "volume24h": instrument.quantity_text(candle.volume),
    }


def day_answer(feed: MarketFeed, now_ms: int) -> dict[str, str]:
    """The figures of a day as REST sends them."""
    instrument, (_, bid, ask) = feed.instrument, feed.quote()
    return day(feed, now_ms) | {
        "bid1Price": instrument.price_text(bid[0]),
        "bid1Size": instrument.quantity_text(bid[1]),
        "ask1Price": instrument.price_text(ask[0]),
        "ask1Size": instrument.quantity_text(ask[1]),
    }


def day_message(topic: str, feed: MarketFeed, sequence: int, now_ms: int) -> str:
    """The figures of a day as their topic sends them."""
    return _text({"topic": topic, "ts": now_ms, "type": "snapshot", "cs": sequence, "data": day(feed, now_ms)})


def candle_answer(instrument: SimulatedInstrument, candle: Candle) -> list[str]:
    prices = (candle.open, candle.high, candle.low, candle.close)
    volume, turnover = instrument.quantity_text(candle.volume), instrument.turnover_text(candle.turnover)
    return [str(candle.start_ms), *map(instrument.price_text, prices), volume, turnover]


def candle_message(topic: str, feed: MarketFeed, name: str, now_ms: int) -> str:
    """The candle of the time before `now_ms` as its topic sends it."""
    interval = INTERVALS[name]
    (candle,) = feed.tape.candles(interval, 1, now_ms - 1)
    _, opened, high, low, close, volume, turnover = candle_answer(feed.instrument, candle)
    end = interval_end(candle.start_ms, interval)
    data = {
        "start": candle.start_ms,
        "end": end,
        "interval": name,
        "open": opened,
        "close": close,
        "high": high,
        "low": low,
        "volume": volume,
        "turnover": turnover,
        "confirm": end < now_ms,
        "timestamp": feed.tape.recent[-1].time_ms if feed.tape.recent else now_ms,
    }
    return _text({"topic": topic, "data": [data], "ts": now_ms, "type": "snapshot"})


def trade_answers(instrument: SimulatedInstrument, trades: Iterable[TimedFill]) -> list[dict[str, Any]]:
    return [
        {
            "execId": str(fill.fill_id),
            "symbol": instrument.native,
            "price": instrument.price_text(fill.ticks),
            "size": instrument.quantity_text(fill.steps),
            "side": "Buy" if fill.aggressor == "buy" else "Sell",
            "time": str(time_ms),
            "isBlockTrade": False,
            "isRPITrade": False,
        }
        for fill, time_ms in trades
    ]


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
