"""One reader's sign of life: the fields of its hash."""

import os
import socket
import uuid
from dataclasses import dataclass, field

from bookbus import __version__
from bookbus.consumers.bus.books import BusTable
from bookbus.schemas.heartbeat import CLIENT_NAME_HEAD


@dataclass(frozen=True, slots=True)
class ConsumerIdentity:
    """Which reader this is; `id` is unique, also within one process."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    number: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def id(self) -> str:
        """Name of the reader's hash."""
        return f"{self.host}-{self.pid}-{self.number}".replace(" ", "_")

    @property
    def client_name(self) -> str:
        """Name of the reader's connections in CLIENT LIST."""
        return CLIENT_NAME_HEAD + self.id


def consumer_fields(
    identity: ConsumerIdentity, table: BusTable, lag: float, delay: float | None, reconnects: int
) -> dict[str, str]:
    """What the reader does, as text; empty where nothing is known."""
    counts = [book.counts() for book in table.by_symbol.values()]
    return {
        "exchange": table.exchange,
        "symbols": " ".join(table.by_symbol),
        "lag_ms": f"{lag * 1000:.1f}",
        "delay_ms": "" if delay is None else f"{delay * 1000:.1f}",
        "received": str(sum(count.received for count in counts)),
        "conflated": str(sum(count.conflated for count in counts)),
        "missed": str(sum(count.missed for count in counts)),
        "reconnects": str(reconnects),
        "host": identity.host,
        "pid": str(identity.pid),
        "client": identity.client_name,
        "version": __version__,
    }
