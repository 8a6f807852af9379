"""A recording to calibrate on: its events, its identity, its ticks and its cancellations."""

import gzip
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bookbus.consumers.captures import read_capture
from bookbus.consumers.paper.calibration.table import CalibrationError, TapeInfo
from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.consumers.paper.order_rules import PriceUnit
from bookbus.schemas.capture import CaptureError, bounded_lines, decode_frame
from bookbus.schemas.recorded_time import RisingTimes
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot, Side
from bookbus.schemas.trade import Trade

_LEVELS = 20
_TOLERANCE = 1e-9
"""Relative: quantities are results of subtractions."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A quantity that was added to a level and cancelled `age_us` later, at `at_us`."""

    at_us: int
    quantity: float
    age_us: int


@dataclass(frozen=True, slots=True)
class Tape:
    """Every call of `events` reads the recording from its start, in the order received."""

    name: str
    sha256: str
    events: Callable[[], Iterable[TapeEvent]]


@dataclass(frozen=True, slots=True)
class TapeSurvey:
    """Results of a first pass: the tape's identity, the tick of each symbol, the recognised cancellations."""

    info: TapeInfo
    ticks: dict[str, float]
    cancellations: list[Cancellation]


def capture_tape(path: Path, symbols: tuple[str, ...] = (), depth: int = 20) -> Tape:
    """A recorded file as a tape; all symbols unless some are named. Raises CalibrationError if it cannot be read."""
    return Tape(path.name, tape_hash(path), lambda: _events(path, symbols, depth))


def tape_hash(path: Path) -> str:
    """SHA-256 of the uncompressed recording. Raises CalibrationError."""
    digest = hashlib.sha256()
    for line in _lines(path):
        digest.update(line)
    return digest.hexdigest()


def capture_info(path: Path, exchange: str, symbols: tuple[str, ...]) -> TapeInfo:
    """The identity of a recording, as a table keeps it. Raises CalibrationError."""
    digest, times = hashlib.sha256(), []
    for line in _lines(path):
        digest.update(line)
        with suppress(CaptureError):  # the replay reports bad lines
            times.append(decode_frame(line).t)
    if not times:
        raise CalibrationError(f"{path} has no recorded frame")
    rising = [time for time, _ in RisingTimes((time, None) for time in times)]
    first_us, last_us = round(rising[0] * 1e6), round(rising[-1] * 1e6)
    return TapeInfo(
        name=path.name,
        sha256=digest.hexdigest(),
        exchange=exchange,
        symbols=symbols,
        first_us=first_us,
        last_us=last_us,
    )


def survey(tape: Tape) -> TapeSurvey:
    """Read the tape once. Raises CalibrationError for a tape without books or without trades."""
    markets: dict[str, _SymbolSurvey] = {}
    exchange, first_us, last_us, trades = "", None, 0, 0
    for event in tape.events():
        exchange = exchange or event.exchange
        if event.exchange != exchange:
            raise CalibrationError(f"{tape.name} has both {exchange} and {event.exchange}")
        first_us = event.received_us if first_us is None else first_us
        last_us = max(last_us, event.received_us)
        market = markets.setdefault(event.symbol, _SymbolSurvey())
        if isinstance(event, OrderBookSnapshot):
            market.prices.observe(event)
            market.watch.book(event)
        else:
            trades += 1
            market.watch.trade(event)
    ticks = {symbol: tick for symbol, market in markets.items() if (tick := market.prices.tick) is not None}
    if first_us is None or not ticks:
        raise CalibrationError(f"{tape.name} has no book")
    if not trades:
        raise CalibrationError(f"{tape.name} has no trades, so that no fill can be decided")
    info = TapeInfo(
        name=tape.name,
        sha256=tape.sha256,
        exchange=exchange,
        symbols=tuple(sorted(markets)),
        first_us=first_us,
        last_us=last_us,
    )
    return TapeSurvey(
        info,
        ticks,
        [one for market in markets.values() for one in market.watch.found],
    )


def share_ahead(cancellations: list[Cancellation], horizon_us: int) -> float | None:
    """Share of the cancelled quantity that is older than an order whose age is uniform in the horizon."""
    total = math.fsum(cancellation.quantity for cancellation in cancellations)
    if not total:
        return None
    return math.fsum(one.quantity * min(one.age_us, horizon_us) for one in cancellations) / horizon_us / total


@dataclass(slots=True)
class CancellationWatch:
    """Recognises cancelled orders at the best levels of one market by their exact quantity.

    Public data does not say which order was cancelled. A unique added quantity and a later decrease by exactly that
    quantity are one order; when a level disappears, every known order of it was cancelled. Other decreases do not
    count.
    """

    found: list[Cancellation] = field(default_factory=list)
    _before: OrderBookSnapshot | None = None
    _pending: OrderBookSnapshot | None = None
    _traded: dict[tuple[Side, float], float] = field(default_factory=dict)
    _traded_since: dict[tuple[Side, float], float] = field(default_factory=dict)
    _queues: dict[tuple[Side, float], "_Queue"] = field(default_factory=dict)

    def trade(self, trade: Trade) -> None:
        """Count a trade, which took from the side opposite its aggressor."""
        pending = self._pending
        late = pending is not None and pending.exchange_us is not None and trade.exchange_us <= pending.exchange_us
        traded = self._traded if late else self._traded_since
        key: tuple[Side, float] = ("buy" if trade.aggressor == "sell" else "sell", trade.price)
        traded[key] = traded.get(key, 0.0) + trade.quantity

    def book(self, book: OrderBookSnapshot) -> None:
        """Add a new book, and compare the two before it, whose trades have all arrived now."""
        if book.state != "live":
            self._before = self._pending = None
            self._queues.clear()
            return
        if self._before is not None and self._pending is not None:
            self._compare("buy", self._before.bids[:_LEVELS], self._pending.bids[:_LEVELS])
            self._compare("sell", self._before.asks[:_LEVELS], self._pending.asks[:_LEVELS])
        self._before, self._pending = self._pending, book
        self._traded, self._traded_since = self._traded_since, {}

    def _compare(self, side: Side, before: Levels, after: Levels) -> None:
        if not before or not after or self._pending is None:
            return
        sign = 1 if side == "buy" else -1
        # Only prices that both books cover can be compared.
        covered = max(sign * before[-1][0], sign * after[-1][0])
        old, new = dict(before), dict(after)
        for price in old.keys() | new.keys():
            key = (side, price)
            if sign * price < covered:
                self._queues.pop(key, None)
                continue
            queue = self._queues.get(key) or _Queue(old.get(price, 0.0))
            self.found += queue.update(new.get(price, 0.0), self._traded.get(key, 0.0), self._pending.received_us)
            if price in new:
                self._queues[key] = queue
            else:
                self._queues.pop(key, None)


class _Queue:
    """The queue at one price: a quantity of unknown age, then the orders that were seen to arrive, oldest first."""

    def __init__(self, unknown: float) -> None:
        self._unknown = unknown
        self._known: list[tuple[int, float]] = []

    def update(self, displayed: float, traded: float, at_us: int) -> list[Cancellation]:
        """The level shows `displayed` after `traded` was taken from it. Returns the recognised cancellations."""
        self._serve(traded)
        change = displayed - self._unknown - math.fsum(quantity for _, quantity in self._known)
        slack = _TOLERANCE * max(displayed, abs(change))
        if not displayed:
            gone, self._known, self._unknown = self._known, [], 0.0
            return [Cancellation(at_us, quantity, at_us - came_us) for came_us, quantity in gone]
        if change > slack:
            self._known.append((at_us, change))
        elif change < -slack:
            return self._cancel(-change, displayed, at_us)
        return []

    def _serve(self, traded: float) -> None:
        served = min(traded, self._unknown)
        self._unknown -= served
        left = traded - served
        while left > 0 and self._known:
            came_us, quantity = self._known.pop(0)
            if quantity > left:
                self._known.insert(0, (came_us, quantity - left))
            left -= quantity

    def _cancel(self, quantity: float, displayed: float, at_us: int) -> list[Cancellation]:
        alike = [one for one in self._known if abs(one[1] - quantity) <= _TOLERANCE * quantity]
        if len(alike) == 1:
            self._known.remove(alike[0])
            return [Cancellation(at_us, quantity, at_us - alike[0][0])]
        if quantity <= self._unknown:
            self._unknown -= quantity
        else:
            self._unknown, self._known = displayed, []
        return []


@dataclass(slots=True)
class _SymbolSurvey:
    watch: CancellationWatch = field(default_factory=CancellationWatch)
    prices: PriceUnit = field(default_factory=PriceUnit)


def _events(path: Path, symbols: tuple[str, ...], depth: int) -> Iterator[TapeEvent]:
    try:
        for frame in read_capture(path, symbols, depth):
            yield from frame.events
    except (CaptureError, OSError) as error:
        raise CalibrationError(f"cannot read {path}: {error}") from error


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a recording, compressed or not. Raises CalibrationError."""
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else path.open("rb") as content:
            yield from bounded_lines(content)
    except (OSError, EOFError) as error:
        raise CalibrationError(f"cannot read {path}: {error}") from error
