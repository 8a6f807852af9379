"""All readers of the bus: their heartbeats, joined with the server's list of its clients."""

from collections import defaultdict
from contextlib import closing
from enum import StrEnum

import msgspec

from bookbus.consumers.bus.connection import BusConnection, ReplyError, rejected
from bookbus.consumers.bus.servers import ServerLocator
from bookbus.schemas.heartbeat import CLIENT_NAME_HEAD, ReaderRecord, parse_count, parse_reader, printable
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import RedisServer

SILENT_LIMIT = 3
"""Seconds; our readers send something each second, so one that is idle for longer does not run."""

UNSENT_LIMIT = 64 * 1024
"""Bytes; the server holds that many for a reader only when the socket takes no more."""

LAG_LIMIT = 1.0
"""Seconds."""

_LIMIT = 5.0
_KEYS_AT_ONCE = 1000


class ReaderState(StrEnum):
    """Whether a reader keeps up."""

    OK = "ok"
    SLOW = "slow"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


_ORDER = {ReaderState.STOPPED: 0, ReaderState.SLOW: 1, ReaderState.UNKNOWN: 2, ReaderState.OK: 3}


class ListedClient(msgspec.Struct, frozen=True, kw_only=True):
    """One connection in the server's list; sizes in bytes, times in seconds."""

    name: str
    address: str
    user: str
    subscriptions: int
    unsent: int
    unread: int
    age: int
    idle: int


class Registry(msgspec.Struct, frozen=True):
    """Heartbeats and connections; None where the access rules do not let this user read them."""

    records: tuple[ReaderRecord, ...] | None
    clients: tuple[ListedClient, ...] | None


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """One reader; None where a value is not known. `reason` is empty if the state is OK."""

    name: str
    state: ReaderState
    reason: str
    record: ReaderRecord | None
    address: str | None
    user: str | None
    subscriptions: int | None
    unsent: int | None
    unread: int | None
    age: int | None
    idle: int | None


def read_registry(url: str, names: RedisNames) -> Registry:
    """Read both from the server.

    Raises ValueError for an invalid URL, and BusConnectionError if the server cannot be reached or allows neither.
    """
    return _read(ServerLocator(url).locate(), names)


def parse_clients(listed: bytes) -> tuple[ListedClient, ...]:
    lines = (line for line in listed.decode(errors="replace").splitlines() if line)
    return tuple(_client(dict(field.split("=", 1) for field in line.split(" ") if "=" in field)) for line in lines)


def readers_of(registry: Registry) -> list[Reader]:
    """All readers; stopped and slow ones first."""
    connections: dict[str, list[ListedClient]] = defaultdict(list)
    for client in registry.clients or ():
        if client.name.startswith(CLIENT_NAME_HEAD):
            connections[client.name].append(client)
        elif client.subscriptions:
            # Other programs may share a name; the address makes it unique.
            connections[f"{client.name} {client.address}".strip()].append(client)
    records = {record.client: record for record in registry.records or ()}
    readers = [
        _reader(name, records.get(name), connections.get(name, []), registry)
        for name in dict.fromkeys([*records, *connections])
    ]
    return sorted(readers, key=lambda reader: (_ORDER[reader.state], reader.name))


def _read(server: RedisServer, names: RedisNames) -> Registry:
    with closing(BusConnection(server, "bookbus-list")) as connection:
        (listed,) = connection.ask([("CLIENT", "LIST")], _LIMIT)
        keys = scan(connection, names.consumer("*"))
        if isinstance(listed, ReplyError) and isinstance(keys, ReplyError):
            raise rejected(server, str(keys))
        clients = None if isinstance(listed, ReplyError) else parse_clients(listed)
        if isinstance(keys, ReplyError):
            # Without the right to SCAN, the names of the connections give the keys.
            found_names = {client.name for client in clients or () if client.name.startswith(CLIENT_NAME_HEAD)}
            keys = [names.consumer(name.removeprefix(CLIENT_NAME_HEAD)).encode() for name in sorted(found_names)]
        hashes = connection.ask([("HGETALL", key) for key in keys], _LIMIT)
    if any(isinstance(reply, ReplyError) and str(reply).startswith("NOPERM") for reply in hashes):
        return Registry(None, clients)
    head = len(names.consumer(""))
    found = ((printable(key)[head:], reply) for key, reply in zip(keys, hashes, strict=True))
    # The reply is empty for a hash that expired meanwhile, and an error for a key that is no hash.
    records = (parse_reader(name, reply) for name, reply in found if isinstance(reply, list) and reply)
    return Registry(tuple(records), clients)


def scan(connection: BusConnection, pattern: str) -> list[bytes] | ReplyError:
    """Every key that matches the pattern, or the server's error reply."""
    keys: set[bytes] = set()
    cursor = b"0"
    while True:
        (reply,) = connection.ask([("SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_AT_ONCE)], _LIMIT)
        if isinstance(reply, ReplyError):
            return reply
        cursor, found = reply
        keys.update(found)
        if cursor == b"0":
            return sorted(keys)


def _client(fields: dict[str, str]) -> ListedClient:
    subscriptions = sum(parse_count(fields.get(kind)) or 0 for kind in ("sub", "psub", "ssub"))
    return ListedClient(
        name=fields.get("name", ""),
        address=fields.get("addr", ""),
        user=fields.get("user", ""),
        subscriptions=subscriptions,
        unsent=parse_count(fields.get("omem")) or 0,
        unread=parse_count(fields.get("qbuf")) or 0,
        age=parse_count(fields.get("age")) or 0,
        idle=parse_count(fields.get("idle")) or 0,
    )


def _reader(name: str, record: ReaderRecord | None, connections: list[ListedClient], registry: Registry) -> Reader:
    state, reason = _state_of(name, record, connections, registry)
    seen = bool(connections)

    def total(field: str) -> int | None:
        return sum(getattr(one, field) for one in connections) if seen else None

    return Reader(
        name=name.removeprefix(CLIENT_NAME_HEAD),
        state=state,
        reason=reason,
        record=record,
        address=connections[0].address if seen else None,
        user=connections[0].user if seen else None,
        subscriptions=total("subscriptions"),
        unsent=total("unsent"),
        unread=total("unread"),
        age=max(one.age for one in connections) if seen else None,
        # The longest: the server goes on writing messages to the other connection of a stopped reader.
        idle=max(one.idle for one in connections) if seen else None,
    )


def _state_of(
    name: str, record: ReaderRecord | None, connections: list[ListedClient], registry: Registry
) -> tuple[ReaderState, str]:
    unsent = sum(one.unsent for one in connections)
    if name.startswith(CLIENT_NAME_HEAD) and connections:
        idle = max(one.idle for one in connections)
        if idle >= SILENT_LIMIT:
            cut = "" if any(one.subscriptions for one in connections) else "; the server cut it off"
            return ReaderState.STOPPED, f"no sign of life for {idle} s{cut}"
    if unsent >= UNSENT_LIMIT:
        return ReaderState.SLOW, f"{unsent / 1e6:.1f} MB wait for it at the server"
    if record is not None and record.lag is not None and record.lag >= LAG_LIMIT:
        return ReaderState.SLOW, f"{record.lag:.1f} s behind"
    if record is not None and registry.clients is not None and not connections:
        return ReaderState.UNKNOWN, "it has no connection: it ended, or connects again"
    return ReaderState.OK, ""
