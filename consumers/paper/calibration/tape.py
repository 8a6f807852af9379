"""A recording to calibrate on: its events as often as needed, what it is, and where it is cut in two."""

import gzip
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from math import gcd
from pathlib import Path

from bookbus.consumers.captures import read_capture
from bookbus.consumers.paper.calibration.table import CalibrationError, TapeInfo
from bookbus.consumers.paper.calibration_cancellations import Cancellation, CancellationWatch
from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.schemas.capture import CaptureError, decode_frame
from bookbus.schemas.snapshot import OrderBookSnapshot

_DECIMALS = 12


@dataclass(frozen=True, slots=True)
class Tape:
    """`events` begins anew with every call; they come in the order received."""

    name: str
    sha256: str
    events: Callable[[], Iterable[TapeEvent]]


@dataclass(frozen=True, slots=True)
class TapeSurvey:
    """What a first pass tells: what the tape is, the tick of each symbol, what was cancelled."""

    info: TapeInfo
    ticks: dict[str, float]
    cancellations: list[Cancellation]


@dataclass(slots=True)
class _Market:
    watch: CancellationWatch = field(default_factory=CancellationWatch)
    unit: int = 0


def capture_tape(path: Path, symbols: tuple[str, ...] = (), depth: int = 20) -> Tape:
    """A recorded file as a tape. Raises CalibrationError if it cannot be read."""
    return Tape(path.name, tape_hash(path), lambda: _events(path, symbols, depth))


def tape_hash(path: Path) -> str:
    """SHA-256 of the recording itself, the same however it is compressed. Raises CalibrationError."""
    digest = hashlib.sha256()
    for line in _lines(path):
        digest.update(line)
    return digest.hexdigest()


def capture_info(path: Path, exchange: str, symbols: tuple[str, ...]) -> TapeInfo:
    """What tells whether a table comes from this recording of these markets. Raises CalibrationError."""
    digest, times = hashlib.sha256(), []
    for line in _lines(path):
        digest.update(line)
        with suppress(CaptureError):  # whoever plays the recording tells what is wrong with it
            times.append(decode_frame(line).t)
    if not times:
        raise CalibrationError(f"{path} holds no recorded frame")
    first_us, last_us = (round(time * 1e6) for time in (min(times), max(times)))
    return TapeInfo(
        name=path.name,
        sha256=digest.hexdigest(),
        exchange=exchange,
        symbols=symbols,
        first_us=first_us,
        last_us=last_us,
    )


def survey(tape: Tape) -> TapeSurvey:
    """Read the tape once. Raises CalibrationError for one without books, or without trades."""
    markets: dict[str, _Market] = {}
    exchange, first_us, last_us, trades = "", None, 0, 0
    for event in tape.events():
        exchange = exchange or event.exchange
        if event.exchange != exchange:
            raise CalibrationError(f"{tape.name} holds both {exchange} and {event.exchange}")
        first_us = event.received_us if first_us is None else first_us
        last_us = max(last_us, event.received_us)
        market = markets.setdefault(event.symbol, _Market())
        if isinstance(event, OrderBookSnapshot):
            market.unit = _common_unit(market.unit, event)
            market.watch.book(event)
        else:
            trades += 1
            market.watch.trade(event)
    if first_us is None or not any(market.unit for market in markets.values()):
        raise CalibrationError(f"{tape.name} holds no book")
    if not trades:
        raise CalibrationError(f"{tape.name} holds no trade: nothing tells what would have been filled")
    info = TapeInfo(
        name=tape.name,
        sha256=tape.sha256,
        exchange=exchange,
        symbols=tuple(sorted(markets)),
        first_us=first_us,
        last_us=last_us,
    )
    return TapeSurvey(
        info,
        {symbol: float(Decimal(market.unit).scaleb(-_DECIMALS)) for symbol, market in markets.items() if market.unit},
        [one for market in markets.values() for one in market.watch.found],
    )


def _common_unit(unit: int, book: OrderBookSnapshot) -> int:
    """Largest number that divides every price seen so far: the tick, which a recording does not name."""
    for price, _ in (*book.bids[:5], *book.asks[:5]):
        unit = gcd(unit, int(Decimal(repr(price)).scaleb(_DECIMALS)))
    return unit


def _events(path: Path, symbols: tuple[str, ...], depth: int) -> Iterator[TapeEvent]:
    try:
        for frame in read_capture(path, symbols, depth):
            yield from frame.events
    except (CaptureError, OSError) as error:
        raise CalibrationError(f"cannot read {path}: {error}") from error


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of a recording, compressed or not. Raises CalibrationError."""
    try:
        with path.open("rb") as raw:
            compressed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if compressed else path.open("rb") as content:
            yield from content
    except (OSError, EOFError) as error:
        raise CalibrationError(f"cannot read {path}: {error}") from error
