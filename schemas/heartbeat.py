"""Heartbeats of feeders and readers: hashes that expire, and the feeder's message on the heartbeat channel."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from bookbus.schemas.decoding import DECODE_ERRORS

FeedState = Literal["syncing", "live", "suspect", "closed"]

HEARTBEAT_INTERVAL = 1.0
HEARTBEAT_TTL = 5
"""Seconds from one heartbeat to the next, and until its hash expires; the same for feeders and readers."""

CLIENT_NAME_HEAD = "bookbus:"
"""Prefix of the names of a reader's connections; its id follows."""


class HeartbeatError(ValueError):
    """A feeder's heartbeat cannot be decoded."""


class SymbolAudit(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of comparisons of a book with the exchange's snapshots at the same update id."""

    matched: int = 0
    """Comparisons in which every level was equal."""
    mismatched: int = 0
    """Comparisons in which a level differed."""
    unmatched: int = 0
    """Snapshots whose update id our book never had; they cannot be compared."""
    levels: int = 0
    """Levels compared."""
    ghosts: int = 0
    """Levels only in our book."""
    missing: int = 0
    """Levels only in the snapshot."""
    wrong: int = 0
    """Levels with another quantity."""
    misses: int = 0
    """Best prices of the exchange that our book did not have within a second."""

    @property
    def match_ratio(self) -> float | None:
        """Share of the levels compared that were equal; None before the first comparison."""
        return 1 - (self.ghosts + self.missing + self.wrong) / self.levels if self.levels else None

    def __add__(self, other: "SymbolAudit") -> "SymbolAudit":
        return SymbolAudit(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """A feeder's audits since its start. `worst` has some symbols with differences."""

    symbols: int
    """Symbols compared at least once."""
    prices: int
    """Best prices compared."""
    total: SymbolAudit
    worst: dict[str, SymbolAudit] = {}


class LineReport(msgspec.Struct, frozen=True, kw_only=True):
    """One of several lines of the same symbols, summed over its connections since the feeder's start."""

    line: int
    connections: int
    open: int
    """Connections that are open now."""
    reconnects: int
    updates: int
    """Updates of books, whether first or not."""
    first: int
    """Updates that arrived here before they arrived on any other line."""
    lead_median_ms: float | None = None
    """Milliseconds by which they were first; None before another line had the same update."""
    lead_p99_ms: float | None = None
    silent: bool = False
    """Whether no update arrives here while updates arrive on another line."""


class FeederHeartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """A feeder and its books. `states` has the standard symbol of each book; times are of the feeder's clock."""

    feeder: str
    exchange: str
    endpoint: str
    states: dict[str, FeedState]
    host: str
    pid: int
    started_us: int
    time_us: int
    counters: dict[str, float] = {}
    lines: list[LineReport] = []
    """Empty if each symbol has one line."""
    audit: AuditReport | None = None
    """None if books are not audited."""
    failed: dict[str, str] = {}
    """Duties beside the books that ended, like `recording`, with the cause."""
    ignored: dict[str, int] = {}
    """What the exchange sent and is not used, by name, like `block trade`."""
    mode: str = ""
    depth: int = 0
    """What it claims for each book together with its mode."""
    refused_books: dict[str, str] = {}
    """Standard symbols of the books that other feeders keep it from publishing, with the reason."""
    trading: dict[str, str] = {}
    """Trading status (`TradingStatus`) of each standard symbol whose market the exchange told about."""
    network: str = ""
    """The network of the exchange: `live`, `testnet`, `simulator` or another name; empty if it claims none."""
    refused: str = ""
    """Why this feeder publishes nothing; empty while it may."""


class ReaderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A reader's heartbeat; None or empty where a field is missing or invalid. Times are in seconds."""

    client: str
    """The name of its connections."""
    exchange: str = ""
    symbols: tuple[str, ...] = ()
    lag: float | None = None
    """Duration of the last ping."""
    delay: float | None = None
    """From the publication of a message to its receipt."""
    received: int | None = None
    conflated: int | None = None
    missed: int | None = None
    reconnects: int | None = None
    host: str = ""
    pid: int | None = None
    version: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FeederHeartbeat).decode
_decode_field = {
    field.name: msgspec.json.Decoder(field.type).decode
    for field in msgspec.structs.fields(FeederHeartbeat)
    if field.type is not str
}


def encode_heartbeat(beat: FeederHeartbeat) -> bytes:
    """The message on the channel: one JSON object."""
    return _encode(beat)


def decode_heartbeat(data: bytes) -> FeederHeartbeat:
    """The heartbeat in a message. Raises HeartbeatError for anything else."""
    try:
        return _decode(data)
    except DECODE_ERRORS as error:
        raise HeartbeatError(f"not a heartbeat: {error}") from error


def heartbeat_fields(beat: FeederHeartbeat) -> dict[str, str]:
    """The fields of a feeder's hash; what is no text is JSON."""
    fields = msgspec.structs.asdict(beat)
    return {name: value if isinstance(value, str) else _encode(value).decode() for name, value in fields.items()}


def parse_heartbeat_fields(names: Sequence[str], values: Sequence[bytes | str | None]) -> dict[str, Any]:
    """The reply to HMGET of a feeder's hash, without the fields that it does not have.

    Raises HeartbeatError if one cannot be read, as from another version.
    """
    try:
        return {
            name: _decode_field.get(name, _text)(value)
            for name, value in zip(names, values, strict=True)
            if value is not None
        }
    except DECODE_ERRORS as error:
        raise HeartbeatError(f"cannot decode a feeder's heartbeat: {error}") from error


def reader_fields(record: ReaderRecord) -> dict[str, str]:
    """The fields of a reader's hash; empty where a value is not known."""
    return {
        "exchange": record.exchange,
        "symbols": " ".join(record.symbols),
        "lag_ms": _milliseconds(record.lag),
        "delay_ms": _milliseconds(record.delay),
        "received": _number(record.received),
        "conflated": _number(record.conflated),
        "missed": _number(record.missed),
        "reconnects": _number(record.reconnects),
        "host": record.host,
        "pid": _number(record.pid),
        "client": record.client,
        "version": record.version,
    }


def parse_reader(reader_id: str, reply: Sequence[bytes]) -> ReaderRecord:
    """The reply to HGETALL of a reader's hash, which any program with the right to write there may have written."""
    fields = {printable(name): printable(value) for name, value in zip(reply[::2], reply[1::2], strict=False)}
    return ReaderRecord(
        client=CLIENT_NAME_HEAD + reader_id,
        exchange=fields.get("exchange", ""),
        symbols=tuple(fields.get("symbols", "").split()),
        lag=_seconds(fields.get("lag_ms")),
        delay=_seconds(fields.get("delay_ms")),
        received=parse_count(fields.get("received")),
        conflated=parse_count(fields.get("conflated")),
        missed=parse_count(fields.get("missed")),
        reconnects=parse_count(fields.get("reconnects")),
        host=fields.get("host", ""),
        pid=parse_count(fields.get("pid")),
        version=fields.get("version", ""),
    )


def printable(value: bytes) -> str:
    """Text without the control characters that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in value.decode(errors="replace"))


def parse_count(text: str | None) -> int | None:
    """A number of at most 19 digits; None for anything else."""
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.1f}"


def _seconds(milliseconds: str | None) -> float | None:
    try:
        return float(milliseconds or "") / 1000
    except ValueError:
        return None
