"""What a local Upbit is asked to be."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from bookbus.feeders.simulator.core.feed import FLUSHES_PER_SECOND


@dataclass(frozen=True, slots=True)
class UpbitRules:
    """The exchange's limits and habits; times in seconds."""

    idle: float = 60.0
    """Silence in both directions after which a connection is cut; the documentation says 120."""
    idle_by_client: bool = False
    """Count only what the client sends."""
    connects: int = 5
    connect_window: float = 1.0
    messages: int = 5
    message_window: float = 1.0
    more_messages: int = 100
    more_message_window: float = 60.0
    origin_window: float = 10.0
    """A client that sends an Origin header is let in once in this time."""
    first_frames: tuple[float, float] = (0.17, 0.35)
    """How long after a request its first frames come."""
    close_delay: float = 0.16
    """Between an error and the end of the connection."""
    status_interval: float = 10.0
    requests: int = 10
    request_window: float = 1.0
    requests_until_ban: int = 5
    """Requests that are answered 429 before the address is banned."""
    ban: float = 10.0

    def scaled(self, speed: float) -> "UpbitRules":
        """The same rules on a clock that runs `speed` times as fast."""
        return replace(
            self,
            idle=self.idle / speed,
            connect_window=self.connect_window / speed,
            message_window=self.message_window / speed,
            more_message_window=self.more_message_window / speed,
            origin_window=self.origin_window / speed,
            status_interval=self.status_interval / speed,
            request_window=self.request_window / speed,
            ban=self.ban / speed,
        )


@dataclass(frozen=True, slots=True)
class UpbitSettings:
    """One local exchange. `symbols` are the exchange's own names, or how many markets to make up."""

    symbols: tuple[str, ...] | int = ("KRW-BTC", "KRW-ETH", "BTC-ETH")
    seed: int = 1
    rate: float = float(FLUSHES_PER_SECOND)
    """Updates a second and symbol; the exchange's grid of 100 ms allows 10."""
    quiet: tuple[str, ...] = ()
    """Symbols whose book rests."""
    changes: int = 20
    """Mutations of the book per update, on average."""
    levels: int = 300
    """Levels a side of the book behind the 30 that are shown."""
    host: str = "127.0.0.1"
    port: int = 0
    rest_port: int = 0
    rules: UpbitRules = field(default_factory=UpbitRules)
    rest_delay: float = 0.0
    """Seconds between taking a REST answer from the book and sending it."""
    prepared: float = 0.0
    """Seconds of market computed beforehand and replayed; 0 computes while it runs."""
    truth_flushes: int = 1200
    """Books per symbol that are remembered: two minutes at ten a second."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= FLUSHES_PER_SECOND:
            raise ValueError(f"rate must be between 0 and {FLUSHES_PER_SECOND} updates a second, not {self.rate}")
        if self.changes < 1:
            raise ValueError(f"changes must be at least 1, not {self.changes}")
        if self.levels < 100:
            raise ValueError(f"levels must be at least 100, not {self.levels}")
        if self.truth_flushes < 100:
            raise ValueError(f"truth_flushes must be at least 100, not {self.truth_flushes}")


def upbit_settings(symbols: Iterable[str] | int, **options: Any) -> UpbitSettings:
    """Settings from what a caller names; the rest has defaults. Raises TypeError or ValueError."""
    return UpbitSettings(symbols=symbols if isinstance(symbols, int) else tuple(symbols), **options)
