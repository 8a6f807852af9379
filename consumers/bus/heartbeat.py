"""The identity of a reader and the fields of its heartbeat."""

import os
import socket
import uuid
from dataclasses import dataclass, field

from bookbus import __version__
from bookbus.consumers.bus.books import BusTable
from bookbus.schemas.heartbeat import CLIENT_NAME_HEAD, ReaderRecord, reader_fields


@dataclass(frozen=True, slots=True)
class ConsumerIdentity:
    """The identity of a reader; `id` is unique, also within one process."""

    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    number: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    @property
    def id(self) -> str:
        return f"{self.host}-{self.pid}-{self.number}".replace(" ", "_")

    @property
    def client_name(self) -> str:
        """Name of the reader's connections in CLIENT LIST."""
        return CLIENT_NAME_HEAD + self.id


def consumer_fields(
    identity: ConsumerIdentity, table: BusTable, lag: float, delay: float | None, reconnects: int
) -> dict[str, str]:
    """The fields of the reader's hash."""
    counts = [book.counts() for book in table.by_symbol.values()]
    return reader_fields(
        ReaderRecord(
            client=identity.client_name,
            exchange=table.exchange,
            symbols=tuple(table.by_symbol),
            lag=lag,
            delay=delay,
            received=sum(count.received for count in counts),
            conflated=sum(count.conflated for count in counts),
            missed=sum(count.missed for count in counts),
            reconnects=reconnects,
            host=identity.host,
            pid=identity.pid,
            version=__version__,
        )
    )
