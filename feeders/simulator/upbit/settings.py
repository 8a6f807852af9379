"""Options and limits of a simulated Upbit."""

from dataclasses import dataclass, field
from typing import ClassVar

from bookbus.feeders.simulator.core.settings import Rules, SimulatorSettings


@dataclass(frozen=True, kw_only=True)
class UpbitRules(Rules):
    """The exchange's limits and delays; times in seconds."""

    FIXED: ClassVar[tuple[str, ...]] = ("close_delay",)

    connects: int = 5
    connect_window: float = 1.0
    idle: float = 60.0
    """A connection silent in both directions for this long is cut (observed; the documentation says 120)."""
    idle_by_client: bool = False
    """Count only what the client sends."""
    messages: int = 5
    message_window: float = 1.0
    more_messages: int = 100
    more_message_window: float = 60.0
    origin_window: float = 10.0
    """A client that sends an Origin header is let in once in this time."""
    first_frames: tuple[float, float] = (0.17, 0.35)
    """Delay from a request to its first frames."""
    close_delay: float = 0.16
    """Between an error and the end of the connection."""
    status_interval: float = 10.0
    requests: int = 10
    request_window: float = 1.0
    requests_until_ban: int = 5
    """Requests that are answered 429 before the address is banned."""
    ban: float = 10.0


@dataclass(frozen=True, kw_only=True)
class UpbitSettings(SimulatorSettings):
    """Options of one simulated Upbit."""

    symbols: tuple[str, ...] | int = ("KRW-BTC", "KRW-ETH", "BTC-ETH")
    quiet: tuple[str, ...] = ()
    """Symbols whose book does not change."""
    levels: int = 300
    """Levels a side of the book behind the 30 that are shown."""
    rules: UpbitRules = field(default_factory=UpbitRules)
