"""Each reader once: what it tells joined with what the server sees, and whether it keeps up."""

from collections import defaultdict
from enum import StrEnum

import msgspec

from bookbus.consumers.bus.readers import Client, Record, Registry
from bookbus.schemas.heartbeat import CLIENT_NAME_HEAD

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
    record: Record | None
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


def _reader(name: str, record: Record | None, connections: list[Client], registry: Registry) -> Reader:
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


def _judge(name: str, record: Record | None, connections: list[Client], registry: Registry) -> tuple[ReaderState, str]:
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
