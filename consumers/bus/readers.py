"""Every reader there is: what readers tell of themselves, and the server's list of its clients."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from enum import StrEnum

import hiredis
import msgspec

from bookbus.consumers.bus.connection import BusLink, refused
from bookbus.consumers.bus.servers import BusServers
from bookbus.schemas.heartbeat import CLIENT_NAME_HEAD
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import RedisServer

_LIMIT = 5.0
_KEYS_AT_ONCE = 1000


class ReaderRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader told of itself; None and empty where it told nothing that can be read."""

    client: str
    """The name of its connections."""
    exchange: str = ""
    symbols: tuple[str, ...] = ()
    lag: float | None = None
    delay: float | None = None
    received: int | None = None
    conflated: int | None = None
    missed: int | None = None
    reconnects: int | None = None
    host: str = ""
    pid: int | None = None
    version: str = ""


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """One connection as the server sees it; sizes in bytes, times in seconds."""

    name: str
    address: str
    user: str
    subscriptions: int
    unsent: int
    unread: int
    age: int
    idle: int


class Registry(msgspec.Struct, frozen=True):
    """Both views of the readers; None where this user may not have it."""

    records: tuple[ReaderRecord, ...] | None
    clients: tuple[Client, ...] | None


def read_registry(url: str, names: RedisNames) -> Registry:
    """Both views of one server, as of now.

    Raises ValueError for a URL of none, and BusConnectionError if the server cannot be reached or refuses both.
    """
    return _read(BusServers(url).find(), names)


def parse_clients(listed: bytes) -> tuple[Client, ...]:
    """The connections in an answer to CLIENT LIST."""
    lines = (line for line in listed.decode(errors="replace").splitlines() if line)
    return tuple(_client(dict(field.split("=", 1) for field in line.split(" ") if "=" in field)) for line in lines)


def parse_record(consumer_id: str, reply: Sequence[bytes]) -> ReaderRecord:
    """What the fields of a reader's hash say; any program that may write there could have written them."""
    fields = {_text(name): _text(value) for name, value in zip(reply[::2], reply[1::2], strict=False)}
    return ReaderRecord(
        client=CLIENT_NAME_HEAD + consumer_id,
        exchange=fields.get("exchange", ""),
        symbols=tuple(fields.get("symbols", "").split()),
        lag=_seconds(fields.get("lag_ms")),
        delay=_seconds(fields.get("delay_ms")),
        received=_count(fields.get("received")),
        conflated=_count(fields.get("conflated")),
        missed=_count(fields.get("missed")),
        reconnects=_count(fields.get("reconnects")),
        host=fields.get("host", ""),
        pid=_count(fields.get("pid")),
        version=fields.get("version", ""),
    )


def _read(server: RedisServer, names: RedisNames) -> Registry:
    with closing(BusLink(server, "bookbus-list")) as link:
        (listed,) = link.ask([("CLIENT", "LIST")], _LIMIT)
        keys = _scan(link, names.consumer("*"))
        if isinstance(listed, hiredis.ReplyError) and isinstance(keys, hiredis.ReplyError):
            raise refused(server, str(keys))
        clients = None if isinstance(listed, hiredis.ReplyError) else parse_clients(listed)
        if isinstance(keys, hiredis.ReplyError):
            # Who may not search for the records finds them by the names of the connections.
            found_names = {client.name for client in clients or () if client.name.startswith(CLIENT_NAME_HEAD)}
            keys = [names.consumer(name.removeprefix(CLIENT_NAME_HEAD)).encode() for name in sorted(found_names)]
        hashes = link.ask([("HGETALL", key) for key in keys], _LIMIT)
    if any(isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOPERM") for reply in hashes):
        return Registry(None, clients)
    head = len(names.consumer(""))
    found = ((_text(key)[head:], reply) for key, reply in zip(keys, hashes, strict=True))
    # What expired meanwhile is empty, what is no hash an error.
    records = (parse_record(name, reply) for name, reply in found if isinstance(reply, list) and reply)
    return Registry(tuple(records), clients)


def _scan(link: BusLink, pattern: str) -> list[bytes] | hiredis.ReplyError:
    """Every key of this pattern; the server's refusal if it refuses."""
    keys: set[bytes] = set()
    cursor = b"0"
    while True:
        (reply,) = link.ask([("SCAN", cursor, "MATCH", pattern, "COUNT", _KEYS_AT_ONCE)], _LIMIT)
        if isinstance(reply, hiredis.ReplyError):
            return reply
        cursor, found = reply
        keys.update(found)
        if cursor == b"0":
            return sorted(keys)


def _client(fields: dict[str, str]) -> Client:
    subscriptions = sum(_count(fields.get(kind)) or 0 for kind in ("sub", "psub", "ssub"))
    return Client(
        name=fields.get("name", ""),
        address=fields.get("addr", ""),
        user=fields.get("user", ""),
        subscriptions=subscriptions,
        unsent=_count(fields.get("omem")) or 0,
        unread=_count(fields.get("qbuf")) or 0,
        age=_count(fields.get("age")) or 0,
        idle=_count(fields.get("idle")) or 0,
    )


def _text(value: bytes) -> str:
    """As text that a terminal takes for nothing else."""
    return "".join(letter if letter.isprintable() else "?" for letter in value.decode(errors="replace"))


def _count(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None


def _seconds(text: str | None) -> float | None:
    try:
        return float(text or "") / 1000
    except ValueError:
        return None


SILENT_LIMIT = 3
"""A reader of ours asks the server something each second; after so many without, it does not run."""

UNSENT_LIMIT = 64 * 1024
"""The server keeps so many bytes for a reader only once the network between them is full."""

LAG_LIMIT = 1.0


class ReaderState(StrEnum):
    """Whether a reader keeps up."""

    OK = "ok"
    SLOW = "slow"
    STOPPED = "stopped"
    UNKNOWN = "unknown"


class Reader(msgspec.Struct, frozen=True, kw_only=True):
    """One reader; None where nobody tells. `reason` is empty if all is well."""

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


def readers_of(registry: Registry) -> list[Reader]:
    """All readers, those in trouble first."""
    connections: dict[str, list[Client]] = defaultdict(list)
    for client in registry.clients or ():
        if client.name.startswith(CLIENT_NAME_HEAD):
            connections[client.name].append(client)
        elif client.subscriptions:
            # Programs of others may share a name, and are told apart by where they are.
            connections[f"{client.name} {client.address}".strip()].append(client)
    records = {record.client: record for record in registry.records or ()}
    readers = [
        _reader(name, records.get(name), connections.get(name, []), registry)
        for name in dict.fromkeys([*records, *connections])
    ]
    return sorted(readers, key=lambda reader: (_ORDER[reader.state], reader.name))


_ORDER = {ReaderState.STOPPED: 0, ReaderState.SLOW: 1, ReaderState.UNKNOWN: 2, ReaderState.OK: 3}


def _reader(name: str, record: ReaderRecord | None, connections: list[Client], registry: Registry) -> Reader:
    state, reason = _judge(name, record, connections, registry)
    seen = bool(connections)
    return Reader(
        name=name.removeprefix(CLIENT_NAME_HEAD),
        state=state,
        reason=reason,
        record=record,
        address=connections[0].address if seen else None,
        user=connections[0].user if seen else None,
        subscriptions=sum(one.subscriptions for one in connections) if seen else None,
        unsent=sum(one.unsent for one in connections) if seen else None,
        unread=sum(one.unread for one in connections) if seen else None,
        age=max(one.age for one in connections) if seen else None,
        # Of two connections, the one that rests longer tells: messages may still be put into a dead reader's other one.
        idle=max(one.idle for one in connections) if seen else None,
    )


def _judge(
    name: str, record: ReaderRecord | None, connections: list[Client], registry: Registry
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
