"""Zones of entry and take-profit distance, and the one rule that says which zone a decision is in."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar


class ZoneRange(Protocol):
    """Both ranges are half-open, [min, max), in bps."""

    @property
    def entry_min(self) -> float: ...
    @property
    def entry_max(self) -> float: ...
    @property
    def tp_min(self) -> float: ...
    @property
    def tp_max(self) -> float: ...


class NamedZone(ZoneRange, Protocol):
    """A zone with a name."""

    @property
    def zone_id(self) -> str: ...


_Zone = TypeVar("_Zone", bound=ZoneRange)


@dataclass(frozen=True, slots=True)
class ZoneSpec:
    """A zone by its name and ranges."""

    zone_id: str
    entry_min: float
    entry_max: float
    tp_min: float
    tp_max: float


def zone_of(zones: Iterable[_Zone], entry_bps: float, tp_bps: float) -> _Zone | None:
    """The zone that holds this decision; None if none does. Zones never overlap, so their order does not matter."""
    for zone in zones:
        if zone.entry_min <= entry_bps < zone.entry_max and zone.tp_min <= tp_bps < zone.tp_max:
            return zone
    return None


def why_no_zones(zones: Sequence[ZoneRange]) -> str:
    """What is wrong with these as the zones of one table; empty if nothing."""
    if not zones:
        return "there is no zone"
    for zone in zones:
        for name, low, high in (("entry", zone.entry_min, zone.entry_max), ("tp", zone.tp_min, zone.tp_max)):
            if not (math.isfinite(low) and math.isfinite(high) and 0 <= low < high < 1e4):
                return f"{name} range [{low:g}, {high:g}) is not within 0 to 10000 bps, the lower end first"
    for number, zone in enumerate(zones):
        for other in zones[:number]:
            if _overlap(zone, other):
                return f"the zones [{_text(other)}) and [{_text(zone)}) overlap"
    return ""


def parse_zones(text: str) -> tuple[ZoneSpec, ...]:
    """Zones written as `entry_min-entry_max/tp_min-tp_max`, comma-separated, named Z1, Z2, … Raises ValueError."""
    zones = tuple(_parse(f"Z{number}", part.strip()) for number, part in enumerate(text.split(","), 1))
    if wrong := why_no_zones(zones):
        raise ValueError(wrong)
    return zones


def _parse(zone_id: str, text: str) -> ZoneSpec:
    try:
        entry, tp = text.split("/")
        (entry_min, entry_max), (tp_min, tp_max) = (map(float, part.split("-")) for part in (entry, tp))
    except ValueError:
        raise ValueError(f"{text!r} is no zone; write it like 0-1/2-5") from None
    return ZoneSpec(zone_id, entry_min, entry_max, tp_min, tp_max)


def _overlap(one: ZoneRange, other: ZoneRange) -> bool:
    entries = one.entry_min < other.entry_max and other.entry_min < one.entry_max
    return entries and one.tp_min < other.tp_max and other.tp_min < one.tp_max


def _text(zone: ZoneRange) -> str:
    return f"{zone.entry_min:g}-{zone.entry_max:g}/{zone.tp_min:g}-{zone.tp_max:g}"
