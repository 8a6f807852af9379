"""A calibration: how often passive orders were filled along a tape, as a checked file."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from bookbus.consumers.paper.calibration_zones import why_no_zones, zone_of
from bookbus.schemas.snapshot import Microseconds, Side

_MAX_BYTES = 10_000_000

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Bps = Annotated[float, msgspec.Meta(ge=0, lt=1e4)]
Ratio = Annotated[float, msgspec.Meta(ge=0, le=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0, le=1e308)]


class CalibrationError(ValueError):
    """This is no calibration that can be used, or not for that."""


class _Checked(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base: exactly these fields, of these types."""


class Zone(_Checked, frozen=True, kw_only=True):
    """Ratios are None where too few samples say anything; `reason` then says how many.

    Intervals hold the truth with 95 % confidence. `hold_out_*` are what the rest of the tape showed.
    """

    zone_id: Text
    entry_min: Bps
    entry_max: Bps
    tp_min: Bps
    tp_max: Bps
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
    """How well the table foretold what it was not fitted on, against one base rate for all zones. Lower is better.

    `skill` is the share of the base rate's Brier score that the zones save: 0 is none, below 0 is harm.
    """

    samples: Count
    brier: float | None
    base_brier: float | None
    skill: float | None
    log_loss: float | None
    base_log_loss: float | None


class TapeInfo(_Checked, frozen=True, kw_only=True):
    """A recording that a table comes from. `sha256` is of its content, however compressed."""

    name: Text
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    exchange: Text
    symbols: Annotated[tuple[Text, ...], msgspec.Meta(min_length=1)]
    first_us: Microseconds
    last_us: Microseconds


class Method(_Checked, frozen=True, kw_only=True):
    """How the orders were placed; figures of other settings are other figures."""

    horizon_seconds: Positive
    latency_ms: Annotated[float, msgspec.Meta(ge=0)]
    order_notional: Positive
    depth: Annotated[int, msgspec.Meta(ge=1)]
    fit_share: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    minimum_samples: Annotated[int, msgspec.Meta(ge=1)]
    seed: int


class CalibrationTable(_Checked, frozen=True, kw_only=True):
    """`total_events` counts hypothetical entries, `unmatched_events` those of them that the tape could not decide.

    The defaults are the ratios of all zones together. Nothing here applies them: what was not measured is not known.
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
        if wrong := why_no_zones(self.zones):
            raise ValueError(wrong)
        if len({zone.zone_id for zone in self.zones}) < len(self.zones):
            raise ValueError("two zones have one name")
        if self.unmatched_events > self.total_events:
            raise ValueError("more unmatched events than events")

    def expect(self, entry_bps: float, tp_bps: float) -> "Expectation":
        """What the table says of a decision."""
        zone = zone_of(self.zones, entry_bps, tp_bps)
        if zone is None:
            return Expectation(
                None, None, None, False, f"no zone holds entry {entry_bps:g} and take-profit {tp_bps:g} bps"
            )
        return Expectation(zone.zone_id, zone.buy_fill_ratio, zone.sell_fill_ratio, zone.usable, zone.reason)

    def require_other_tape(self, tapes: Iterable[TapeInfo]) -> None:
        """Raises CalibrationError if the table comes from one of `tapes`, or from the same market at the same time."""
        for other in tapes:
            for mine in self.tapes:
                same_market = mine.exchange == other.exchange and set(mine.symbols) & set(other.symbols)
                same_time = mine.first_us <= other.last_us and other.first_us <= mine.last_us
                if mine.sha256 == other.sha256 or (same_market and same_time):
                    raise CalibrationError(f"the table was fitted on {mine.name}: {other.name} cannot validate it")


@dataclass(frozen=True, slots=True)
class Expectation:
    """`buy` is P(entry filled), `sell` P(exit filled at take-profit | entry filled); None where not known.

    Of an unusable zone one of them may be known; `reason` says why it is not usable.
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


def load_table(path: Path) -> CalibrationTable:
    """The table in a file. Raises CalibrationError, in one line, for whatever else it is."""
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise CalibrationError(f"{path} has {size} bytes, which is no calibration")
        return decode_table(path.read_bytes())
    except OSError as error:
        raise CalibrationError(f"cannot read {path}: {error.strerror or error}") from error
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error


def decode_table(text: bytes) -> CalibrationTable:
    """The table in a JSON text. Raises CalibrationError."""
    try:
        return msgspec.json.decode(text, type=CalibrationTable)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise CalibrationError(f"not a calibration: {error}") from error


def save_table(table: CalibrationTable, path: Path) -> None:
    """Write the table, all at once. Raises OSError."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(table), indent=2) + b"\n")
    new.replace(path)


def _check_ratio(ratio: float | None, interval: tuple[float, float] | None, samples: int) -> None:
    if (ratio is None) != (interval is None):
        raise ValueError("a ratio comes with its interval, or neither is there")
    if ratio is None or interval is None:
        return
    if not samples:
        raise ValueError("a ratio of no samples")
    if not interval[0] <= ratio <= interval[1]:
        raise ValueError(f"the interval {interval} does not hold the ratio {ratio}")
