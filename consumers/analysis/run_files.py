"""Reads and checks the files of a run."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import msgspec

from bookbus.consumers.paper.kpi import Kpi
from bookbus.consumers.paper.records import DecisionEvent, FillEvent
from bookbus.schemas.decoding import DECODE_ERRORS

_LARGEST = 1e15
"""Limit of plausible prices, volumes and times."""

_ROUNDING = 1 + 1e-9
_MAX_KPI_BYTES = 10_000_000
_SHOWN_BAD_LINES = 3
_Line = TypeVar("_Line")


class RunFileError(ValueError):
    """A file is not of a run, or is of another run."""


class Markout(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the mark-outs file, with one of the figures."""

    trade_id: str
    order_id: str
    markout_1s_bps: float | None = None
    markout_5s_bps: float | None = None
    markout_30s_bps: float | None = None


@dataclass(frozen=True, slots=True)
class Lines:
    """Count of bad lines; `first_bad` has the errors of the first ones."""

    bad: int = 0
    first_bad: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of one run; `kpi` and `decisions` are None without their file."""

    path: Path
    session_id: str
    events: tuple[FillEvent, ...]
    times: tuple[float, ...]
    """Timestamp of each event in seconds since 1970."""
    sha256: str
    lines: Lines
    kpi: Kpi | None
    decisions: tuple[DecisionEvent, ...] | None


def read_run(events_path: Path, kpi_path: Path | None = None) -> RunFiles:
    """The run of a fill event file; KPI, decisions and mark-outs are read from the same directory.

    Raises RunFileError.
    """
    content = _content(events_path)
    events, lines = _decoded(content, FillEvent, _OneSession().line_error)
    if lines.bad and not events:
        raise RunFileError(f"{events_path}: no line is a fill event; {lines.first_bad[0]}")
    kpi = _read_kpi(kpi_path if kpi_path is not None else _beside(events_path, "kpi", ".json"), kpi_path is not None)
    session_id = events[0].session_id if events else kpi.session_id if kpi is not None else events_path.stem
    if kpi is not None and kpi.session_id != session_id:
        raise RunFileError(f"the KPI are of session {kpi.session_id}, the fill events of {session_id}")
    events = _with_markouts(events, _beside(events_path, "markouts", ".jsonl"))
    decisions = _read_decisions(_beside(events_path, "decisions", ".jsonl"), session_id)
    times = tuple(datetime.fromisoformat(event.timestamp).timestamp() for event in events)
    digest = hashlib.sha256(content).hexdigest()
    return RunFiles(events_path, session_id, tuple(events), times, digest, lines, kpi, decisions)


def event_error(event: FillEvent) -> str:
    """Why an event is invalid; empty if it is valid."""
    if why := _timestamp_error(event.timestamp):
        return why
    for name in FillEvent.__struct_fields__:
        value = getattr(event, name)
        if isinstance(value, float) and not abs(value) < _LARGEST:
            return f"{name} is {value:g}"
    if event.order_quantity <= 0:
        return f"order_quantity is {event.order_quantity:g}"
    if not 0 <= event.filled_quantity <= event.order_quantity * _ROUNDING:
        return f"{event.filled_quantity:g} of {event.order_quantity:g} are filled"
    if not math.isclose(event.fill_ratio, event.filled_quantity / event.order_quantity, rel_tol=1e-6, abs_tol=1e-9):
        return f"fill_ratio {event.fill_ratio:g} is not the share that was filled"
    if event.filled_quantity > 0 and not (event.effective_price or 0) > 0:
        return "a fill without a price"
    for name in ("available_volume", "depth_volume", "book_age_ms"):
        if (getattr(event, name) or 0) < 0:
            return f"{name} is negative"
    return ""


class _OneSession:
    """Checks that all events are of one session, each order once."""

    def __init__(self) -> None:
        self._session_id: str | None = None
        self._orders: set[str] = set()

    def line_error(self, event: FillEvent) -> str:
        if why := event_error(event):
            return why
        if self._session_id not in (None, event.session_id):
            return f"session {event.session_id} among those of {self._session_id}"
        if event.order_id in self._orders:
            return f"order {event.order_id} a second time"
        self._session_id = event.session_id
        self._orders.add(event.order_id)
        return ""


def _timestamp_error(text: str) -> str:
    try:
        time = datetime.fromisoformat(text)
        time.timestamp()
    except (ValueError, OverflowError):
        return f"timestamp {text!r} is no time"
    return "" if time.tzinfo is not None else f"timestamp {text!r} has no offset"


def _decoded(content: bytes, kind: type[_Line], line_error: Callable[[_Line], str]) -> tuple[list[_Line], Lines]:
    """The valid lines, and a count of the others."""
    good: list[_Line] = []
    bad: list[str] = []
    for number, line in _numbered(content):
        try:
            decoded = msgspec.json.decode(line, type=kind)
            why = line_error(decoded)
        except DECODE_ERRORS as error:
            why = str(error)
        if why:
            bad.append(f"line {number}: {why}")
        else:
            good.append(decoded)
    return good, Lines(len(bad), tuple(bad[:_SHOWN_BAD_LINES]))


def _numbered(content: bytes) -> Iterator[tuple[int, bytes]]:
    return ((number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunFileError(f"cannot read {path}: {error.strerror or error}") from error


def _beside(events_path: Path, name: str, suffix: str) -> Path:
    return events_path.with_name(events_path.stem.replace("fill_events", name, 1) + suffix)


def _read_kpi(path: Path, required: bool) -> Kpi | None:
    if not required and not path.exists():
        return None
    content = _content(path)
    try:
        if len(content) > _MAX_KPI_BYTES:
            raise RunFileError(f"{path} has {len(content)} bytes, too many for a KPI file")
        return msgspec.json.decode(content, type=Kpi)
    except DECODE_ERRORS as error:
        raise RunFileError(f"{path}: not a KPI file: {error}") from error


def _read_decisions(path: Path, session_id: str) -> tuple[DecisionEvent, ...] | None:
    if not path.exists():
        return None

    def line_error(decision: DecisionEvent) -> str:
        return _timestamp_error(decision.timestamp) if decision.session_id == session_id else "of another session"

    return tuple(_decoded(_content(path), DecisionEvent, line_error)[0])


def _with_markouts(events: list[FillEvent], path: Path) -> list[FillEvent]:
    if not path.exists():
        return events
    found: dict[str, dict[str, float]] = {}
    for markout in _decoded(_content(path), Markout, lambda _: "")[0]:
        figures = {
            name: value
            for name in ("markout_1s_bps", "markout_5s_bps", "markout_30s_bps")
            if (value := getattr(markout, name)) is not None and abs(value) < _LARGEST
        }
        found.setdefault(markout.order_id, {}).update(figures)
    return [msgspec.structs.replace(event, **found.get(event.order_id, {})) for event in events]
