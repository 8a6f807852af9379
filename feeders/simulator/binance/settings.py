"""What a local exchange is asked to be."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from bookbus.feeders.simulator.core.feed import FLUSHES_PER_SECOND, SnapshotMode

MINIMUM_TRUTH_DEPTH = 20
"""Partial-depth streams are cut from the remembered truth."""

ErrorShape = Literal["nested", "flat"]


@dataclass(frozen=True, slots=True)
class BinanceRules:
    """The exchange's limits; times in seconds."""

    ping_interval: float = 20.0
    pong_timeout: float = 60.0
    lifetime: float = 24 * 3600.0
    frames: int = 5
    """What a client may send, pings and pongs included, within `frame_window`."""
    frame_window: float = 1.0
    connects: int = 300
    connect_window: float = 300.0
    streams: int = 1024
    subscribe_bytes: int = 4088
    weight: int = 6000
    weight_window: float = 60.0
    requests_until_ban: int = 5
    """Requests that are answered 429 before the address is banned."""
    ban: float = 120.0

    def scaled(self, speed: float) -> "BinanceRules":
        """The same rules on a clock that runs `speed` times as fast."""
        return replace(
            self,
            ping_interval=self.ping_interval / speed,
            pong_timeout=self.pong_timeout / speed,
            lifetime=self.lifetime / speed,
            frame_window=self.frame_window / speed,
            connect_window=self.connect_window / speed,
            weight_window=self.weight_window / speed,
            ban=self.ban / speed,
        )


@dataclass(frozen=True, slots=True)
class SimulatorSettings:
    """One local exchange. `symbols` are the exchange's own names, or how many markets to make up."""

    symbols: tuple[str, ...] | int = ("BTCUSDT", "ETHUSDT")
    seed: int = 1
    rate: float = float(FLUSHES_PER_SECOND)
    """Updates a second and symbol; the exchange's grid of 100 ms allows 10."""
    changes: int = 20
    """Mutations of the book per update, on average."""
    levels: int = 6000
    """Levels a side."""
    host: str = "127.0.0.1"
    port: int = 0
    rest_port: int = 0
    rules: BinanceRules = field(default_factory=BinanceRules)
    snapshot_mode: SnapshotMode = "flushed"
    rest_delay: float = 0.0
    """Seconds between taking a REST answer from the book and sending it."""
    error_shape: ErrorShape = "nested"
    prepared: float = 0.0
    """Seconds of market computed beforehand and replayed; 0 computes while it runs."""
    truth_depth: int = MINIMUM_TRUTH_DEPTH
    truth_flushes: int = 1200
    """Flushes per symbol whose true book is remembered: two minutes at ten a second, 0.7 kB each."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= FLUSHES_PER_SECOND:
            raise ValueError(f"rate must be between 0 and {FLUSHES_PER_SECOND} updates a second, not {self.rate}")
        if self.changes < 1:
            raise ValueError(f"changes must be at least 1, not {self.changes}")
        if self.truth_depth < MINIMUM_TRUTH_DEPTH or self.levels < self.truth_depth:
            raise ValueError(
                f"need {MINIMUM_TRUTH_DEPTH} <= truth_depth <= levels, not {self.truth_depth}, {self.levels}"
            )
        if self.prepared and self.snapshot_mode != "flushed":
            raise ValueError(f"a prepared market has no {self.snapshot_mode!r} snapshots")
        if self.truth_flushes < 100:
            raise ValueError(f"truth_flushes must be at least 100, not {self.truth_flushes}")


def simulator_settings(symbols: Iterable[str] | int, **options: Any) -> SimulatorSettings:
    """Settings from what a caller names; the rest has defaults. Raises TypeError or ValueError."""
    return SimulatorSettings(symbols=symbols if isinstance(symbols, int) else tuple(symbols), **options)
