"""Binance spot's trades, candles and rolling windows, in the forms of REST and of the streams."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec

from bookbus.feeders.simulator.binance.messages import book_ticker_answer, split
from bookbus.feeders.simulator.core.feed import MarketFeed, window
from bookbus.feeders.simulator.core.market import SimulatedInstrument
from bookbus.feeders.simulator.core.tape import (
    DAY,
    HOUR,
    MINUTE,
    MONTH,
    SECOND,
    WEEK,
    Candle,
    TimedFill,
    interval_end,
)

INTERVALS = {
    "1s": SECOND,
    **{f"{minutes}m": minutes * MINUTE for minutes in (1, 3, 5, 15, 30)},
    **{f"{hours}h": hours * HOUR for hours in (1, 2, 4, 6, 8, 12)},
    "1d": DAY,
    "3d": 3 * DAY,
    "1w": WEEK,
    "1M": MONTH,
}
ZONES = {"": 0, "@+08:00": 8 * HOUR}
"""Endings of a candle stream's name, and the time zone in which its days begin."""


class Window(NamedTuple):
    """A kind of stream with figures of a rolling window."""

    event: str
    span_ms: int
    fields: str
    """Short names of its fields."""


WINDOWS = {
    "ticker": Window("24hrTicker", DAY, "pPwxcQbBaAohlvqOCFLn"),
    "miniTicker": Window("24hrMiniTicker", DAY, "cohlvq"),
    "ticker_1h": Window("1hTicker", HOUR, "pPohlcwvqOCFLn"),
    "ticker_4h": Window("4hTicker", 4 * HOUR, "pPohlcwvqOCFLn"),
    "ticker_1d": Window("1dTicker", DAY, "pPohlcwvqOCFLn"),
}
_LONG_NAMES = {
    "p": "priceChange",
    "P": "priceChangePercent",
    "w": "weightedAvgPrice",
    "x": "prevClosePrice",
    "c": "lastPrice",
    "Q": "lastQty",
    "b": "bidPrice",
    "B": "bidQty",
    "a": "askPrice",
    "A": "askQty",
    "o": "openPrice",
    "h": "highPrice",
    "l": "lowPrice",
    "v": "volume",
    "q": "quoteVolume",
    "O": "openTime",
    "C": "closeTime",
    "F": "firstId",
    "L": "lastId",
    "n": "count",
}
_SHORT_FORM = "ohlcvqOCFLn"
_WINDOW_FORM = "pPwohlcvqOCFLn"
_GREATEST_TURNOVER = 2_000_000_000
AVERAGE = 5 * MINUTE


def volumes(markets: Iterable[MarketFeed]) -> dict[str, int]:
    """Synthetic steps of the day before each market began: the first one has the greatest turnover."""
    found = {}
    for rank, feed in enumerate(markets):
        instrument = feed.instrument
        turnover = _GREATEST_TURNOVER / (rank + 1)
        steps = turnover / instrument.price(instrument.start_ticks) * 10**instrument.step_decimals
        found[instrument.native] = round(steps)
    return found


def figures(feed: MarketFeed, span_ms: int, now_ms: int, volume: int = 0) -> dict[str, Any]:
    """Everything that is values of a window, in the long form; `volume` is added at the market's first price."""
    instrument, candle = feed.instrument, window(feed, span_ms, now_ms, volume)
    price, change = instrument.price_text, candle.close - candle.open
    return {
        "symbol": instrument.native,
        "priceChange": price(change),
        "priceChangePercent": f"{100 * change / candle.open:.3f}",
        "weightedAvgPrice": average(instrument, candle),
        "prevClosePrice": price(candle.open),
        "lastPrice": price(candle.close),
        "lastQty": instrument.quantity_text(feed.tape.recent[-1].fill.steps if feed.tape.recent else 0),
        **book_ticker_answer(instrument, feed.quote()),
        "openPrice": price(candle.open),
        "highPrice": price(candle.high),
        "lowPrice": price(candle.low),
        "volume": instrument.quantity_text(candle.volume),
        "quoteVolume": instrument.turnover_text(candle.turnover),
        "openTime": now_ms - span_ms,
        "closeTime": now_ms,
        **_ids(candle, "firstId", "lastId"),
        "count": candle.trades,
    }


def answer(found: Mapping[str, Any], *, short: bool, rolling: bool = False) -> Mapping[str, Any]:
    """The figures as REST sends them: `short` leaves out changes and averages, `rolling` quotes."""
    form = _SHORT_FORM if short else _WINDOW_FORM if rolling else "".join(_LONG_NAMES)
    return {"symbol": found["symbol"]} | {_LONG_NAMES[name]: found[_LONG_NAMES[name]] for name in form}


def event(of: Window, found: Mapping[str, Any], time: int) -> dict[str, Any]:
    """The figures as a stream sends them; `time` is in the unit that the client asked for."""
    unit = time // found["closeTime"]
    values = {name: found[_LONG_NAMES[name]] for name in of.fields}
    times = {name: values[name] * unit for name in "OC" if name in values}
    return {"e": of.event, "E": time, "s": found["symbol"], **values, **times}


def average(instrument: SimulatedInstrument, candle: Candle) -> str:
    """The average price by volume, the last price if nothing was traded."""
    if not candle.volume:
        return instrument.price_text(candle.close)
    return f"{instrument.price(candle.turnover) / candle.volume:.8f}"


def candle_answer(instrument: SimulatedInstrument, candle: Candle, interval: int, zone_ms: int) -> list[Any]:
    price, quantity, turnover = instrument.price_text, instrument.quantity_text, instrument.turnover_text
    prices = [price(ticks) for ticks in (candle.open, candle.high, candle.low, candle.close)]
    return [
        candle.start_ms,
        *prices,
        quantity(candle.volume),
        interval_end(candle.start_ms, interval, zone_ms),
        turnover(candle.turnover),
        candle.trades,
        quantity(candle.bought),
        turnover(candle.bought_turnover),
        "0",
    ]


def candle_event(
    instrument: SimulatedInstrument, candle: Candle, name: str, zone_ms: int, now_ms: int, time: int
) -> str:
    """A candle as its stream sends it at `now_ms`, which is `time` in the unit that the client asked for."""
    start, *prices, volume, end, turnover, trades, bought, bought_turnover, rest = candle_answer(
        instrument, candle, INTERVALS[name], zone_ms
    )
    opened, high, low, close = prices
    unit = time // now_ms
    body = {"t": start * unit, "T": (end + 1) * unit - 1, "s": instrument.native, "i": name}
    body |= {**_ids(candle, "f", "L"), "o": opened, "c": close, "h": high, "l": low, "v": volume, "n": trades}
    body |= {"x": end < now_ms, "q": turnover, "V": bought, "Q": bought_turnover, "B": rest}
    return _text({"e": "kline", "E": time, "s": instrument.native, "k": body})


def average_event(feed: MarketFeed, now_ms: int, time: int) -> str:
    """The average price of the last five minutes as its stream sends it."""
    instrument = feed.instrument
    price = average(instrument, window(feed, AVERAGE, now_ms))
    last_ms = feed.tape.recent[-1].time_ms if feed.tape.recent else now_ms
    body = {"e": "avgPrice", "E": time, "s": instrument.native, "i": "5m", "w": price}
    return _text({**body, "T": last_ms * (time // now_ms)})


def trade_answers(instrument: SimulatedInstrument, trades: Iterable[TimedFill]) -> list[dict[str, Any]]:
    return [
        {
            "id": trade_id,
            "price": instrument.price_text(fill.ticks),
            "qty": instrument.quantity_text(steps),
            "quoteQty": instrument.turnover_text(fill.ticks * steps),
            "time": time_ms,
            "isBuyerMaker": fill.aggressor == "sell",
            "isBestMatch": True,
        }
        for fill, time_ms in trades
        for trade_id, steps in split(fill)
    ]


def aggregate_answers(instrument: SimulatedInstrument, trades: Iterable[TimedFill]) -> list[dict[str, Any]]:
    return [
        {
            "a": fill.fill_id,
            "p": instrument.price_text(fill.ticks),
            "q": instrument.quantity_text(fill.steps),
            "f": fill.last_trade_id - fill.trades + 1,
            "l": fill.last_trade_id,
            "T": time_ms,
            "m": fill.aggressor == "sell",
            "M": True,
        }
        for fill, time_ms in trades
    ]


@cache
def candle_streams() -> dict[str, tuple[str, int]]:
    """Kinds of candle streams: name of the interval, and the time zone."""
    return {f"kline_{name}{ending}": (name, zone_ms) for name in INTERVALS for ending, zone_ms in ZONES.items()}


def _ids(candle: Candle, first: str, last: str) -> dict[str, int]:
    return {first: candle.first_id, last: candle.last_id} if candle.trades else {first: -1, last: -1}


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
