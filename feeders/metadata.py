"""An exchange's instruments: asked for, cached on disk, and judged by spelling when neither is to be had."""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bookbus.feeders.errors import MetadataError, RestError
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.venue import Venue
from bookbus.schemas.instruments import Instrument, InstrumentRegistry

logger = logging.getLogger(__name__)

MAX_CACHE_AGE = 24 * 3600.0


def default_cache_directory() -> Path:
    """Where programs of this user keep what can be had again."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bookbus"


@dataclass(frozen=True, slots=True)
class MetadataSource:
    """Where the instruments of one exchange come from."""

    venue: Venue
    rest: RestClient
    cache_directory: Path

    async def registry(self) -> InstrumentRegistry:
        """The exchange's own list; else the cached one, with a warning; else names judged by their spelling."""
        try:
            return InstrumentRegistry(self.venue.exchange, await self.instruments())
        except (RestError, MetadataError) as error:
            return self._without_exchange(error)

    async def instruments(self) -> list[Instrument]:
        """The exchange's own list. Raises RestError or MetadataError."""
        metadata = await self.venue.fetch_metadata(self.rest)
        instruments = self.venue.instruments(metadata)
        self._keep(metadata)
        return instruments

    @property
    def cache_file(self) -> Path:
        """One file for each host, so that another host's markets are not taken for these."""
        return _cache_file(self.venue, self.rest.base_url, self.cache_directory)

    def _without_exchange(self, error: Exception) -> InstrumentRegistry:
        instruments = self._cached()
        if instruments:
            logger.warning("using the cached instruments of %s: %s", self.venue.exchange.id, error)
            return InstrumentRegistry(self.venue.exchange, instruments)
        logger.info("judging symbols by their spelling, since %s cannot be asked: %s", self.venue.exchange.id, error)
        return InstrumentRegistry(self.venue.exchange, offline=True)

    def _keep(self, metadata: bytes) -> None:
        new = self.cache_file.with_suffix(f".{os.getpid()}.new")
        try:
            self.cache_directory.mkdir(parents=True, exist_ok=True)
            new.write_bytes(metadata)
            new.replace(self.cache_file)
        except OSError as error:
            logger.warning("cannot cache the instruments in %s: %s", self.cache_file, error)

    def _cached(self) -> list[Instrument]:
        return cached_instruments(self.venue, self.rest.base_url, self.cache_directory)


def cached_instruments(venue: Venue, rest_url: str, cache_directory: Path) -> list[Instrument]:
    """What the exchange said of its instruments within the last day; none if nobody on this machine asked."""
    file = _cache_file(venue, rest_url, cache_directory)
    try:
        if time.time() - file.stat().st_mtime > MAX_CACHE_AGE:
            return []
        return venue.instruments(file.read_bytes())
    except (OSError, MetadataError):
        return []


def _cache_file(venue: Venue, rest_url: str, cache_directory: Path) -> Path:
    host = urlsplit(rest_url).netloc.replace(":", "_")
    return cache_directory / f"{venue.exchange.id}-{host}.json"
