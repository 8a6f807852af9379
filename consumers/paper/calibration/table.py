"""The calibration table: fill ratios of passive orders by zone, read from and written to a checked file."""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec

from bookbus.schemas.decoding import DECODE_ERRORS
from bookbus.schemas.snapshot import Microseconds, Side

_MAX_BYTES = 10_000_000
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Bps = Annotated[float, msgspec.Meta(ge=0, lt=1e4)]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e308)]


class CalibrationError(ValueError):
    """The calibration is invalid, or not valid for this use."""


class ZoneSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A zone by its name and ranges in bps; both are half-open, [min, max)."""

    zone_id: Text
    entry_min: Bps
    entry_max: Bps
    tp_min: Bps
    tp_max: Bps


class _Checked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the file's parts: unknown fields are an error."""


class Zone(ZoneSpec, frozen=True, kw_only=True):
    """Ratios are None with too few samples; `reason` then says how many there are.

    Intervals have 95 % confidence. `hold_out_*` are the figures of the part that was not fitted on.
    """

    buy_fill_ratio: Ratio | None
    sell_fill_ratio: Ratio | None
    samples: Count
    buy_samples: Count
    sell_samples: Count
    buy_interval: tuple[Ratio, Ratio] | None
    sell_interval: tuple[Ratio, Ratio] | None
    usable: bool
    reason: str
    hold_out_buy_samples: Count
    hold_out_buy_ratio: Ratio | None
    hold_out_sell_samples: Count
    hold_out_sell_ratio: Ratio | None

    def __post_init__(self) -> None:
        for side in ("buy", "sell"):
            _check_ratio(
                getattr(self, f"{side}_fill_ratio"), getattr(self, f"{side}_interval"), getattr(self, f"{side}_samples")
            )
        if self.usable != (self.buy_fill_ratio is not None and self.sell_fill_ratio is not None):
            raise ValueError("a zone is usable if it has both ratios, and only then")
        if self.samples != self.buy_samples:
            raise ValueError("`samples` counts the entries, as `buy_samples` does")


class Score(_Checked, frozen=True, kw_only=True):
    """Scores of the table on data that it was not fitted on, against one base rate for all zones. Lower is better.

    `skill` is 1 − Brier score / Brier score of the base rate: 0 is no better, below 0 is worse.
    """

    samples: Count
    brier: float | None
    base_brier: float | None
    skill: float | None
    log_loss: float | None
    base_log_loss: float | None


class TapeInfo(_Checked, frozen=True, kw_only=True):
    """A recording that a table was fitted on. `sha256` is of the uncompressed content."""

    name: Text
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    exchange: Text
    symbols: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    first_us: Microseconds
    last_us: Microseconds


class Method(_Checked, frozen=True, kw_only=True):
    """How the orders were placed; ratios hold only for orders placed like that."""

    horizon_seconds: Positive
    latency_ms: Annotated[float, msgspec.Meta(ge=0)]
    order_notional: Positive
    depth: Annotated[int, msgspec.Meta(ge=1)]
    fit_share: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    minimum_samples: Annotated[int, msgspec.Meta(ge=1)]
    seed: int


@dataclass(frozen=True, slots=True)
class Expectation:
    """`buy` is P(entry filled), `sell` P(exit filled at take-profit | entry filled); None where unknown.

    One of them may be known in a zone that is not usable; `reason` says why it is not.
    """

    zone_id: str | None
    buy: float | None
    sell: float | None
    usable: bool
    reason: str

    def ratio(self, side: Side) -> float | None:
        """The ratio for an order of this side; None where the zone is not usable."""
        if not self.usable:
            return None
        return self.buy if side == "buy" else self.sell


class CalibrationTable(_Checked, frozen=True, kw_only=True):
    """`total_events` counts hypothetical entries, `unmatched_events` the undecided ones.

    The defaults are the ratios of all zones together; they are not used for zones without a ratio.
    """

    version: Literal["1"] = "1"
    created_at: Text
    source: Text
    total_events: Count
    unmatched_events: Count
    zones: tuple[Zone, ...]
    default_buy_fill_ratio: Ratio | None
    default_sell_fill_ratio: Ratio | None
    cancellation_share: Ratio | None
    cancellation_samples: Count
    hold_out_buy: Score
    hold_out_sell: Score
    tapes: Annotated[tuple[TapeInfo, ...], msgspec.Meta(min_length=1)]
    method: Method

    def __post_init__(self) -> None:
        if wrong := zones_error(self.zones):
            raise ValueError(wrong)
        if len({zone.zone_id for zone in self.zones}) < len(self.zones):
            raise ValueError("two zones have the same name")
        if self.unmatched_events > self.total_events:
            raise ValueError("more unmatched events than events")

    def expect(self, entry_bps: float, tp_bps: float) -> "Expectation":
        """The fill probabilities of a decision with this target."""
        zone = zone_of(self.zones, entry_bps, tp_bps)
        if zone is None:
            return Expectation(
                None, None, None, False, f"no zone holds entry {entry_bps:g} and take-profit {tp_bps:g} bps"
            )
        return Expectation(zone.zone_id, zone.buy_fill_ratio, zone.sell_fill_ratio, zone.usable, zone.reason)

    def require_other_tape(self, tapes: Iterable[TapeInfo]) -> None:
        """Raises CalibrationError if the table was fitted on one of `tapes`, or on the same market at the same time."""
        for other in tapes:
            for mine in self.tapes:
                same_market = mine.exchange == other.exchange and set(mine.symbols) & set(other.symbols)
                same_time = mine.first_us <= other.last_us and other.first_us <= mine.last_us
                if mine.sha256 == other.sha256 or (same_market and same_time):
                    raise CalibrationError(f"the table was fitted on {mine.name}: {other.name} cannot validate it")


def load_table(path: Path) -> CalibrationTable:
    """The table in a file. Raises CalibrationError with a message of one line."""
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise CalibrationError(f"{path} has {size} bytes, too many for a calibration")
        return decode_table(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error.strerror or error}") from error
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error


def decode_table(text: bytes) -> CalibrationTable:
    """The table in a JSON text. Raises CalibrationError."""
    try:
        return msgspec.json.decode(text, type=CalibrationTable)
    except DECODE_ERRORS as error:
        raise CalibrationError(f"not a calibration: {error}") from error


def save_table(table: CalibrationTable, path: Path) -> None:
    """Write the table atomically. Raises OSError."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n")
    new.replace(path)


def parse_zones(text: str) -> tuple[ZoneSpec, ...]:
    """Zones written as `entry_min-entry_max/tp_min-tp_max`, comma-separated, named Z1, Z2, … Raises ValueError."""
    zones = tuple(_parse(f"Z{number}", part.strip()) for number, part in enumerate(text.split(","), 1))
    if wrong := zones_error(zones):
        raise ValueError(wrong)
    return zones


def zones_error(zones: Sequence[ZoneSpec]) -> str:
    """Why these cannot be the zones of one table; empty if they can."""
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


_Zone = TypeVar("_Zone", bound=ZoneSpec)


def zone_of(zones: Iterable[_Zone], entry_bps: float, tp_bps: float) -> _Zone | None:
    """The zone that contains this target; None if none does. Zones never overlap."""
    for zone in zones:
        if zone.entry_min <= entry_bps < zone.entry_max and zone.tp_min <= tp_bps < zone.tp_max:
            return zone
    return None


def _parse(zone_id: str, text: str) -> ZoneSpec:
    try:
        entry, tp = text.split("/")
        (entry_min, entry_max), (tp_min, tp_max) = (map(float, part.split("-")) for part in (entry, tp))
    except ValueError:
        raise ValueError(f"{text!r} is not a zone; write it like 0-1/2-5") from None
    return ZoneSpec(zone_id, entry_min, entry_max, tp_min, tp_max)


def _overlap(one: ZoneSpec, other: ZoneSpec) -> bool:
    entries = one.entry_min < other.entry_max and other.entry_min < one.entry_max
    return entries and one.tp_min < other.tp_max and other.tp_min < one.tp_max


def _text(zone: ZoneSpec) -> str:
    return f"{zone.entry_min:g}-{zone.entry_max:g}/{zone.tp_min:g}-{zone.tp_max:g}"


def _check_ratio(ratio: float | None, interval: tuple[float, float] | None, samples: int) -> None:
    if (ratio is None) != (interval is None):
        raise ValueError("a ratio needs its interval, an interval its ratio")
    if ratio is None or interval is None:
        return
    if not samples:
        raise ValueError("a ratio of no samples")
    if not interval[0] <= ratio <= interval[1]:
        raise ValueError(f"the interval {interval} does not contain the ratio {ratio}")
