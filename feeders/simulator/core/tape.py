"""Trade history of a simulated market: recent trades, candles, totals of the day."""

from collections import deque
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from bookbus.feeders.simulator.core.market import SimulatedFill

SECOND, MINUTE, HOUR, DAY, WEEK = 1_000, 60_000, 3_600_000, 86_400_000, 604_800_000
MONTH = 30 * DAY
"""Intervals in milliseconds. A month is that of the calendar, whatever its length."""

_FIRST_MONDAY = 4 * DAY
"""1970-01-05, from which weeks are counted."""
_MOST_TRADES = 1000
_MOST_CANDLES = 1500
"""Of seconds and of minutes that are remembered; longer candles are made of minutes."""


class TimedFill(NamedTuple):
    fill: SimulatedFill
    time_ms: int


class Candle(NamedTuple):
    """Prices in ticks, volumes in steps, turnovers in ticks times steps. `first_id` is 0 if nothing was traded."""

    start_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    turnover: int = 0
    bought: int = 0
    bought_turnover: int = 0
    """The part of aggressors that buy."""
    first_id: int = 0
    last_id: int = 0
    trades: int = 0


class TradeHistory:
    """Trades of one market. Before the first one its price is `start_ticks`, and candles are flat."""

    def __init__(self, start_ticks: int) -> None:
        self.recent: deque[TimedFill] = deque(maxlen=_MOST_TRADES)
        """Oldest first."""
        self._start_ticks = start_ticks
        self._candles: dict[int, dict[int, Candle]] = {SECOND: {}, MINUTE: {}}
        """By interval and start."""

    def record(self, fills: Iterable[SimulatedFill], time_ms: int) -> None:
        for fill in fills:
            self.recent.append(TimedFill(fill, time_ms))
            for interval, candles in self._candles.items():
                start = interval_start(time_ms, interval)
                candle = _candle(start, fill)
                candles[start] = _joined(candles[start], candle) if start in candles else candle
                if len(candles) > _MOST_CANDLES:
                    del candles[next(iter(candles))]

    def candles(
        self, interval: int, limit: int, until_ms: int, since_ms: int | None = None, zone_ms: int = 0
    ) -> list[Candle]:
        """Candles without a gap, oldest first: the last ones that begin up to `until_ms`, or the first from `since_ms`.

        `zone_ms` is the time zone in which days, weeks and months begin.
        """
        starts = _starts(interval, limit, until_ms, since_ms, zone_ms)
        if not starts:
            return []
        found: dict[int, Candle] = {}
        close = self._start_ticks
        for start, candle in self._candles[SECOND if interval < MINUTE else MINUTE].items():
            if start < starts[0]:
                close = candle.close
            own = interval_start(start, interval, zone_ms)
            found[own] = _joined(found[own], candle) if own in found else candle._replace(start_ms=own)
        candles = []
        for start in starts:
            candle = found.get(start) or Candle(start, close, close, close, close)
            close = candle.close
            candles.append(candle)
        return candles

    def window(self, span_ms: int, now_ms: int) -> Candle:
        """One candle of the minutes that began within the last `span_ms`."""
        close, window = self._start_ticks, None
        for start, candle in self._candles[MINUTE].items():
            if start < now_ms - span_ms:
                close = candle.close
            else:
                window = _joined(window, candle) if window else candle
        return window or Candle(now_ms - span_ms, close, close, close, close)


def interval_start(time_ms: int, interval: int, zone_ms: int = 0) -> int:
    """The start of the candle that contains this time."""
    local = time_ms + zone_ms
    if interval == MONTH:
        at = datetime.fromtimestamp(local / 1000, UTC)
        start = round(datetime(at.year, at.month, 1, tzinfo=UTC).timestamp() * 1000)
    else:
        offset = _FIRST_MONDAY if interval == WEEK else 0
        start = (local - offset) // interval * interval + offset
    return start - zone_ms


def interval_end(start_ms: int, interval: int, zone_ms: int = 0) -> int:
    """The last millisecond of the candle that begins here."""
    return interval_start(start_ms + 32 * DAY, interval, zone_ms) - 1 if interval == MONTH else start_ms + interval - 1


def _starts(interval: int, limit: int, until_ms: int, since_ms: int | None, zone_ms: int) -> list[int]:
    starts: list[int] = []
    if since_ms is None:
        start = interval_start(until_ms, interval, zone_ms)
        while len(starts) < limit and start >= 0:
            starts.append(start)
            start = interval_start(start - 1, interval, zone_ms)
        return starts[::-1]
    start = interval_start(since_ms, interval, zone_ms)
    if start < since_ms:
        start = interval_end(start, interval, zone_ms) + 1
    while len(starts) < limit and start <= until_ms:
        starts.append(start)
        start = interval_end(start, interval, zone_ms) + 1
    return starts


def _candle(start_ms: int, fill: SimulatedFill) -> Candle:
    turnover = fill.ticks * fill.steps
    bought = fill.aggressor == "buy"
    return Candle(
        start_ms,
        *(fill.ticks,) * 4,
        fill.steps,
        turnover,
        bought * fill.steps,
        bought * turnover,
        fill.last_trade_id - fill.trades + 1,
        fill.last_trade_id,
        fill.trades,
    )


def _joined(candle: Candle, later: Candle) -> Candle:
    return Candle(
        candle.start_ms,
        candle.open,
        max(candle.high, later.high),
        min(candle.low, later.low),
        later.close,
        candle.volume + later.volume,
        candle.turnover + later.turnover,
        candle.bought + later.bought,
        candle.bought_turnover + later.bought_turnover,
        candle.first_id or later.first_id,
        later.last_id or candle.last_id,
        candle.trades + later.trades,
    )
