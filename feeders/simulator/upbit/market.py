"""One Upbit market: the whole book that is shown, with its time as its id, and the newest trade."""

from collections import deque
from dataclasses import replace
from random import Random
from typing import NamedTuple

from bookbus.feeders.simulator.core.feed import BookAt, MarketFeed, PreparedFeed, WholeBookMarket
from bookbus.feeders.simulator.core.market import SimulatedFill, SimulatedInstrument

DEPTH = 30
"""Levels a side that the exchange shows."""

_OLDEST = 300_000
"""Milliseconds: the greatest age of the first book."""

_SET_BACK = 3_600_000
"""Milliseconds by which the ids fall when the exchange restarts."""


_MOST_TRADES = 1000

_WON_TICKS = (
    # price from which it holds, units, decimals
    (1_000_000, 1000, 0),
    (500_000, 500, 0),
    (100_000, 100, 0),
    (50_000, 50, 0),
    (10_000, 10, 0),
    (5_000, 5, 0),
    (100, 1, 0),
    (10, 1, 1),
    (1, 1, 2),
    (0.1, 1, 3),
    (0.01, 1, 4),
    (0.001, 1, 5),
    (0.0001, 1, 6),
    (0.00001, 1, 7),
)
_ROOM = 2.5
"""A price must be at least this many times as many ticks as there are levels a side."""


def on_won_grid(instrument: SimulatedInstrument, levels: int) -> SimulatedInstrument:
    """A won market with the exchange's tick, unless the bids have no room below a price of so few ticks."""
    if instrument.quote != "KRW":
        return instrument
    price = instrument.price(instrument.start_ticks)
    units, decimals = next(((units, decimals) for least, units, decimals in _WON_TICKS if price >= least), (1, 8))
    ticks = round(price * 10**decimals / units)
    if ticks < _ROOM * levels:
        return instrument
    return replace(instrument, tick_decimals=decimals, tick_units=units, start_ticks=ticks)


class UpbitTrade(NamedTuple):
    fill: SimulatedFill
    time_ms: int
    trade_id: int


class UpbitMarket(WholeBookMarket):
    """`update_id` is the time in milliseconds at which the book last changed."""

    def __init__(self, feed: MarketFeed, now_ms: int, truth_flushes: int) -> None:
        native = feed.instrument.native
        self.trades: deque[UpbitTrade] = deque(maxlen=_MOST_TRADES)
        """Oldest first."""
        self.texts: dict[tuple[bool, int, int], str] = {}
        """Texts of the book shown, by form, number of levels and grouping."""
        self._prepared_texts: dict[int, dict[tuple[bool, int, int], str]] = {}
        """The same for each position of a prepared feed, which repeats its books."""
        self._set_back = 0
        rng = Random(f"thin:{native}")  # noqa: S311
        # Markets quoted in bitcoin often have few levels.
        thin = feed.instrument.quote == "BTC"
        self._levels = (min(DEPTH, rng.randrange(2, 45)), min(DEPTH, rng.randrange(2, 45))) if thin else (DEPTH, DEPTH)
        age = Random(f"age:{native}").randrange(1000, _OLDEST)  # noqa: S311
        super().__init__(feed, DEPTH, truth_flushes, now_ms - age)

    def step(self, time_ms: int) -> list[UpbitTrade]:
        """Move by a quarter of the way to the next flush; the trades on the way."""
        at, fills = time_ms - self._set_back, self.fills()
        self.feed.tape.record(fills, time_ms)
        trades = [UpbitTrade(fill, at, at * 10_000 + number) for number, fill in enumerate(fills)]
        self.trades.extend(trades)
        return trades

    @property
    def last_trade(self) -> UpbitTrade | None:
        """None if nothing was traded yet."""
        return self.trades[-1] if self.trades else None

    def flush(self, update_id: int) -> bool:
        return super().flush(update_id - self._set_back)

    def restart(self, time_ms: int) -> None:
        """Start again with lower ids."""
        self._set_back += _SET_BACK
        self.restart_at(time_ms - self._set_back)

    def _shown_of(self, book: BookAt) -> BookAt:
        bids, asks = self._levels
        return BookAt(book.update_id, book.bids[:bids], book.asks[:asks])

    def _show(self, update_id: int, book: BookAt) -> None:
        super()._show(update_id, book)
        self.texts = {}
        if isinstance(self.feed, PreparedFeed):
            self.texts = self._prepared_texts.setdefault(self.feed.position, self.texts)
