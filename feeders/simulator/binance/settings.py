"""Options and limits of a simulated Binance."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from bookbus.feeders.simulator.core.feed import SnapshotMode
from bookbus.feeders.simulator.core.settings import Rules, SimulatorSettings

ErrorShape = Literal["nested", "flat"]


@dataclass(frozen=True, kw_only=True)
class BinanceRules(Rules):
    """The exchange's limits; times in seconds."""

    ping_interval: float = 20.0
    pong_timeout: float = 60.0
    lifetime: float = 24 * 3600.0
    frames: int = 5
    """Messages that a client may send within `frame_window`, pings and pongs included."""
    frame_window: float = 1.0
    streams: int = 1024
    subscribe_bytes: int = 4088
    weight: int = 6000
    weight_window: float = 60.0
    requests_until_ban: int = 5
    """Requests that are answered 429 before the address is banned."""
    ban: float = 120.0


@dataclass(frozen=True, kw_only=True)
class BinanceSettings(SimulatorSettings):
    """Options of one simulated Binance."""

    MINIMUM_LEVELS: ClassVar[int] = 20
    """Partial-depth streams are cut from the remembered truth."""

    levels: int = 6000
    rules: BinanceRules = field(default_factory=BinanceRules)
    snapshot_mode: SnapshotMode = "flushed"
    error_shape: ErrorShape = "nested"
    truth_depth: int = MINIMUM_LEVELS
    """Levels a side of the remembered books."""

    def __post_init__(self) -> None:
        SimulatorSettings.__post_init__(self)
        if not self.MINIMUM_LEVELS <= self.truth_depth <= self.levels:
            raise ValueError(
                f"truth_depth must be between {self.MINIMUM_LEVELS} and levels ({self.levels}), not {self.truth_depth}"
            )
        if self.prepared and self.snapshot_mode != "flushed":
            raise ValueError(f"a prepared market has no {self.snapshot_mode!r} snapshots")
