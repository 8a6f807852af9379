"""A provider from the name of its source; none ever stands in for another."""

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from bookbus.consumers.bus.connection import BusConnectionError
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.mock_provider import MockMarketDataProvider
from bookbus.consumers.multi_provider import assemble
from bookbus.consumers.reading import MAX_AGE, BookNotLiveError
from bookbus.consumers.redis_provider import RedisMarketDataProvider
from bookbus.schemas.redis_names import DEFAULT_PREFIX
from bookbus.schemas.redis_url import DEFAULT_URL

logger = logging.getLogger(__name__)


class SourceError(RuntimeError):
    """This source gives no books; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an exchange is reached; None is its usual address."""

    ws_url: str | None = None
    rest_url: str | None = None


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """What the sources need to know besides the symbols, each its own part of it."""

    redis_url: str = DEFAULT_URL
    prefix: str = DEFAULT_PREFIX
    exchange: str = "binance"
    """Whose books `redis` reads."""
    exchanges: tuple[str, ...] = ("binance", "upbit")
    """Which exchanges `multi` puts together."""
    multi_from: Literal["exchanges", "bus"] = "exchanges"
    fees: Mapping[str, float] | None = None
    """Taker fees in bps by exchange, for `multi`; None for the usual ones."""
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    """By exchange, for the sources that connect to exchanges themselves."""
    seed: int = 1
    """Of `mock`."""
    timeout: float = 10.0
    """Seconds for connecting, and once more for the first books."""
    max_age: float = MAX_AGE


def make_provider(
    source: str, symbols: Iterable[str] = ("BTC",), settings: SourceSettings | None = None
) -> MarketDataProvider:
    """The provider of a source, not started. Raises SourceError for an unknown one, SymbolError for a name."""
    make = _MAKERS.get(source)
    if make is None:
        raise SourceError(f"unknown source {source!r}; known: {', '.join(SOURCES)}")
    return make(list(symbols), settings or SourceSettings())


def open_source(
    source: str, symbols: Iterable[str] = ("BTC",), settings: SourceSettings | None = None
) -> MarketDataProvider:
    """The provider of a source, started, with a live book of every symbol.

    Raises SourceError if that is not so within the timeout; nothing is left running then.
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
        failure = provider.get_connection_status().error
        provider.stop()
        reasons = [str(error), failure if failure not in str(error) else "", advice]
        raise SourceError(f"source {source}: {'; '.join(filter(None, reasons))}") from error
    except BaseException:
        provider.stop()
        raise
    return provider


def _mock(symbols: list[str], settings: SourceSettings) -> MarketDataProvider:
    return MockMarketDataProvider(symbols, settings.seed, max_age=settings.max_age)


def _real(symbols: list[str], settings: SourceSettings) -> MarketDataProvider:
    logger.warning("source 'real' is the old name of 'upbit': connecting to Upbit")
    return _direct("upbit", symbols, settings)


def _multi(symbols: list[str], settings: SourceSettings) -> MarketDataProvider:
    make = _direct if settings.multi_from == "exchanges" else _from_bus
    return assemble(
        lambda exchange, names: make(exchange, names, settings),
        settings.exchanges,
        symbols,
        fees=settings.fees,
        max_age=settings.max_age,
    )


def _redis(symbols: list[str], settings: SourceSettings) -> MarketDataProvider:
    return _from_bus(settings.exchange, symbols, settings)


def _from_bus(exchange: str, symbols: list[str], settings: SourceSettings) -> MarketDataProvider:
    return RedisMarketDataProvider(
        settings.redis_url, exchange, symbols, prefix=settings.prefix, max_age=settings.max_age
    )


def _direct(exchange: str, symbols: list[str], settings: SourceSettings) -> MarketDataProvider:
    try:
        # What connects to exchanges is an extra that a reader of the bus need not have installed.
        from bookbus.consumers.direct_provider import DIRECT_PROVIDERS
    except ImportError as error:
        raise SourceError(
            f"connecting to {exchange} needs more packages ({error}): pip install 'bookbus[feeder]'"
        ) from error
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


_MAKERS: Mapping[str, Callable[[list[str], SourceSettings], MarketDataProvider]] = {
    "mock": _mock,
    "real": _real,
    "upbit": lambda symbols, settings: _direct("upbit", symbols, settings),
    "binance": lambda symbols, settings: _direct("binance", symbols, settings),
    "multi": _multi,
    "redis": _redis,
}

SOURCES = tuple(_MAKERS)

_ADVICE = {"redis": "is a feeder running? `make feeder` starts one"}
