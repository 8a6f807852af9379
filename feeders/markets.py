"""The exchange's list of markets, which of them are selected, and which part of those a feeder serves."""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit
from zlib import crc32

from bookbus.feeders.errors import MetadataError, RestError
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.venue import InstrumentList, Venue
from bookbus.schemas.instruments import (
    NOT_MATCHING,
    Instrument,
    InstrumentRegistry,
    SymbolError,
    UncertainSymbolError,
    UnknownSymbolError,
    is_symbol,
)

logger = logging.getLogger(__name__)

MAX_CACHE_AGE = 24 * 3600.0

_ROOT = 0

_NAMED = 5
"""Entries of a list that one line of the log names."""

_MOST_DIGITS = 10
"""No exchange lists more markets, and `int` refuses thousands of digits."""


@dataclass(slots=True)
class Markets:
    """`chosen` are the instruments that the selection matched at the start."""

    source: "MetadataSource"
    selection: "SymbolSelection"
    registry: InstrumentRegistry
    chosen: list[Instrument]
    missing: dict[str, str] = field(default_factory=dict)
    """Selected names that the exchange does not list now, and the reason; each starts when it is listed."""
    _named: dict[str, Instrument] = field(default_factory=dict)
    _reported: set[str] = field(default_factory=set)

    @classmethod
    async def load(cls, source: "MetadataSource", selection: "SymbolSelection") -> "Markets":
        """Ask the exchange. Names that it does not list are left out, with an error in the log.

        Raises SymbolError if that are all, or a name can be no symbol; RestError if a rule needs an answer.
        """
        registry = await source.registry()
        named, missing = selection.resolve(registry)
        chosen = selection.choose(registry, await _turnover(source, selection))
        if not chosen:
            raise SymbolError(
                f"shard {selection.shard} has none of these symbols: make fewer shards or name more symbols"
            )
        # Without the exchange's list these are the names: its list, which may come later, does not change them.
        for reason in registry.learn([*named.values(), *chosen]).values():
            raise SymbolError(reason)
        for reason in missing.values():
            logger.error("left out: %s", reason)
        return cls(source, selection, registry, chosen, missing, named)

    async def refresh(self, natives: Sequence[str]) -> tuple[list[Instrument], list[str]]:
        """Ask again: what is wanted and not among `natives`, and which of those no longer trade.

        Raises RestError, MetadataError or SymbolError, and then nothing has changed.
        """
        instruments = await self.source.instruments()
        listed = InstrumentRegistry(self.registry.exchange, instruments)
        # Named markets stay also if they are delisted; one must not prevent new markets from being added.
        rules = replace(self.selection, names=())
        chosen = rules.choose(listed, await _turnover(self.source, rules))
        rejected = self.registry.learn(listed.all())
        self._report_renamed(rejected)
        chosen += [instrument for instrument in self._found(listed) if instrument not in chosen]
        known = set(natives)
        added = [each for each in chosen if each.native not in known and each.native not in rejected]
        kept = {instrument.native for instrument in self._named.values()} | set(skipped_of(instruments))
        return added, rules.gone([native for native in natives if native not in kept], listed)

    def _found(self, listed: InstrumentRegistry) -> list[Instrument]:
        """Names that were missing and are listed now."""
        found, _ = replace(self.selection, names=tuple(self.missing)).resolve(listed)
        for name, instrument in found.items():
            logger.warning("%s is listed: its book starts", instrument.symbol)
            self._named[name] = instrument
            del self.missing[name]
        return [instrument for instrument in found.values() if self.selection.shard.has(instrument.native)]

    def _report_renamed(self, rejected: Mapping[str, str]) -> None:
        for native, reason in rejected.items():
            if native not in self._reported:
                self._reported.add(native)
                logger.error("a name does not change while a feeder runs: %s", reason)


@dataclass(frozen=True, slots=True)
class MetadataSource:
    """Where the instruments of one exchange come from."""

    venue: Venue
    rest: RestClient
    cache_directory: Path
    _skipped: dict[str, str] = field(default_factory=dict)

    async def registry(self) -> InstrumentRegistry:
        """The exchange's own list; else the cached one, with a warning; else names resolved by their spelling."""
        exchange = self.venue.exchange
        try:
            return InstrumentRegistry(exchange, await self.instruments())
        except (RestError, MetadataError) as error:
            if instruments := cached_instruments(self.venue, self.rest.base_url, self.cache_directory):
                logger.warning("using the cached instruments of %s: %s", exchange.id, error)
                return InstrumentRegistry(exchange, instruments)
            logger.warning("symbols are read by their spelling: no list of instruments of %s: %s", exchange.id, error)
            return InstrumentRegistry(exchange, offline=True)

    async def instruments(self) -> list[Instrument]:
        """The exchange's own list. Raises RestError or MetadataError."""
        metadata = await self.venue.fetch_metadata(self.rest)
        instruments = self.venue.instruments(metadata)
        self._report_skipped(skipped_of(instruments))
        self._cache(metadata)
        return instruments

    @property
    def cache_file(self) -> Path:
        """One file for each host, so that another host's markets are not taken for these."""
        return _cache_file(self.venue, self.rest.base_url, self.cache_directory)

    def _report_skipped(self, skipped: Mapping[str, str]) -> None:
        """Name entries that were left out, each once, and count them."""
        new = {name: reason for name, reason in skipped.items() if self._skipped.get(name) != reason}
        self._skipped.update(new)
        if new:
            named = "; ".join(f"{name}: {reason}" for name, reason in list(new.items())[:_NAMED])
            logger.warning(
                "%d entries of the list of %s are left out, among them %s", len(skipped), self.venue.exchange.id, named
            )

    def _cache(self, metadata: bytes) -> None:
        new = self.cache_file.with_suffix(f".{os.getpid()}.new")
        try:
            self.cache_directory.mkdir(parents=True, exist_ok=True)
            new.write_bytes(metadata)
            new.replace(self.cache_file)
        except OSError as error:
            logger.warning("cannot cache the instruments in %s: %s", self.cache_file, error)


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` of `count`. A symbol belongs to the same part on every machine, whatever else is listed."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise ValueError(f"shard {self}: write 2/5 for the second of five")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def has(self, native: str) -> bool:
        """Whether the symbol with the exchange's name `native` is in this part."""
        return crc32(native.encode()) % self.count == self.number - 1


WHOLE = Shard()
"""Every symbol."""


@dataclass(frozen=True, slots=True)
class SymbolSelection:
    """Names, and rules that may choose other markets tomorrow: `all:USDT`, `top:50`, `top:50:BTC`."""

    names: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    """Quote assets of which every market is wanted."""
    top: tuple[tuple[int, str | None], ...] = ()
    """How many of the greatest turnover in one quote asset, None for the exchange's home quote."""
    shard: Shard = WHOLE
    """Which part of all these is wanted."""

    @property
    def follows_listings(self) -> bool:
        """Whether the exchange's list of markets decides."""
        return bool(self.all_of or self.top)

    @property
    def needs_turnover(self) -> bool:
        """Whether the exchange has to be asked which markets are the greatest."""
        return bool(self.top)

    def resolve(self, registry: InstrumentRegistry) -> tuple[dict[str, Instrument], dict[str, str]]:
        """The instruments of the names that are listed; of each other name the reason why it is not.

        Raises SymbolError for a name that can be no symbol or stands for two.
        """
        found: dict[str, Instrument] = {}
        missing: dict[str, str] = {}
        for name in self.names:
            try:
                found[name] = registry.resolve(name)
            except (UnknownSymbolError, UncertainSymbolError) as error:
                if not is_symbol(registry.exchange, name):
                    raise
                missing[name] = str(error)
        return found, missing

    def choose(self, registry: InstrumentRegistry, turnover: Mapping[str, float]) -> list[Instrument]:
        """The instruments, each once. `turnover` is in the quote asset, by native symbol. Raises SymbolError."""
        named, missing = self.resolve(registry)
        chosen = {instrument.native: instrument for instrument in named.values()}
        if missing and not named and not self.follows_listings:
            raise SymbolError("; ".join(missing.values()))
        open_markets = [instrument for instrument in registry.all() if _trades(instrument)]
        for quote in self.all_of:
            found = [instrument for instrument in open_markets if instrument.quote == quote]
            if not found:
                raise SymbolError(f"all:{quote}: {registry.exchange.id} lists no market in {quote}")
            chosen |= {instrument.native: instrument for instrument in found}
        for count, asked in self.top:
            wanted = asked or registry.exchange.home_quote
            ranked = sorted(
                (instrument for instrument in open_markets if instrument.quote == wanted),
                key=lambda instrument: turnover.get(instrument.native, 0.0),
                reverse=True,
            )
            if not ranked:
                raise SymbolError(f"top:{count}: {registry.exchange.id} lists no market in {wanted}")
            chosen |= {instrument.native: instrument for instrument in ranked[:count]}
        return [instrument for native, instrument in chosen.items() if self.shard.has(native)]

    def gone(self, natives: Sequence[str], registry: InstrumentRegistry) -> list[str]:
        """The symbols that no longer trade. Markets that a rule chose stay until then, named markets always."""
        named = {instrument.native for instrument in self.resolve(registry)[0].values()}
        return [native for native in natives if native not in named and not _trades(registry.by_native(native))]


def skipped_of(instruments: Sequence[Instrument]) -> Mapping[str, str]:
    """Entries of an exchange's list that were left out, with the reasons."""
    return instruments.skipped if isinstance(instruments, InstrumentList) else {}


def parse_selection(parts: Sequence[str]) -> SymbolSelection:
    """The selection that these words describe. Raises SymbolError for an invalid rule."""
    names: list[str] = []
    all_of: list[str] = []
    top: list[tuple[int, str | None]] = []
    for part in parts:
        rule, *arguments = part.split(":")
        match rule.lower(), arguments:
            case "all", [quote] if quote:
                all_of.append(quote.upper())
            case "top", [count] if _is_count(count):
                top.append((int(count), None))
            case "top", [count, quote] if _is_count(count) and quote:
                top.append((int(count), quote.upper()))
            case _, []:
                names.append(part)
            case _:
                raise SymbolError(f"{part!r}: write a symbol, all:USDT, top:50 or top:50:BTC")
    return SymbolSelection(tuple(names), tuple(all_of), tuple(top))


def parse_shard(text: str) -> Shard:
    """The part that `2/5` names. Raises ValueError for anything else."""
    if not (match := re.fullmatch(r"(\d{1,4})/(\d{1,4})", text)):
        raise ValueError(f"shard {text}: write 2/5 for the second of five")
    return Shard(int(match[1]), int(match[2]))


def cached_instruments(venue: Venue, rest_url: str, cache_directory: Path) -> list[Instrument]:
    """The exchange's list if a feeder on this machine got it within the last day; else none."""
    file = _cache_file(venue, rest_url, cache_directory)
    try:
        stat = file.stat()
        # Another user could have left one in a shared directory.
        # A list from the future is of unknown age: the clock was set back.
        if stat.st_uid not in (os.getuid(), _ROOT) or not 0 <= time.time() - stat.st_mtime <= MAX_CACHE_AGE:
            return []
        return venue.instruments(file.read_bytes())
    except (OSError, MetadataError):
        return []


def default_cache_directory() -> Path:
    """The user's cache directory, where nothing is kept that cannot be fetched again.

    For a user without a home it is one in the directory for temporary files.
    """
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given) / "bookbus"
    try:
        return Path.home() / ".cache" / "bookbus"
    except RuntimeError:
        return Path(os.environ.get("TMPDIR") or "/tmp") / f"bookbus-{os.getuid()}"  # noqa: S108


async def _turnover(source: MetadataSource, selection: SymbolSelection) -> dict[str, float]:
    return await source.venue.fetch_turnover(source.rest) if selection.needs_turnover else {}


def _cache_file(venue: Venue, rest_url: str, cache_directory: Path) -> Path:
    # Without user and password.
    host = urlsplit(rest_url).netloc.rpartition("@")[2].replace(":", "_")
    return cache_directory / f"{venue.exchange.id}-{host}.json"


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) < _MOST_DIGITS and int(text) > 0


def _trades(instrument: Instrument | None) -> bool:
    return instrument is not None and instrument.status not in NOT_MATCHING
