"""All feeders of the bus: their heartbeats, on whatever host they run."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import msgspec

from bookbus.consumers.bus.connection import BusConnection, ReplyError, rejected
from bookbus.consumers.bus.readers import scan
from bookbus.consumers.bus.servers import ServerLocator
from bookbus.schemas.heartbeat import HeartbeatError, parse_heartbeat_fields, printable
from bookbus.schemas.redis_names import RedisNames

_LIMIT = 5.0
_FIELDS = ("feeder", "exchange", "host", "endpoint", "started_us", "time_us", "states")


class RunningFeeder(msgspec.Struct, frozen=True, kw_only=True):
    """One feeder by its last heartbeat; `up` is in seconds."""

    feeder: str
    exchange: str
    host: str
    endpoint: str
    up: float
    books: int
    live: int


def read_feeders(url: str, names: RedisNames) -> list[RunningFeeder]:
    """Every feeder whose heartbeat has not expired, by exchange and name.

    Raises ValueError for an invalid URL, and BusConnectionError if the server cannot be reached, does not let this user
    look, or is a cluster.
    """
    server = ServerLocator(url).locate()
    with closing(BusConnection(server, "bookbus-books")) as connection:
        keys = scan(connection, names.feeder("*"))
        if isinstance(keys, ReplyError):
            raise rejected(server, str(keys))
        replies = connection.ask([("HMGET", key, *_FIELDS) for key in keys], _LIMIT) if keys else []
    found = (_feeder(reply) for reply in replies if isinstance(reply, list))
    return sorted((one for one in found if one is not None), key=lambda one: (one.exchange, one.feeder))


def _feeder(reply: Sequence[bytes | None]) -> RunningFeeder | None:
    """None if the hash expired meanwhile, or another version of the feeder wrote it."""
    try:
        beat: dict[str, Any] = parse_heartbeat_fields(_FIELDS, reply)
    except HeartbeatError:
        return None
    if "states" not in beat or "time_us" not in beat:
        return None
    feeder, exchange, host, endpoint = (printable(str(beat.get(name, "")).encode()) for name in _FIELDS[:4])
    states = beat["states"]
    return RunningFeeder(
        feeder=feeder,
        exchange=exchange,
        host=host,
        endpoint=endpoint,
        up=round((beat["time_us"] - beat.get("started_us", beat["time_us"])) / 1e6, 1),
        books=len(states),
        live=sum(state == "live" for state in states.values()),
    )
