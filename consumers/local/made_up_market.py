"""One market made up from a seed: a book that moves and trades sizes like recorded ones, and is none."""

import math
from random import Random

from bookbus.schemas.snapshot import Levels

STEP = 0.1
"""Seconds of market in one step."""

# Shaped by recorded books of two busy markets, ten updates a second, best 20 levels.
_MOVES = 0.13
"""Share of steps in which the best prices change."""
_MOVE_BPS = 0.7
_SAME_DIRECTION = 0.6
_WIDE = 0.05
"""Share of moves that leave more than one tick between bid and ask."""
_CLOSES = 0.8
_BEST_CHANGES = 0.7
_DEEPER_CHANGES = 2
_GAP_BPS = 0.06
_NEXT_TICK = 0.3
"""Share of levels that have a neighbour one tick away."""
_BEST_SHAPE = 1.2
_DUST = 0.35
"""Share of deeper levels that hold next to nothing."""

_DOLLARS = {"BTC": 60_000.0, "ETH": 2_600.0, "KRW": 0.0007, "USDT": 1.0, "USDC": 1.0, "FDUSD": 1.0, "USD": 1.0}
_AT_BEST = {"BTC": 120_000.0, "ETH": 30_000.0}
"""Dollars at the best price; 10,000 elsewhere."""
_WANDERING = 1.25
"""A price this many times its first, or that fraction of it, turns back."""

_Side = list[tuple[int, float]]


class MadeUpMarket:
    """`step()` lets a tenth of a second pass. Whoever knows the seed knows every book."""

    def __init__(self, base: str, quote: str, seed: int, depth: int) -> None:
        self._random = Random(f"{seed} {base}-{quote}")  # noqa: S311
        dollars = _DOLLARS.get(base) or 10 ** self._random.uniform(-1, 2)
        price = dollars / _DOLLARS.get(quote, 1.0)
        size = _AT_BEST.get(base, 10_000.0) / dollars
        self._price_digits = 5 - math.floor(math.log10(price))
        self._size_digits = max(5 - math.floor(math.log10(size)), 0)
        self._first = round(price * 10**self._price_digits)
        self._size = size
        self._depth = depth
        self._direction = 1
        self._bids: _Side = [(self._first, self._best_size())]
        self._asks: _Side = [(self._first + 1, self._best_size())]
        self._fill()

    def step(self) -> None:
        """The next moment."""
        chance = self._random.random
        if chance() < _MOVES:
            self._move()
        elif self._asks[0][0] - self._bids[0][0] > 1 and chance() < _CLOSES:
            self._asks.insert(0, (self._bids[0][0] + 1, self._best_size()))
        for side in (self._bids, self._asks):
            if chance() < _BEST_CHANGES:
                side[0] = (side[0][0], self._best_size())
            for _ in range(_DEEPER_CHANGES):
                self._change(side)
        self._fill()

    def levels(self) -> tuple[Levels, Levels]:
        """Bids and asks as they are, best first."""
        return self._priced(self._bids), self._priced(self._asks)

    def _move(self) -> None:
        """Somebody takes all there is up to a price, and somebody else follows."""
        chance, best = self._random.random, self._bids[0][0]
        if chance() >= _SAME_DIRECTION:
            self._direction = -self._direction
        if not self._first / _WANDERING < best < self._first * _WANDERING:
            self._direction = 1 if best < self._first else -1
        way = self._direction
        ticks = max(round(self._random.expovariate(1 / _MOVE_BPS) * best / 1e4), 1)
        spread = 1 + (self._gap(best) if chance() < _WIDE else 0)
        followed, taken = (self._bids, self._asks) if way > 0 else (self._asks, self._bids)
        old = followed[0][0]
        price = old + way * ticks
        opposite = price + way * spread
        while taken and (opposite - taken[0][0]) * way > 0:
            del taken[0]
        if not taken or taken[0][0] != opposite:
            taken.insert(0, (opposite, self._best_size()))
        ahead: _Side = []
        while (price - old) * way > 0 and len(ahead) < self._depth:
            ahead.append((price, self._deeper_size() if ahead else self._best_size()))
            price -= way * self._gap(best)
        followed[:0] = ahead

    def _change(self, side: _Side) -> None:
        """An order comes, goes or changes behind the best price."""
        if len(side) < 2:
            return
        index = self._random.randrange(1, len(side))
        before, (ticks, _) = side[index - 1][0], side[index]
        match self._random.randrange(3):
            case 0:
                del side[index]
            case 1 if abs(ticks - before) > 1:
                nearer, farther = sorted((before, ticks))
                side.insert(index, (self._random.randrange(nearer + 1, farther), self._deeper_size()))
            case _:
                side[index] = (ticks, self._deeper_size())

    def _fill(self) -> None:
        for side, way in ((self._bids, -1), (self._asks, 1)):
            while len(side) < self._depth:
                ticks = side[-1][0]
                side.append((ticks + way * self._gap(ticks), self._deeper_size()))
            del side[self._depth :]

    def _gap(self, ticks: int) -> int:
        if self._random.random() < _NEXT_TICK:
            return 1
        return 1 + int(self._random.expovariate(1e4 / (_GAP_BPS * ticks)))

    def _best_size(self) -> float:
        return self._rounded(self._random.gammavariate(_BEST_SHAPE, self._size / _BEST_SHAPE))

    def _deeper_size(self) -> float:
        if self._random.random() < _DUST:
            return self._rounded(self._size * 2e-4 * self._random.lognormvariate(0, 1))
        return self._rounded(self._size * 0.06 * self._random.lognormvariate(0, 1))

    def _rounded(self, size: float) -> float:
        return round(max(size, 10.0**-self._size_digits), self._size_digits)

    def _priced(self, side: _Side) -> Levels:
        digits = self._price_digits
        if digits < 0:
            return tuple((float(ticks * 10**-digits), size) for ticks, size in side)
        return tuple((round(ticks / 10**digits, digits), size) for ticks, size in side)
