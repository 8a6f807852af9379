"""Settings of a run, and the targets of its decisions."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import msgspec

from bookbus.consumers.paper.account import RiskLimits
from bookbus.consumers.paper.calibration.table import ZoneSpec
from bookbus.consumers.reading import MAX_AGE

EntryMode = Literal["fixed", "cycle", "random", "zone_random"]
FillModelMode = Literal["none", "advisory", "strict"]
PASSIVE_MODELS = frozenset({"queue", "calibrated"})
"""Fill models whose orders wait on the exchange."""

DEFAULT_DURATION = 1200.0
SMOKE_DURATION = 300.0
_KRW_A_DOLLAR = 1_000
"""Approximate KRW of one dollar: default amounts in KRW are this many times larger."""

_STEP = 1.0
_SECONDS = frozenset({"--duration-seconds", "--trade-interval", "--max-hold"})
_SHORTEST = 0.001
"""Seconds."""


class Target(NamedTuple):
    """Distance of the entry from the best price, and of the take-profit from the entry."""

    entry_bps: float
    tp_bps: float


@dataclass(frozen=True, slots=True)
class EntrySettings:
    """`fixed` uses the minimum only; `weights` has one number for each zone in order, or is empty for equal weights."""

    mode: EntryMode = "fixed"
    minimum: float = 10.0
    maximum: float = 10.0
    seed: int = 42
    weights: tuple[float, ...] = ()
    tp_bps: float = 12.0


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts are in the quote currency; None is the default for that currency."""

    source: str = "mock"
    symbols: tuple[str, ...] = ("BTC",)
    duration: float | None = DEFAULT_DURATION
    """None: to the end of a recording."""
    trade_interval: float = 10.0
    max_hold: float | None = None
    """Seconds that an entry waits, and that a position is held; None is one trade interval."""
    order_quantity: float = 0.001
    order_notional: float | None = None
    """Value of an order, in place of a quantity."""
    fill_model: str = "book_walk"
    calibrated_mode: Literal["sampled", "expected"] = "sampled"
    fillmodel_mode: FillModelMode = "none"
    calibration_path: str | None = None
    min_fill_probability: float = 0.3
    """Minimum fill probability of a zone in strict mode."""
    entry: EntrySettings = EntrySettings()
    sl_bps: float = 12.0
    fees: dict[str, float] = {}
    cash: float | None = None
    """On each exchange."""
    inventory_notional: float = 0.0
    """Value of the first inventory of each symbol on each exchange, so that it can sell what another one bought."""
    max_notional: float | None = None
    max_daily_loss: float | None = None
    max_open_trades: int = 10
    max_age: float = MAX_AGE
    depth: int = 20
    session_tag: str = ""

    @property
    def hold(self) -> float:
        """Seconds that an entry waits, and that a position is held."""
        return self.trade_interval if self.max_hold is None else self.max_hold

    def cash_in(self, quote: str) -> float:
        """First cash of each exchange."""
        return _amount(self.cash, 10_000.0, quote)

    def limits_in(self, quote: str) -> RiskLimits:
        return RiskLimits(
            _amount(self.max_notional, 10_000.0, quote),
            _amount(self.max_daily_loss, 1_000.0, quote),
            self.max_open_trades,
        )


class EntryChooser:
    """Chooses one symbol's targets; the same settings and symbol give the same sequence.

    `cycle` goes from the minimum to the maximum in steps of 1 bps and starts again. `zone_random` samples a zone by
    its weight, then entry and take-profit within it.
    """

    def __init__(self, settings: EntrySettings, symbol: str, zones: Sequence[ZoneSpec] = ()) -> None:
        """Raises ValueError for invalid settings."""
        self._settings = settings
        self._zones = zones
        self._rng = random.Random(f"{settings.seed}:{symbol}")  # noqa: S311 - not a secret
        self._turn = 0
        _check_entry(settings, zones)

    def next(self) -> Target:
        settings, turn = self._settings, self._turn
        self._turn += 1
        match settings.mode:
            case "fixed":
                return Target(settings.minimum, settings.tp_bps)
            case "cycle":
                steps = math.floor((settings.maximum - settings.minimum) / _STEP) + 1
                return Target(settings.minimum + turn % steps * _STEP, settings.tp_bps)
            case "random":
                return Target(self._within(settings.minimum, settings.maximum), settings.tp_bps)
            case "zone_random":
                weights = settings.weights or [1.0] * len(self._zones)
                (zone,) = self._rng.choices(self._zones, weights)
                return Target(self._within(zone.entry_min, zone.entry_max), self._within(zone.tp_min, zone.tp_max))

    def _within(self, low: float, high: float) -> float:
        # Rounded down to a hundredth, so that it stays below the maximum.
        return max(math.floor((low + (high - low) * self._rng.random()) * 100) / 100, low)


def check(settings: RunSettings) -> None:
    """Raises ValueError for a number outside its range, or for a missing calibration."""
    positive = {
        "--duration-seconds": settings.duration,
        "--trade-interval": settings.trade_interval,
        "--max-hold": settings.max_hold,
        "--order-quantity": settings.order_quantity,
        "--order-notional": settings.order_notional,
        "--sl-bps": settings.sl_bps,
        "--cash": settings.cash,
        "--max-notional": settings.max_notional,
        "--max-daily-loss": settings.max_daily_loss,
        "--max-age": settings.max_age,
    }
    for option, value in positive.items():
        if value is not None and not 0 < value < float("inf"):
            raise ValueError(f"{option} {value}: give a number above 0")
        if value is not None and option in _SECONDS and value < _SHORTEST:
            raise ValueError(f"{option} {value}: give at least {_SHORTEST} s")
    if not 0 <= settings.min_fill_probability <= 1:
        raise ValueError(f"--min-fill-probability {settings.min_fill_probability}: give a number from 0 to 1")
    if settings.fillmodel_mode != "none" and settings.calibration_path is None:
        raise ValueError(f"--fillmodel-mode {settings.fillmodel_mode} needs a table: give --calibration-path")


def _check_entry(settings: EntrySettings, zones: Sequence[ZoneSpec]) -> None:
    if not (math.isfinite(settings.minimum) and settings.minimum >= 0):
        raise ValueError(f"--entry-bps-min {settings.minimum}: give a number from 0")
    if settings.mode in ("cycle", "random") and not settings.minimum <= settings.maximum < 1e4:
        raise ValueError(f"--entry-bps-max {settings.maximum} is not between {settings.minimum} and 10000")
    if not (math.isfinite(settings.tp_bps) and settings.tp_bps > 0):
        raise ValueError(f"--tp-bps {settings.tp_bps}: give a number above 0")
    if settings.mode != "zone_random":
        return
    if not zones:
        raise ValueError("--entry-bps-mode zone_random needs the zones of a table: give --calibration-path")
    if settings.weights and (
        len(settings.weights) != len(zones) or min(settings.weights) < 0 or sum(settings.weights) <= 0
    ):
        raise ValueError(f"--entry-bps-zone-weights: give {len(zones)} numbers from 0, one for each zone of the table")


def _amount(given: float | None, default: float, quote: str) -> float:
    return given if given is not None else default * (_KRW_A_DOLLAR if quote == "KRW" else 1)
