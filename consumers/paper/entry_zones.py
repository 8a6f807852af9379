"""Where each decision wants to enter and to take its profit, in bps."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bookbus.consumers.paper.calibration_zones import ZoneRange

EntryMode = Literal["fixed", "cycle", "random", "zone_random"]

_STEP = 1.0


class Target(NamedTuple):
    """How far from the best price to enter, and how far above the entry to take the profit."""

    entry_bps: float
    tp_bps: float


@dataclass(frozen=True, slots=True)
class EntrySettings:
    """`fixed` uses the minimum only; `weights` are those of the zones in their order, none for equal ones."""

    mode: EntryMode = "fixed"
    minimum: float = 10.0
    maximum: float = 10.0
    seed: int = 42
    weights: tuple[float, ...] = ()
    tp_bps: float = 12.0


class EntryChooser:
    """One symbol's targets, one after the other; the same settings and symbol give the same ones.

    `cycle` goes from the minimum to the maximum in steps of 1 bps and begins again. `zone_random` draws a zone by
    its weight, then entry and profit from within it.
    """

    def __init__(self, settings: EntrySettings, symbol: str, zones: Sequence[ZoneRange] = ()) -> None:
        """Raises ValueError for settings that choose nothing."""
        self._settings = settings
        self._zones = zones
        self._random = random.Random(f"{settings.seed}:{symbol}")  # noqa: S311 - not a secret
        self._turn = 0
        _check(settings, zones)

    def next(self) -> Target:
        """The target of the next decision."""
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
                (zone,) = self._random.choices(self._zones, weights)
                return Target(self._within(zone.entry_min, zone.entry_max), self._within(zone.tp_min, zone.tp_max))

    def _within(self, low: float, high: float) -> float:
        # Rounded down to a hundredth, so that it stays below the open end.
        return max(math.floor((low + (high - low) * self._random.random()) * 100) / 100, low)


def _check(settings: EntrySettings, zones: Sequence[ZoneRange]) -> None:
    if not (math.isfinite(settings.minimum) and settings.minimum >= 0):
        raise ValueError(f"--entry-bps-min {settings.minimum}: give a number from 0")
    if settings.mode in ("cycle", "random") and not settings.minimum <= settings.maximum < 1e4:
        raise ValueError(f"--entry-bps-max {settings.maximum} is not between {settings.minimum} and 10000")
    if not (math.isfinite(settings.tp_bps) and settings.tp_bps > 0):
        raise ValueError(f"--tp-bps {settings.tp_bps}: give a number above 0")
    if settings.mode != "zone_random":
        return
    if not zones:
        raise ValueError("--entry-bps-mode zone_random draws from the zones of a table: give --calibration-path")
    if settings.weights and (
        len(settings.weights) != len(zones) or min(settings.weights) < 0 or sum(settings.weights) <= 0
    ):
        raise ValueError(f"--entry-bps-zone-weights: give {len(zones)} numbers from 0, one for each zone of the table")
