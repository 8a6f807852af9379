"""Synthetic tapes with a known probability that a resting order is filled."""

import hashlib
import heapq
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bookbus.consumers.paper.calibration.tape import Tape
from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.schemas.snapshot import OrderBookSnapshot, Side
from bookbus.schemas.trade import Trade
from tests.support.builders import book

START_US = 1_700_000_000_000_000

ENTRY_PRICE, EXIT_PRICE = 9_999.0, 10_004.0
ZONE = "0.2-0.8/4.2-4.8"
"""Rounds to these two prices: the best bid is 10,000, a tick 1, which is 1 bp."""

AHEAD = 1.0
"""Quantity displayed at either price."""

TRADE = 0.4
"""Quantity of every trade: three of them are more than what is ahead and an order of `QUANTITY`."""

QUANTITY = 0.1
NOTIONAL = QUANTITY * ENTRY_PRICE
NEEDED = 3


@dataclass(frozen=True, slots=True)
class SyntheticTape:
    """Independent random trades at the entry and the exit price, `entry_rate` and `exit_rate` per second.

    Every level is refilled behind the order at once, so that only trades move the queue. With `calm` below 1, both
    rates are multiplied by it in a random half of the stretches of `stretch` seconds.
    """

    seed: int
    seconds: float = 2_000.0
    entry_rate: float = 0.5
    exit_rate: float = 0.5
    book_interval: float = 0.5
    calm: float = 1.0
    stretch: float = 60.0
    start_us: int = START_US

    def tape(self) -> Tape:
        """For `calibrate`."""
        return Tape(f"synthetic-{self.seed}", hashlib.sha256(repr(self).encode()).hexdigest(), self.events)

    def events(self) -> Iterator[TapeEvent]:
        """All events, the same at every call."""
        draw = random.Random(self.seed)
        slow = [draw.random() < 0.5 for _ in range(int(self.seconds / self.stretch) + 1)]
        entries = [(at, "sell", ENTRY_PRICE) for at in self._times(draw, self.entry_rate, slow)]
        exits = [(at, "buy", EXIT_PRICE) for at in self._times(draw, self.exit_rate, slow)]
        books: Iterable[tuple[float, str, float]] = (
            (number * self.book_interval, "", 0.0) for number in range(int(self.seconds / self.book_interval))
        )
        for number, (at, aggressor, price) in enumerate(heapq.merge(books, sorted(entries), sorted(exits))):
            at_us = self.start_us + round(at * 1e6)
            if not aggressor:
                yield synthetic_book(at_us)
            else:
                yield synthetic_trade(number, at_us, "sell" if aggressor == "sell" else "buy", price)

    def _times(self, draw: random.Random, rate: float, slow: list[bool]) -> Iterator[float]:
        at = 0.0
        while (at := at + draw.expovariate(rate)) < self.seconds:
            # Thinning keeps the times random at the lower rate.
            if not slow[int(at / self.stretch)] or draw.random() < self.calm:
                yield at


def fill_probability(rate: float, seconds: float) -> float:
    """Probability of at least NEEDED trades within `seconds`."""
    expected = rate * seconds
    return 1 - math.exp(-expected) * math.fsum(expected**k / math.factorial(k) for k in range(NEEDED))


def synthetic_book(at_us: int) -> OrderBookSnapshot:
    """Ten levels per side, one tick apart, of equal quantity."""
    return book(
        exchange_us=at_us,
        received_us=at_us,
        bids=tuple((10_000.0 - level, AHEAD) for level in range(10)),
        asks=tuple((10_003.0 + level, AHEAD) for level in range(10)),
    )


def synthetic_trade(number: int, at_us: int, aggressor: Side, price: float) -> Trade:
    """One trade of quantity TRADE."""
    return Trade("binance", "BTC-USDT", "BTCUSDT", number, price, TRADE, aggressor, at_us, at_us)
