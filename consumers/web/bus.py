"""The feeders and the readers of the bus, asked of the server while somebody looks at them."""

from collections.abc import Iterable
from contextlib import closing
from typing import Any

import msgspec

from bookbus.consumers.bus.connection import BusConnection, BusConnectionError, ReplyError
from bookbus.consumers.bus.readers import Reader, read_registry, readers_of
from bookbus.consumers.bus.servers import ServerLocator
from bookbus.schemas.heartbeat import HeartbeatError, LineReport, SymbolAudit, parse_heartbeat_fields
from bookbus.schemas.redis_names import RedisNames

_LIMIT = 2.0
_CLIENT_NAME = "bookbus-web"
_COUNTERS = ("accepted", "confirmed", "duplicates", "reconnects", "gaps", "snapshots", "messages", "conflated")
_FIELDS = ("exchange", "host", "endpoint", "pid", "started_us", "time_us", "states", "counters", "lines", "audit")


class FeederRow(msgspec.Struct, frozen=True, kw_only=True):
    """One feeder by its last heartbeat. `up` is in seconds; `match_ratio` is None before the first audit."""

    feeder: str
    exchange: str
    host: str
    endpoint: str
    pid: int
    up: float
    books: int
    live: int
    counters: dict[str, float]
    lines: list[LineReport]
    match_ratio: float | None


def read_feeders(url: str, names: RedisNames, feeders: Iterable[str]) -> list[FeederRow]:
    """Those of `feeders` whose heartbeat has not expired. Raises BusConnectionError if the server cannot be reached."""
    ids = sorted(feeders)
    if not ids:
        return []
    server = ServerLocator(url).locate()
    with closing(BusConnection(server, _CLIENT_NAME)) as connection:
        replies = connection.ask([("HMGET", names.feeder(name), *_FIELDS) for name in ids], _LIMIT)
    rows = (_feeder_row(name, reply) for name, reply in zip(ids, replies, strict=True))
    return [row for row in rows if row is not None]


def read_readers(url: str, names: RedisNames) -> list[Reader]:
    """Every reader; stopped and slow ones first. Raises BusConnectionError if the server cannot be reached."""
    return readers_of(read_registry(url, names))


def _feeder_row(name: str, reply: Any) -> FeederRow | None:
    if isinstance(reply, ReplyError):
        raise BusConnectionError(str(reply))
    try:
        beat = parse_heartbeat_fields(_FIELDS, reply)
    except HeartbeatError:
        return None  # of another version
    if "states" not in beat or "time_us" not in beat:
        return None
    states, counters, audit = beat["states"], beat.get("counters", {}), beat.get("audit")
    total = SymbolAudit() if audit is None else audit.total
    return FeederRow(
        feeder=name,
        exchange=beat.get("exchange", ""),
        host=beat.get("host", ""),
        endpoint=beat.get("endpoint", ""),
        pid=beat.get("pid", 0),
        up=round((beat["time_us"] - beat.get("started_us", beat["time_us"])) / 1e6, 1),
        books=len(states),
        live=sum(state == "live" for state in states.values()),
        counters={name: counters[name] for name in _COUNTERS if name in counters},
        lines=beat.get("lines", []),
        match_ratio=total.match_ratio,
    )
