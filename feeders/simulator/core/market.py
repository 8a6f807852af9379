"""A synthetic market: the book and trades of one symbol, the same in every run with the same seed."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from math import exp
from random import Random
from typing import NamedTuple

from bookbus.schemas.instruments import EXCHANGES, Exchange, guess_instrument
from bookbus.schemas.snapshot import Side

Key = int
"""A price in ticks, negated for asks: on both sides the greater key is the better price."""

RawLevel = tuple[int, int]
"""`(ticks, steps)`."""


class Ladder:
    """Levels of one side. `originals`: quantities at the last flush (0: absent) of the levels changed since then."""

    __slots__ = ("keys", "originals", "quantities", "sign")

    def __init__(self, sign: int, keys: Iterable[Key], quantities: Iterable[int]) -> None:
        self.sign = sign
        self.keys = array("q", keys)
        self.quantities = array("q", quantities)
        self.originals: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def best(self) -> Key:
        return self.keys[-1]

    def set(self, key: Key, quantity: int) -> None:
        """Set the quantity at a price, with or without a level there."""
        keys = self.keys
        index = bisect_left(keys, key)
        if index < len(keys) and keys[index] == key:
            self.change(index, quantity)
        else:
            keys.insert(index, key)
            self.quantities.insert(index, quantity)
            self.originals.setdefault(key, 0)

    def change(self, index: int, quantity: int) -> None:
        self.originals.setdefault(self.keys[index], self.quantities[index])
        self.quantities[index] = quantity

    def remove(self, index: int) -> None:
        self.originals.setdefault(self.keys.pop(index), self.quantities.pop(index))

    def quantity_at(self, key: Key) -> int:
        index = bisect_left(self.keys, key)
        return self.quantities[index] if index < len(self.keys) and self.keys[index] == key else 0

    def take_changes(self) -> list[tuple[Key, int, int]]:
        """`(key, quantity before, quantity now)` of every level touched since the last call, each level once."""
        changes = [(key, before, self.quantity_at(key)) for key, before in self.originals.items()]
        self.originals.clear()
        return changes

    def packed(self, depth: int) -> bytes:
        """The best `depth` levels as bytes for `unpack`."""
        return b"".join((self.keys[-depth:], self.quantities[-depth:]))

    def top(self, depth: int) -> list[RawLevel]:
        """The best `depth` levels as they are now, best first."""
        return list(_best_first(self.sign, self.keys[-depth:], self.quantities[-depth:]))

    def top_at_flush(self, depth: int) -> list[RawLevel]:
        """The best `depth` levels as they were when changes were last taken, best first."""
        # Changes since then hide at most as many levels as there were changes.
        reach = depth + len(self.originals)
        levels = dict(zip(self.keys[-reach:], self.quantities[-reach:], strict=True)) | self.originals
        best = sorted((key for key, quantity in levels.items() if quantity), reverse=True)[:depth]
        return [(self.sign * key, levels[key]) for key in best]


def unpack(sign: int, packed: bytes) -> list[RawLevel]:
    """The levels of `Ladder.packed`, best first."""
    values = array("q", packed)
    half = len(values) // 2
    return list(_best_first(sign, values[:half], values[half:]))


def _best_first(sign: int, keys: "array[int]", quantities: "array[int]") -> Iterator[RawLevel]:
    return ((sign * key, quantity) for key, quantity in zip(reversed(keys), reversed(quantities), strict=True))


DECIMALS = 8
"""Digits after the point in every number on the wire."""

_MAJORS = {
    # base: (price in dollars, decimals of the tick, decimals of the step)
    "BTC": (61837.63, 2, 5),
    "ETH": (2683.80, 2, 4),
    "BNB": (571.20, 2, 3),
    "SOL": (152.47, 2, 3),
    "XRP": (0.6031, 4, 0),
    "ADA": (0.3412, 4, 1),
    "DOGE": (0.10412, 5, 0),
    "TRX": (0.1297, 4, 1),
    "LTC": (62.31, 2, 3),
    "LINK": (10.21, 3, 2),
    "DOT": (4.562, 3, 2),
    "AVAX": (22.84, 3, 2),
}
_DOLLARS = dict.fromkeys(("USDT", "USDC", "FDUSD"), (1.0, 4, 1))
"""Worth a dollar: their markets are the exchange rates between the quote currencies of the others."""
_QUOTE_PRICES = {"BTC": 61837.63, "ETH": 2683.80, "BNB": 571.20, "EUR": 1.09, "TRY": 0.03, "KRW": 0.00073}
_MINIMUM_TICKS = 60_000
"""A price of fewer ticks leaves no room for the bids below it: such a market gets a finer tick."""


@dataclass(frozen=True, slots=True)
class SimulatedInstrument:
    """One market. Inside the simulator, prices are whole ticks and quantities whole steps."""

    native: str
    base: str
    quote: str
    tick_decimals: int
    step_decimals: int
    start_ticks: int
    typical_steps: int
    """Median size of a level."""
    tick_units: int = 1
    """The tick is so many units of `tick_decimals`."""

    def price(self, ticks: int) -> float:
        return ticks * self.tick_units / int(10**self.tick_decimals)  # int / int rounds like float() of the text

    def quantity(self, steps: int) -> float:
        return steps / int(10**self.step_decimals)

    def price_text(self, ticks: int) -> str:
        return decimal_text(ticks * self.tick_units, self.tick_decimals)

    def quantity_text(self, steps: int) -> str:
        return decimal_text(steps, self.step_decimals)

    def turnover_text(self, turnover: int) -> str:
        """Of ticks times steps."""
        units = turnover * self.tick_units * 10**DECIMALS // 10 ** (self.tick_decimals + self.step_decimals)
        return decimal_text(units, DECIMALS)


@lru_cache(maxsize=100_000)
def decimal_text(units: int, decimals: int) -> str:
    """`units` of 10^-decimals with all eight digits after the point."""
    whole, part = divmod(abs(units) * 10 ** (DECIMALS - decimals), 10**DECIMALS)
    return f"{'-' if units < 0 else ''}{whole}.{part:0{DECIMALS}d}"


def instruments(symbols: Sequence[str] | int, exchange: Exchange = EXCHANGES["binance"]) -> list[SimulatedInstrument]:
    """The named markets, or this number of them, the big ones first."""
    names = default_names(symbols, exchange) if isinstance(symbols, int) else symbols
    return [_instrument(exchange, name) for name in dict.fromkeys(names)]


def default_names(count: int, exchange: Exchange) -> list[str]:
    """`count` native names in the exchange's home quote."""
    synthetic = (f"{_letters(number)}Z" for number in range(count))
    bases = [*_MAJORS, *synthetic][:count]
    return [exchange.native(base, exchange.home_quote) for base in bases]


def _letters(number: int) -> str:
    high, low = divmod(number, 26 * 26)
    return chr(65 + high % 26) + chr(65 + low // 26) + chr(65 + low % 26)


def _instrument(exchange: Exchange, name: str) -> SimulatedInstrument:
    guessed = guess_instrument(exchange, name)
    # Tick and step are the same in every run: the seed changes prices alone.
    rng = Random(guessed.native)  # noqa: S311
    known = _MAJORS | _DOLLARS
    dollars, ticks, steps = known.get(guessed.base, (round(rng.lognormvariate(0, 2.5), 6), 2, 2))
    price = dollars / _QUOTE_PRICES.get(guessed.quote, 1.0)
    while price * 10**ticks < _MINIMUM_TICKS and ticks < DECIMALS:
        ticks += 1
    if guessed.base not in known:
        steps = max(0, min(5, ticks - 4))
    typical_steps = max(1, round(rng.uniform(300, 1500) / dollars * 10**steps))
    start = max(_MINIMUM_TICKS, round(price * 10**ticks))
    return SimulatedInstrument(guessed.native, guessed.base, guessed.quote, ticks, steps, start, typical_steps)


class Quote(NamedTuple):
    """Best bid and ask from this update id on, after one of them changed."""

    update_id: int
    bid: RawLevel
    ask: RawLevel


class SimulatedFill(NamedTuple):
    """An aggressor traded with one level, in `trades` trades with ids up to `last_trade_id`."""

    fill_id: int
    aggressor: Side
    ticks: int
    steps: int
    last_trade_id: int
    trades: int


class Flush(NamedTuple):
    """Changes between two flushes: each touched level once, with its final quantity (0: removed)."""

    first_id: int
    last_id: int
    bids: list[RawLevel]
    asks: list[RawLevel]
    bids_before: list[RawLevel]
    asks_before: list[RawLevel]
    """The same levels with their quantities at the flush before."""
    body: str = ""
    """The levels as the exchange writes them, where that was prepared."""

    def undone(self) -> "Flush":
        return self._replace(bids=self.bids_before, asks=self.asks_before, bids_before=self.bids, asks_before=self.asks)


def merged(flushes: Sequence[Flush]) -> Flush:
    """Consecutive flushes as one."""
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    bids_before: dict[int, int] = {}
    asks_before: dict[int, int] = {}
    for flush in flushes:
        bids.update(flush.bids)
        asks.update(flush.asks)
    for flush in reversed(flushes):
        bids_before.update(flush.bids_before)
        asks_before.update(flush.asks_before)
    return Flush(
        flushes[0].first_id,
        flushes[-1].last_id,
        list(bids.items()),
        list(asks.items()),
        list(bids_before.items()),
        list(asks_before.items()),
    )


_TABLE = 4096
"""Size of the tables of random values: the bits of one call choose all values of a mutation."""
_MASK = _TABLE - 1
_PER_MILLE = 1024


@dataclass(frozen=True, slots=True)
class _Tables:
    sizes: list[int]
    """Multiples of the typical size in 1/1024: log-normal, with a few very large orders."""
    places: list[int]
    """Distances from the touch in levels: most near it, some anywhere in the book."""
    gaps: list[int]
    """Ticks between neighbouring levels, in 1/1024 of the mean."""
    sweeps: list[int]
    """Levels that one aggressor takes."""


@cache
def _tables() -> _Tables:
    rng = Random(20_240_808)  # noqa: S311
    draws = range(_TABLE)
    return _Tables(
        sizes=[
            max(1, int(_PER_MILLE * rng.lognormvariate(0, 1.4) * (20 if rng.random() < 0.01 else 1))) for _ in draws
        ],
        places=[int(rng.paretovariate(0.55)) for _ in draws],
        gaps=[int(_PER_MILLE * rng.expovariate(1.0)) for _ in draws],
        sweeps=[min(60, int(rng.paretovariate(1.5))) for _ in draws],
    )


class SimulatedMarket:
    """The book changes in single mutations; each raises `update_id` by one and leaves bid below ask.

    Each side keeps about `levels` levels. There is no clock: the exchange calls `step` and `flush`.
    """

    def __init__(self, instrument: SimulatedInstrument, seed: int, levels: int, first_id: int | None = None) -> None:
        self.instrument = instrument
        self._rng = Random(f"{seed}:{instrument.native}")  # noqa: S311
        self._bits = self._rng.getrandbits
        self._levels = levels
        self._tables = _tables()
        self._gap = max(1.0, min(12.0, 0.4 * instrument.start_ticks / levels))
        self.update_id = self._bits(33) + 10**9 if first_id is None else first_id
        self.flushed_id = self.update_id
        self._trade_id = self._bits(28) + 10**6
        self._fill_id = self._trade_id // 2
        self._sweeping = 0
        self._buys = True
        self._buy_chance = 512
        middle = instrument.start_ticks
        self.bids = self._ladder(1, middle)
        self.asks = self._ladder(-1, -(middle + 1))

    def step(self, mutations: int) -> list[Quote | SimulatedFill]:
        """Mutate the book. Returns the trades and the changes of the best levels, in order."""
        events: list[Quote | SimulatedFill] = []
        drift = self.bids.best / self.instrument.start_ticks - 1.0
        # A weak pull back to the start keeps a market that runs for days on its price grid.
        self._buy_chance = int(_PER_MILLE / (1.0 + exp(8.0 * drift)))
        bids, asks = self.bids, self.asks
        for _ in range(mutations):
            before = bids.keys[-1], bids.quantities[-1], asks.keys[-1], asks.quantities[-1]
            fill = self._mutate()
            self.update_id += 1
            if fill is not None:
                events.append(fill)
            if before != (bids.keys[-1], bids.quantities[-1], asks.keys[-1], asks.quantities[-1]):
                events.append(self.quote())
        return events

    def quote(self) -> Quote:
        """Best bid and ask now."""
        bids, asks = self.bids, self.asks
        return Quote(self.update_id, (bids.keys[-1], bids.quantities[-1]), (-asks.keys[-1], asks.quantities[-1]))

    def flush(self) -> Flush | None:
        """Changes since the last flush; None if there are none."""
        if self.update_id == self.flushed_id:
            return None
        bids, asks = self.bids.take_changes(), self.asks.take_changes()
        first_id, self.flushed_id = self.flushed_id + 1, self.update_id
        return Flush(
            first_id,
            self.update_id,
            [(key, now) for key, _, now in bids],
            [(-key, now) for key, _, now in asks],
            [(key, before) for key, before, _ in bids],
            [(-key, before) for key, before, _ in asks],
        )

    def _ladder(self, sign: int, best: int) -> Ladder:
        mean = self._gap
        draws = self._rng.choices(self._tables.gaps, k=self._levels)
        keys = list(accumulate((-max(1, int(draw * mean) >> 10) for draw in draws), initial=best))
        unit = self.instrument.typical_steps
        sizes = [max(1, unit * draw >> 10) for draw in self._rng.choices(self._tables.sizes, k=len(keys))]
        return Ladder(sign, reversed(keys), sizes)

    def _mutate(self) -> SimulatedFill | None:
        bits = self._bits(60)
        ladder, opposite = (self.bids, self.asks) if bits & 1 else (self.asks, self.bids)
        kind = (bits >> 1) & 1023
        size = max(1, self.instrument.typical_steps * self._tables.sizes[(bits >> 11) & _MASK] >> 10)
        room = -opposite.keys[-1] - ladder.keys[-1]
        if self._sweeping:
            return self._take(size)
        if room > 1 and kind < 920:
            # An order inside the spread: next to the other side, or part of the way if a sweep left a wide spread.
            reach = 8 * int(self._gap)
            ladder.set(ladder.keys[-1] + (room - 1 if room <= reach else 1 + (bits >> 35) % reach), size)
            return None
        if kind < 70:
            self._buys = ((bits >> 35) & 1023) < self._buy_chance
            self._sweeping = self._tables.sweeps[(bits >> 45) & _MASK]
            return self._take(size)
        self._rearrange(ladder, kind, min(self._tables.places[(bits >> 23) & _MASK], len(ladder)), size, bits >> 35)
        return None

    def _rearrange(self, ladder: Ladder, kind: int, place: int, size: int, bits: int) -> None:
        """An order that does not trade: it changes, adds or removes a level."""
        index = len(ladder) - place
        count = len(ladder)
        adds = kind & 1 if self._levels < count < self._levels * 1.01 else count <= self._levels
        if kind < 620:
            ladder.change(index, size if size != ladder.quantities[index] else size + 1)
        elif adds:
            offset = 1 + bits % max(1, int(2 * self._gap))
            key = ladder.keys[index] - offset
            # Bids end at one tick above zero.
            ladder.set(key if ladder.sign < 0 or key > 0 else ladder.keys[-1], size)
        else:
            ladder.remove(index if place > 1 or bits & 7 == 0 else index - 1)

    def _take(self, size: int) -> SimulatedFill:
        """The aggressor trades with the best level; one that sweeps takes all of it and continues with the next."""
        self._sweeping -= 1
        ladder = self.asks if self._buys else self.bids
        ticks, resting = ladder.keys[-1] * ladder.sign, ladder.quantities[-1]
        if self._sweeping or size >= resting:
            taken = resting
            ladder.remove(len(ladder) - 1)
        else:
            taken = size
            ladder.change(len(ladder) - 1, resting - size)
        trades = 2 if taken > 2 and taken & 1 else 1
        self._trade_id += trades
        self._fill_id += 1
        return SimulatedFill(self._fill_id, "buy" if self._buys else "sell", ticks, taken, self._trade_id, trades)
