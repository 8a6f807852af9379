"""What the page shows: the books of every exchange with a short history, read a few times a second."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

import msgspec

from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.schemas.instruments import NOT_MATCHING, WARNED_OF, TradingStatus
from bookbus.schemas.snapshot import BookStatus, Level, OrderBookSnapshot

SAMPLE_INTERVAL = 0.2
"""Seconds between two readings of all books."""

HISTORY = 120.0
"""Seconds of history of one book."""

_POINTS = 240
_SPARK_POINTS = 30
_EVENTS = 50
_MOST_EVENTS = 1000
_LEVELS_LOOKED_AT = 5
_RATE_WINDOW = 5.0
_MOST_DECIMALS = 12

_URGENCY = {
    BookStatus.MISSING: 2,
    BookStatus.CLOSED: 3,
    BookStatus.STALE: 4,
    BookStatus.SUSPECT: 5,
    BookStatus.FEEDER_DOWN: 6,
}
"""Higher is worse; a live book has 0, or 1 if its market does not trade as usual."""


class BookRow(msgspec.Struct, frozen=True, kw_only=True):
    """One book in the overview, with the trading status of its market.

    Prices are in the quote currency, `age` is in seconds, `rate` in updates a second. `decimals` is how many digits
    after the point the prices of this book have; `spark` are its last mid prices.
    """

    exchange: str
    symbol: str
    status: BookStatus
    reason: str
    trading: TradingStatus
    urgency: int
    bid: float | None
    ask: float | None
    spread_bps: float | None
    decimals: int
    age: float | None
    rate: float
    feeder: str
    spark: tuple[float, ...]


class StatusChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a book's status; `at` is in seconds since 1970, `seconds` how long the status before had lasted."""

    at: float
    exchange: str
    symbol: str
    before: BookStatus
    status: BookStatus
    reason: str
    seconds: float


class HistoryPoint(NamedTuple):
    """Mid price and spread of one moment; `at` is in seconds since 1970."""

    at: float
    mid: float
    spread_bps: float


class Hops(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of the newest update from hop to hop, by the clocks of the machines; None where one is unknown."""

    exchange_to_feeder: float | None
    feeder_to_server: float | None


class Book(msgspec.Struct, frozen=True, kw_only=True):
    """One book in full, with its history and its events."""

    row: BookRow
    native: str
    depth: int
    seq: int
    update_id: int | None
    update_age: float | None
    missed: int
    conflated: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    hops: Hops
    points: tuple[HistoryPoint, ...]
    events: tuple[StatusChange, ...]


class _Tracked:
    """The history of one book."""

    def __init__(self) -> None:
        self.status: BookStatus | None = None
        self.since = 0.0
        self.decimals = 0
        self.seq = -1
        self.points: deque[HistoryPoint] = deque(maxlen=_POINTS)
        self.received: deque[tuple[float, int]] = deque()
        self.row: BookRow | None = None


class BusView:
    """The books of several providers, by exchange. One thread calls `sample`; any may call the rest."""

    def __init__(self, providers: Mapping[str, MarketDataProvider], clock: Callable[[], float] = time.time) -> None:
        self.providers = providers
        self.events: deque[StatusChange] = deque(maxlen=_MOST_EVENTS)
        self._clock = clock
        self._tracked: dict[tuple[str, str], _Tracked] = {}
        self._next_point = 0.0

    def sample(self) -> list[BookRow]:
        """Read every book now; returns all rows, the worst first."""
        now = self._clock()
        with_point = now >= self._next_point or self._next_point > now + HISTORY
        if with_point:
            self._next_point = now + HISTORY / _POINTS
        rows = [
            self._sample(provider, exchange, symbol, now, with_point)
            for exchange, provider in self.providers.items()
            for symbol in list(provider.symbols)
        ]
        return sorted(rows, key=lambda row: (-row.urgency, row.exchange, row.symbol))

    def book(self, exchange: str, name: str) -> Book | None:
        """One book in full; None if the exchange or the book is not known. Raises SymbolError for no symbol's name."""
        provider = self.providers.get(exchange)
        if provider is None:
            return None
        symbol = provider.standard_symbol(name)
        tracked = self._tracked.get((exchange, symbol))
        if tracked is None or tracked.row is None:
            return None
        snapshot, status = provider.read(symbol).snapshot, provider.status(symbol)
        events = [event for event in list(self.events) if (event.exchange, event.symbol) == (exchange, symbol)]
        return Book(
            row=tracked.row,
            native=snapshot.native if snapshot else "",
            depth=snapshot.depth if snapshot else 0,
            seq=status.seq,
            update_id=status.update_id,
            update_age=status.update_age,
            missed=status.missed,
            conflated=status.conflated,
            bids=snapshot.bids if snapshot else (),
            asks=snapshot.asks if snapshot else (),
            hops=_hops(snapshot),
            points=tuple(tracked.points),
            events=tuple(events[-_EVENTS:]),
        )

    def _sample(
        self, provider: MarketDataProvider, exchange: str, symbol: str, now: float, with_point: bool
    ) -> BookRow:
        tracked = self._tracked.setdefault((exchange, symbol), _Tracked())
        reading = provider.read(symbol)
        reason = reading.reason.removeprefix(f"{symbol}: ")
        self._notice_change(tracked, exchange, symbol, reading.status, reason, now)
        snapshot, live = reading.snapshot, reading.status is BookStatus.LIVE
        if snapshot is not None and snapshot.seq != tracked.seq:
            tracked.seq = snapshot.seq
            top = (*snapshot.bids[:_LEVELS_LOOKED_AT], *snapshot.asks[:_LEVELS_LOOKED_AT])
            tracked.decimals = max(tracked.decimals, *(_decimals(price) for price, _ in top), 0)
        mid, spread = (snapshot.mid(), snapshot.spread_bps()) if snapshot else (None, None)
        if with_point:
            if live and mid is not None and spread is not None:
                tracked.points.append(HistoryPoint(round(now, 3), mid, spread))
            tracked.received.append((now, provider.status(symbol).received))
            while tracked.received[0][0] < now - _RATE_WINDOW:
                tracked.received.popleft()
        stands_out = reading.trading in NOT_MATCHING or reading.trading in WARNED_OF
        tracked.row = BookRow(
            exchange=exchange,
            symbol=symbol,
            status=reading.status,
            reason=reason or (f"the exchange says {reading.trading}" if stands_out else ""),
            trading=reading.trading,
            urgency=_URGENCY.get(reading.status, int(stands_out)),
            bid=snapshot.best_bid() if snapshot else None,
            ask=snapshot.best_ask() if snapshot else None,
            spread_bps=spread,
            decimals=tracked.decimals,
            age=None if reading.age is None else round(reading.age, 1),
            rate=_rate(tracked.received),
            feeder=snapshot.feeder if snapshot else "",
            spark=tuple(point.mid for point in list(tracked.points)[-_SPARK_POINTS:]),
        )
        return tracked.row

    def _notice_change(
        self, tracked: _Tracked, exchange: str, symbol: str, status: BookStatus, reason: str, now: float
    ) -> None:
        before = tracked.status
        if status is before:
            return
        if before is not None:
            lasted = round(now - tracked.since, 3)
            self.events.append(
                StatusChange(
                    at=now,
                    exchange=exchange,
                    symbol=symbol,
                    before=before,
                    status=status,
                    reason=reason,
                    seconds=lasted,
                )
            )
        tracked.status, tracked.since = status, now


def changes(before: Mapping[tuple[str, str], BookRow], rows: Iterable[BookRow]) -> list[BookRow]:
    """The rows that differ from those of `before`, which is by exchange and symbol."""
    return [row for row in rows if before.get((row.exchange, row.symbol)) != row]


def _decimals(price: float) -> int:
    """Digits after the point in the shortest text of a price."""
    exponent = Decimal(repr(price)).normalize().as_tuple().exponent
    return min(max(-int(exponent), 0), _MOST_DECIMALS)


def _rate(received: deque[tuple[float, int]]) -> float:
    if not received:
        return 0.0
    (begin, first), (end, last) = received[0], received[-1]
    return round(max(last - first, 0) / (end - begin), 1) if end - begin > 1 else 0.0


def _hops(snapshot: OrderBookSnapshot | None) -> Hops:
    if snapshot is None:
        return Hops(exchange_to_feeder=None, feeder_to_server=None)
    at_exchange, received, published = snapshot.exchange_us, snapshot.received_us, snapshot.published_us
    return Hops(
        exchange_to_feeder=None if at_exchange is None else (received - at_exchange) / 1e3,
        feeder_to_server=(published - received) / 1e3 if published else None,
    )
