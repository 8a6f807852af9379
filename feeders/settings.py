"""The settings of one feeder."""

import os
import secrets
import socket
from dataclasses import dataclass, field
from pathlib import Path

from bookbus.feeders.exchange_feed import ConnectionSettings
from bookbus.feeders.markets import SymbolSelection, default_cache_directory
from bookbus.feeders.venue import FeedOptions
from bookbus.schemas.redis_names import DEFAULT_PREFIX
from bookbus.schemas.redis_url import DEFAULT_URL


@dataclass(frozen=True, slots=True)
class FeederSettings:
    """URLs that are None are the exchange's own."""

    exchange: str
    selection: SymbolSelection
    redis_url: str = DEFAULT_URL
    prefix: str = DEFAULT_PREFIX
    feeder_name: str | None = None
    ws_url: str | None = None
    rest_url: str | None = None
    options: FeedOptions = field(default_factory=FeedOptions)
    connection: ConnectionSettings = field(default_factory=ConnectionSettings)
    record_to: Path | None = None
    audit_interval: float = 2.0
    """Seconds between two comparisons of a book with the exchange's answer; 0 for none."""
    cache_directory: Path = field(default_factory=default_cache_directory)


def unique_feeder_id(exchange: str, name: str | None) -> str:
    """An id that no other run of a feeder has, even if two have the same name."""
    return f"{name or f'{exchange}-{socket.gethostname()}-{os.getpid()}'}-{secrets.token_hex(3)}"
