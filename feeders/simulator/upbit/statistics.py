"""Upbit's day figures, candles and trades, in the forms of REST and of WebSocket messages."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec

from bookbus.feeders.simulator.core.feed import window
from bookbus.feeders.simulator.core.market import SimulatedInstrument
from bookbus.feeders.simulator.core.tape import DAY, MINUTE, MONTH, SECOND, WEEK, Candle
from bookbus.feeders.simulator.upbit.market import UpbitMarket, UpbitTrade

MINUTE_UNITS = (1, 3, 5, 10, 15, 30, 60, 240)
CANDLE_TYPES = {"candle.1s": SECOND, **{f"candle.{unit}m": unit * MINUTE for unit in MINUTE_UNITS}}
PERIODS = {
    "seconds": SECOND,
    **{f"minutes/{unit}": unit * MINUTE for unit in MINUTE_UNITS},
    "days": DAY,
    "weeks": WEEK,
    "months": MONTH,
}
"""Ends of the paths of candles."""

_KOREA = timezone(timedelta(hours=9))
_USUAL_DAY = 1000
"""Typical sizes of a level that were traded in the day before a market began."""
_SHORT_NAMES = {
    "type": "ty",
    "code": "cd",
    "opening_price": "op",
    "high_price": "hp",
    "low_price": "lp",
    "trade_price": "tp",
    "prev_closing_price": "pcp",
    "change": "c",
    "change_price": "cp",
    "change_rate": "cr",
    "signed_change_price": "scp",
    "signed_change_rate": "scr",
    "trade_volume": "tv",
    "acc_trade_volume": "atv",
    "acc_trade_volume_24h": "atv24h",
    "acc_trade_price": "atp",
    "acc_trade_price_24h": "atp24h",
    "trade_date": "tdt",
    "trade_time": "ttm",
    "trade_timestamp": "ttms",
    "ask_bid": "ab",
    "acc_ask_volume": "aav",
    "acc_bid_volume": "abv",
    "highest_52_week_price": "h52wp",
    "highest_52_week_date": "h52wdt",
    "lowest_52_week_price": "l52wp",
    "lowest_52_week_date": "l52wdt",
    "market_state": "ms",
    "is_trading_suspended": "its",
    "delisting_date": "dd",
    "market_warning": "mw",
    "candle_date_time_utc": "cdttmu",
    "candle_date_time_kst": "cdttmk",
    "candle_acc_trade_volume": "catv",
    "candle_acc_trade_price": "catp",
    "timestamp": "tms",
    "stream_type": "st",
}


def day(market: UpbitMarket, now_ms: int) -> dict[str, Any]:
    """The figures of a day that REST and the stream share."""
    instrument, trade = market.instrument, market.last_trade
    candle = _window(market, now_ms)
    change, at_ms = candle.close - candle.open, trade.time_ms if trade else now_ms
    price, rate = instrument.price(abs(change)), abs(change) / candle.open
    sign = -1 if change < 0 else 1
    volume, turnover = instrument.quantity(candle.volume), float(instrument.turnover_text(candle.turnover))
    figures = {
        "opening_price": instrument.price(candle.open),
        "high_price": instrument.price(candle.high),
        "low_price": instrument.price(candle.low),
        "trade_price": instrument.price(candle.close),
        "prev_closing_price": instrument.price(candle.open),
        "change": "RISE" if change > 0 else "FALL" if change else "EVEN",
        "change_price": price,
        "change_rate": round(rate, 10),
        "signed_change_price": sign * price,
        "signed_change_rate": sign * round(rate, 10),
        "trade_volume": instrument.quantity(trade.fill.steps if trade else 0),
        "acc_trade_volume": volume,
        "acc_trade_volume_24h": volume,
        "acc_trade_price": turnover,
        "acc_trade_price_24h": turnover,
        "highest_52_week_price": instrument.price(candle.high),
        "highest_52_week_date": f"{_moment(at_ms):%Y-%m-%d}",
        "lowest_52_week_price": instrument.price(candle.low),
        "lowest_52_week_date": f"{_moment(at_ms):%Y-%m-%d}",
    }
    return figures | {"trade_timestamp": at_ms, "timestamp": now_ms}


def day_answer(market: UpbitMarket, now_ms: int) -> dict[str, Any]:
    """The figures of a day as REST sends them."""
    found = day(market, now_ms)
    at, in_korea = _moment(found["trade_timestamp"]), _moment(found["trade_timestamp"]).astimezone(_KOREA)
    dates = {"trade_date": f"{at:%Y%m%d}", "trade_time": f"{at:%H%M%S}"}
    dates |= {"trade_date_kst": f"{in_korea:%Y%m%d}", "trade_time_kst": f"{in_korea:%H%M%S}"}
    return {"market": market.instrument.native} | dates | found


def day_message(market: UpbitMarket, now_ms: int) -> dict[str, Any]:
    """The figures of a day as their stream sends them."""
    found, trade = day(market, now_ms), market.last_trade
    candle, at = _window(market, now_ms), _moment(found["trade_timestamp"])
    bought = candle.bought + market.instrument.typical_steps * _USUAL_DAY // 2
    return found | {
        "trade_date": f"{at:%Y%m%d}",
        "trade_time": f"{at:%H%M%S}",
        "ask_bid": "BID" if trade is None or trade.fill.aggressor == "buy" else "ASK",
        "acc_ask_volume": market.instrument.quantity(candle.volume - bought),
        "acc_bid_volume": market.instrument.quantity(bought),
        "market_state": "ACTIVE",
        "is_trading_suspended": False,
        "delisting_date": None,
        "market_warning": "NONE",
    }


def candle_figures(instrument: SimulatedInstrument, candle: Candle, last_ms: int) -> dict[str, Any]:
    """One candle; `last_ms` is the time of its last trade."""
    at = _moment(candle.start_ms)
    return {
        "candle_date_time_utc": f"{at:%Y-%m-%dT%H:%M:%S}",
        "candle_date_time_kst": f"{at.astimezone(_KOREA):%Y-%m-%dT%H:%M:%S}",
        "opening_price": instrument.price(candle.open),
        "high_price": instrument.price(candle.high),
        "low_price": instrument.price(candle.low),
        "trade_price": instrument.price(candle.close),
        "timestamp": last_ms,
        "candle_acc_trade_price": float(instrument.turnover_text(candle.turnover)),
        "candle_acc_trade_volume": instrument.quantity(candle.volume),
    }


def candle_answer(
    instrument: SimulatedInstrument, period: str, candle: Candle, before: Candle, last_ms: int
) -> dict[str, Any]:
    """A candle of REST; that of a day has the change since the one before."""
    found = {"market": instrument.native} | candle_figures(instrument, candle, last_ms)
    if period == "days":
        change = candle.close - before.close
        found["prev_closing_price"] = instrument.price(before.close)
        found |= {"change_price": instrument.price(change), "change_rate": round(change / before.close, 10)}
    _, _, unit = period.partition("/")
    return found | ({"unit": int(unit)} if unit else {})


def trade_answer(instrument: SimulatedInstrument, trade: UpbitTrade) -> dict[str, Any]:
    at = _moment(trade.time_ms)
    return {
        "market": instrument.native,
        "trade_date_utc": f"{at:%Y-%m-%d}",
        "trade_time_utc": f"{at:%H:%M:%S}",
        "timestamp": trade.time_ms,
        "trade_price": instrument.price(trade.fill.ticks),
        "trade_volume": instrument.quantity(trade.fill.steps),
        "prev_closing_price": instrument.price(trade.fill.ticks),
        "change_price": 0.0,
        "ask_bid": "BID" if trade.fill.aggressor == "buy" else "ASK",
        "sequential_id": trade.trade_id,
    }


def message(market: UpbitMarket, kind: str, stream_type: str, now_ms: int, *, short: bool, listed: bool) -> str:
    """A message of day figures or of a candle, whichever `kind` names."""
    if kind in CANDLE_TYPES:
        (candle,) = market.feed.tape.candles(CANDLE_TYPES[kind], 1, now_ms)
        body = candle_figures(market.instrument, candle, now_ms)
    else:
        body = day_message(market, now_ms)
    body = {"type": kind, "code": market.instrument.native} | body | {"stream_type": stream_type}
    if short:
        body = {_SHORT_NAMES[name]: value for name, value in body.items()}
    return msgspec.json.encode([body] if listed else body).decode()


def _window(market: UpbitMarket, now_ms: int) -> Candle:
    """The last day, half of what came before the market began bought by aggressors."""
    return window(market.feed, DAY, now_ms, market.instrument.typical_steps * _USUAL_DAY)


def _moment(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms // 1000, UTC)
