"""Options that every simulated exchange has."""

from dataclasses import dataclass, field
from typing import ClassVar

from bookbus.feeders.simulator.core.limits import Rules

FLUSHES_PER_SECOND = 10
"""The grid of book updates."""


@dataclass(frozen=True, kw_only=True)
class SimulatorSettings:
    """Options of one simulated exchange. Raises ValueError for values out of range."""

    MINIMUM_LEVELS: ClassVar[int] = 100

    symbols: tuple[str, ...] | int = ("BTCUSDT", "ETHUSDT")
    """The exchange's own names, or the number of synthetic markets."""
    seed: int = 1
    rate: float = float(FLUSHES_PER_SECOND)
    """Updates a second and symbol, at most one at each point of the grid."""
    changes: int = 20
    """Mutations of the book per update, on average."""
    levels: int = 2000
    """Levels a side of the simulated book; messages may show fewer."""
    host: str = "127.0.0.1"
    port: int = 0
    rest_port: int = 0
    rules: Rules = field(default_factory=Rules)
    rest_delay: float = 0.0
    """Seconds between taking a REST answer from the book and sending it."""
    prepared: float = 0.0
    """Seconds of market computed beforehand and replayed; 0 computes while it runs."""
    truth_flushes: int = 1200
    """Books per symbol that are remembered: two minutes at ten a second, 0.7 kB each."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= FLUSHES_PER_SECOND:
            raise ValueError(f"rate must be between 0 and {FLUSHES_PER_SECOND} updates a second, not {self.rate}")
        for name, least in (("changes", 1), ("levels", self.MINIMUM_LEVELS), ("truth_flushes", 100)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
