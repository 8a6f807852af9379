"""One feeder's sign of life: the fields of its hash and the message on the heartbeat channel."""

from typing import Literal

import msgspec

from bookbus.schemas.decoding import DECODE_ERRORS

HEARTBEAT_TTL = 5


CLIENT_NAME_HEAD = "bookbus:"
"""What the names of readers' connections begin with, the id behind it."""


FeedState = Literal["syncing", "live", "suspect", "closed"]

HEARTBEAT_INTERVAL = 1.0
HEARTBEAT_TTL = 5


class HeartbeatError(ValueError):
    """These bytes are not a feeder's heartbeat."""


class SymbolAudit(msgspec.Struct, frozen=True, kw_only=True):
    """What comparing books with the exchange's own answers at the same update id has found so far."""

    matched: int = 0
    """Comparisons in which every level was equal."""
    mismatched: int = 0
    """Comparisons in which one was not."""
    unmatched: int = 0
    """Answers at whose id our book never stood, which say nothing."""
    levels: int = 0
    """Levels compared."""
    ghosts: int = 0
    """Levels that only we had."""
    missing: int = 0
    """Levels that only the exchange had."""
    wrong: int = 0
    """Levels with another quantity."""
    misses: int = 0
    """Best prices that the exchange named and our book did not show within a second."""

    @property
    def match_ratio(self) -> float | None:
        """Share of the levels compared that were equal; None before the first comparison."""
        return 1 - (self.ghosts + self.missing + self.wrong) / self.levels if self.levels else None

    def __add__(self, other: "SymbolAudit") -> "SymbolAudit":
        return SymbolAudit(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """A feeder's audits since its start. `worst` has, by standard symbol, some that were different."""

    symbols: int
    """Symbols compared at least once."""
    prices: int
    """Best prices looked at."""
    total: SymbolAudit
    worst: dict[str, SymbolAudit] = {}


class LineReport(msgspec.Struct, frozen=True, kw_only=True):
    """One of several lines that bring the same symbols, summed over its connections since the feeder's start."""

    line: int
    connections: int
    open: int
    """Connections that are open now."""
    reconnects: int
    updates: int
    """Updates of books, first or not."""
    first: int
    """Those that it brought before every other line."""
    lead_median_ms: float | None = None
    """By how much; None before another line brought the same."""
    lead_p99_ms: float | None = None
    silent: bool = False
    """Whether it brings nothing while another line brings updates."""


class FeederHeartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Who feeds what. `states` has the standard symbol of every book served; times are the feeder's own clock."""

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
    """Empty where one line brings each symbol."""
    audit: AuditReport | None = None
    """None where books are not audited."""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(FeederHeartbeat).decode


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
    """The same as fields of the hash, readable as text; maps are JSON."""
    fields = msgspec.structs.asdict(beat)
    return {name: value if isinstance(value, str) else _encode(value).decode() for name, value in fields.items()}
