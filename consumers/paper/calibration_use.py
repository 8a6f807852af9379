"""Whether a calibration may speak for a run: its answers are of orders like its own, on markets like its own."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from bookbus.consumers.paper.calibration.table import CalibrationError, CalibrationTable, load_table
from bookbus.consumers.paper.fills.queue import QueueFill
from bookbus.consumers.paper.settings import PASSIVE_MODELS, RunSettings


class Calibration(NamedTuple):
    """A table with its version: that of its format, and the beginning of its file's hash."""

    table: CalibrationTable
    version: str


def calibration_of(settings: RunSettings) -> Calibration | None:
    """The one that the settings name; None if they name none.

    Raises CalibrationError for one that cannot be read, or that would decide about orders it knows nothing of.
    """
    if settings.calibration_path is None:
        return None
    path = Path(settings.calibration_path)
    table = load_table(path)
    _require_own_horizon(settings, table)
    return Calibration(table, f"{table.version}-{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}")


def misfits(
    settings: RunSettings, table: CalibrationTable, exchanges: Sequence[str], symbols: Sequence[str]
) -> list[str]:
    """In what the table's orders differ from those of the run; empty if it may be believed for them."""
    found = []
    if settings.fill_model not in PASSIVE_MODELS:
        found.append(f"its orders wait, those of {settings.fill_model} take")
    elif settings.hold != table.method.horizon_seconds:
        found.append(f"its orders wait {table.method.horizon_seconds:g} s, these {settings.hold:g} s")
    latency_ms = QueueFill().latency_us / 1e3
    if settings.fill_model == "queue" and table.method.latency_ms != latency_ms:
        found.append(f"its orders take {table.method.latency_ms:g} ms to arrive, these {latency_ms:g} ms")
    known = {(tape.exchange, symbol) for tape in table.tapes for symbol in tape.symbols}
    foreign = [f"{symbol} on {name}" for name in exchanges for symbol in symbols if (name, symbol) not in known]
    if foreign:
        found.append(f"no tape of it holds {', '.join(foreign)}")
    return found


def _require_own_horizon(settings: RunSettings, table: CalibrationTable) -> None:
    """Where the table only comments, a misfit is told; where it decides, its answer must be to this question."""
    decides = settings.fill_model == "calibrated" or settings.fillmodel_mode == "strict"
    horizon = table.method.horizon_seconds
    if decides and settings.fill_model in PASSIVE_MODELS and settings.hold != horizon:
        raise CalibrationError(
            f"{settings.calibration_path} tells of orders that wait {horizon:g} s, and these would wait "
            f"{settings.hold:g} s: use --max-hold {horizon:g}, or a table made with --horizon {settings.hold:g}"
        )
