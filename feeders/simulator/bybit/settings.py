"""What a local Bybit is asked to be."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from bookbus.feeders.simulator.core.feed import FLUSHES_PER_SECOND


@dataclass(frozen=True, slots=True)
class BybitRules:
    """The exchange's limits; times in seconds."""

    idle: float = 600.0
    """Without a ping of its own kind for so long a connection is cut; the documentation spares one that gets data."""
    arguments: int = 10
    """Topics that one request may name."""
    connects: int = 500
    connect_window: float = 300.0

    def scaled(self, speed: float) -> "BybitRules":
        """The same rules on a clock that runs `speed` times as fast."""
        return replace(self, idle=self.idle / speed, connect_window=self.connect_window / speed)


@dataclass(frozen=True, slots=True)
class BybitSettings:
    """One local exchange. `symbols` are the exchange's own names, or how many markets to make up."""

    symbols: tuple[str, ...] | int = ("BTCUSDT", "ETHUSDT")
    seed: int = 1
    rate: float = float(FLUSHES_PER_SECOND)
    """Updates a second and symbol, on a grid of 100 ms; the exchange's own is finer."""
    changes: int = 20
    """Mutations of the book per update, on average."""
    levels: int = 2000
    """Levels a side of the book, of which a topic shows its best part."""
    host: str = "127.0.0.1"
    port: int = 0
    rest_port: int = 0
    rules: BybitRules = field(default_factory=BybitRules)
    rest_delay: float = 0.0
    """Seconds between taking a REST answer and sending it."""
    prepared: float = 0.0
    """Seconds of market computed beforehand and replayed; 0 computes while it runs."""
    truth_flushes: int = 1200
    """Updates per symbol whose true book is remembered: two minutes at ten a second."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= FLUSHES_PER_SECOND:
            raise ValueError(f"rate must be between 0 and {FLUSHES_PER_SECOND} updates a second, not {self.rate}")
        if self.changes < 1:
            raise ValueError(f"changes must be at least 1, not {self.changes}")
        if self.levels < 100:
            raise ValueError(f"levels must be at least 100, not {self.levels}")
        if self.truth_flushes < 100:
            raise ValueError(f"truth_flushes must be at least 100, not {self.truth_flushes}")


def bybit_settings(symbols: Iterable[str] | int, **options: Any) -> BybitSettings:
    """Settings from what a caller names; the rest has defaults. Raises TypeError or ValueError."""
    return BybitSettings(symbols=symbols if isinstance(symbols, int) else tuple(symbols), **options)
