"""An exchange's instruments: asked for, cached on disk, and judged by spelling when neither is to be had."""

import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from feeders.exchanges.venue import MetadataError, Venue
from feeders.rest_client import RestClient, RestError
from schemas.instruments import Instrument, InstrumentRegistry

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
        host = urlsplit(self.rest.base_url).netloc.replace(":", "_")
        return self.cache_directory / f"{self.venue.exchange.id}-{host}.json"

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
        try:
            if time.time() - self.cache_file.stat().st_mtime > MAX_CACHE_AGE:
                return []
            return self.venue.instruments(self.cache_file.read_bytes())
        except (OSError, MetadataError):
            return []
