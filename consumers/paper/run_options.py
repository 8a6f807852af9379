"""What the options of `run` mean together."""

import logging
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from bookbus.consumers.commands.arbitrage import parse_fees
from bookbus.consumers.paper.entry_zones import EntryMode, EntrySettings
from bookbus.consumers.paper.settings import DEFAULT_DURATION, PASSIVE_MODELS, SMOKE_DURATION, RunSettings
from bookbus.consumers.sources import SOURCES, Endpoint, SourceSettings
from bookbus.schemas.instruments import EXCHANGES, InstrumentRegistry, exchange_of

logger = logging.getLogger(__name__)

CAPTURE = "capture:"


def known_source(source: str) -> str:
    """The source as it was asked for. Raises ValueError for an unknown one."""
    if source in SOURCES or (source.startswith(CAPTURE) and source != CAPTURE):
        return source
    raise ValueError(f"--l2-source {source}: use {', '.join(SOURCES)} or {CAPTURE}FILE")


def duration_of(source: str, seconds: float | None, smoke: bool) -> float | None:
    """How long to run; a recording runs to its end unless a time is given."""
    if smoke:
        return SMOKE_DURATION
    if seconds is not None:
        return seconds
    return None if source.startswith(CAPTURE) else DEFAULT_DURATION


def entry_settings(
    mode: EntryMode, minimum: float, maximum: float | None, seed: int, weights: str, tp_bps: float
) -> EntrySettings:
    """Where entries are aimed at. Raises ValueError."""
    try:
        numbers = tuple(float(weight) for weight in weights.split(",") if weight.strip())
    except ValueError:
        raise ValueError(f"--entry-bps-zone-weights {weights}: write numbers, comma-separated") from None
    return EntrySettings(mode, minimum, minimum if maximum is None else maximum, seed, numbers, tp_bps)


def endpoints_of(urls: Mapping[str, tuple[str, str]]) -> dict[str, Endpoint]:
    """Where exchanges are reached, by exchange: socket and REST address, empty for the usual ones."""
    return {exchange: Endpoint(ws or None, rest or None) for exchange, (ws, rest) in urls.items()}


def fees_of(text: str) -> dict[str, float]:
    """`binance=7.5,upbit=5` as bps by exchange. Raises ValueError."""
    return parse_fees(text)


def why_not_passive(settings: RunSettings) -> str:
    """Why orders cannot wait with this source; empty if they can, or need not."""
    if settings.fill_model in PASSIVE_MODELS and settings.source == "multi":
        return f"--fill-model {settings.fill_model} waits on one exchange: use another source than multi"
    return ""


def renamed(settings: RunSettings, source: str) -> RunSettings:
    """The same settings for another source."""
    return replace(settings, source=source)


def listed_instruments(exchanges: Sequence[str], sources: SourceSettings) -> dict[str, InstrumentRegistry]:
    """What a feeder on this machine learned of exchanges whose own books are read: tick, step, minimum value.

    None with several exchanges, whose prices are converted and stand on no tick.
    """
    if len(exchanges) > 1 or exchanges[0] not in EXCHANGES:
        return {}
    (exchange,) = exchanges
    try:
        # What knows the exchanges is an extra that a reader of the bus need not have installed.
        from bookbus.consumers.direct_provider import known_instruments
    except ImportError:
        instruments = None
    else:
        instruments = known_instruments(exchange, sources.endpoints.get(exchange, Endpoint()).rest_url)
    if not instruments:
        logger.info("%s told nobody here its ticks, steps and minimum values: orders are not held to them", exchange)
        return {}
    return {exchange: InstrumentRegistry(exchange_of(exchange), instruments, offline=True)}
