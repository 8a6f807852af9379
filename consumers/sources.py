"""Creates the provider of a named source. No source falls back to another one."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bookbus._extras import advice
from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.mock_provider import MockMarketDataProvider
from bookbus.consumers.multi_provider import assemble
from bookbus.consumers.reading import MAX_AGE, BookNotLiveError
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.schemas.redis_names import DEFAULT_PREFIX
from bookbus.schemas.redis_url import DEFAULT_URL

logger = logging.getLogger(__name__)

SOURCES = ("mock", "real", "upbit", "binance", "multi", "redis")

_ADVICE = {"redis": "is a feeder running? `make feeder` starts one"}


class SourceError(RuntimeError):
    """The source is unknown or gives no live books; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Base URLs of an exchange; None for its public ones."""

    ws_url: str | None = None
    rest_url: str | None = None


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Settings of all sources; each source reads its own."""

    redis_url: str = DEFAULT_URL
    prefix: str = DEFAULT_PREFIX
    exchange: str = "binance"
    """The exchange whose books `redis` reads."""
    exchanges: tuple[str, ...] = ("binance", "upbit")
    """The exchanges that `multi` consolidates."""
    multi_from: Literal["exchanges", "bus"] = "exchanges"
    fees: Mapping[str, float] | None = None
    """Taker fees in bps by exchange, for `multi`; None for the default ones."""
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    """By exchange, for the sources that connect to an exchange directly."""
    seed: int = 1
    """Seed of `mock`."""
    timeout: float = 10.0
    """Limit in seconds for connecting, and again for the first live books."""
    max_age: float = MAX_AGE


def make_provider(
    source: str, symbols: Iterable[str] = ("BTC",), settings: SourceSettings | None = None
) -> MarketDataProvider:
    """The provider of a source, not started. Raises SourceError for an unknown source, SymbolError for a symbol."""
    names, settings = list(symbols), settings or SourceSettings()
    match source:
        case "mock":
            return MockMarketDataProvider(names, settings.seed, max_age=settings.max_age)
        case "real":
            logger.warning("source 'real' is the old name of 'upbit': connecting to Upbit")
            return _direct("upbit", names, settings)
        case "upbit" | "binance":
            return _direct(source, names, settings)
        case "multi":
            make = _direct if settings.multi_from == "exchanges" else _from_bus
            return assemble(
                lambda exchange, wanted: make(exchange, wanted, settings),
                settings.exchanges,
                names,
                fees=settings.fees,
                max_age=settings.max_age,
            )
        case "redis":
            return _from_bus(settings.exchange, names, settings)
    raise SourceError(f"unknown source {source!r}; known: {', '.join(SOURCES)}")


def open_source(
    source: str, symbols: Iterable[str] = ("BTC",), settings: SourceSettings | None = None
) -> MarketDataProvider:
    """The started provider of a source, with a live book of every symbol.

    Raises SourceError, with the provider stopped, if the books are not live within the timeout.
    """
    settings = settings or SourceSettings()
    provider = make_provider(source, symbols, settings)
    try:
        provider.start()
        provider.wait_until_live(timeout=settings.timeout)
    except BusConnectionError as error:
        provider.stop()
        raise SourceError(str(error)) from error
    except BookNotLiveError as error:
        advice = _ADVICE.get(source, "")
        connection_error = provider.get_connection_status().error
        provider.stop()
        reasons = [str(error), connection_error if connection_error not in str(error) else "", advice]
        raise SourceError(f"source {source}: {'; '.join(filter(None, reasons))}") from error
    except BaseException:
        provider.stop()
        raise
    return provider


def _from_bus(exchange: str, symbols: list[str], settings: SourceSettings) -> MarketDataProvider:
    return RedisMarketDataProvider(
        settings.redis_url, exchange, symbols, prefix=settings.prefix, max_age=settings.max_age
    )


def _direct(exchange: str, symbols: list[str], settings: SourceSettings) -> MarketDataProvider:
    try:
        # Direct connections need the extra `feeder`, which a reader of the bus may not have installed.
        from bookbus.consumers.direct_provider import DIRECT_PROVIDERS
    except ImportError as error:
        raise SourceError(advice(f"connecting to {exchange}", error)) from error
    if exchange not in DIRECT_PROVIDERS:
        raise SourceError(f"no direct connection to {exchange!r}; there is one to {', '.join(DIRECT_PROVIDERS)}")
    endpoint = settings.endpoints.get(exchange, Endpoint())
    return DIRECT_PROVIDERS[exchange](
        symbols,
        timeout=settings.timeout,
        ws_url=endpoint.ws_url,
        rest_url=endpoint.rest_url,
        max_age=settings.max_age,
    )
