"""How much of what is cancelled at a price stood ahead of an order that waits there."""

import math
from dataclasses import dataclass, field

from bookbus.schemas.snapshot import Levels, OrderBookSnapshot, Side
from bookbus.schemas.trade import Trade

_LEVELS = 20
_TOLERANCE = 1e-9
"""Relative: quantities come out of subtractions."""


@dataclass(frozen=True, slots=True)
class Cancellation:
    """A quantity that was added to a level and taken back `age_us` later, at `at_us`."""

    at_us: int
    quantity: float
    age_us: int


def share_ahead(cancellations: list[Cancellation], horizon_us: int) -> float | None:
    """Share of the quantity that was older than an order which waits for a time uniform in the horizon."""
    total = math.fsum(cancellation.quantity for cancellation in cancellations)
    if not total:
        return None
    return math.fsum(one.quantity * min(one.age_us, horizon_us) for one in cancellations) / horizon_us / total


@dataclass(slots=True)
class CancellationWatch:
    """Follows the best levels of one market and recognises what is cancelled by its exact quantity.

    Public data does not say which order was cancelled. An addition of a quantity that no other one has, and the loss
    of exactly it, are one order; so are all that were seen to come when a level goes as a whole. The rest stays
    unrecognised and does not count.
    """

    found: list[Cancellation] = field(default_factory=list)
    _before: OrderBookSnapshot | None = None
    _pending: OrderBookSnapshot | None = None
    _traded: dict[tuple[Side, float], float] = field(default_factory=dict)
    _traded_since: dict[tuple[Side, float], float] = field(default_factory=dict)
    _queues: dict[tuple[Side, float], "_Queue"] = field(default_factory=dict)

    def trade(self, trade: Trade) -> None:
        """A trade took from the side its aggressor did not stand on."""
        pending = self._pending
        late = pending is not None and pending.exchange_us is not None and trade.exchange_us <= pending.exchange_us
        traded = self._traded if late else self._traded_since
        key: tuple[Side, float] = ("buy" if trade.aggressor == "sell" else "sell", trade.price)
        traded[key] = traded.get(key, 0.0) + trade.quantity

    def book(self, book: OrderBookSnapshot) -> None:
        """A new book; the one before it is judged now, when the trades that belong to it are all there."""
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
        # Only what both books show can be compared.
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
    """What stands at one price: a quantity of unknown age, then what was seen to come, oldest first."""

    def __init__(self, unknown: float) -> None:
        self._unknown = unknown
        self._known: list[tuple[int, float]] = []

    def update(self, displayed: float, traded: float, at_us: int) -> list[Cancellation]:
        """The level shows `displayed` after `traded` was taken from it. Returns what was recognised as cancelled."""
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
