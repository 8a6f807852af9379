"""Options and limits of a simulated Bybit."""

from dataclasses import dataclass, field

from bookbus.feeders.simulator.core.limits import Rules
from bookbus.feeders.simulator.core.settings import SimulatorSettings


@dataclass(frozen=True, kw_only=True)
class BybitRules(Rules):
    """The exchange's limits; times in seconds."""

    connects: int = 500
    idle: float = 600.0
    """A connection without Bybit's own ping for this long is cut, even while data flows (stricter than documented)."""
    arguments: int = 10
    """Topics that one request may name."""


@dataclass(frozen=True, kw_only=True)
class BybitSettings(SimulatorSettings):
    """Options of one simulated Bybit."""

    rules: BybitRules = field(default_factory=BybitRules)
