"""Bybit spot: sockets and metadata. Its derivatives are other markets, hence other exchange ids."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from bookbus.feeders.errors import MetadataError, RestError
from bookbus.feeders.exchanges.bybit_protocol import TOPICS, BybitProtocol
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.venue import FeedOptions, InstrumentList, Venue, VenueProtocol
from bookbus.schemas.decoding import entry_decoder, json_decoder, plain_number
from bookbus.schemas.instruments import EXCHANGES, Instrument, TradingStatus

EXCHANGE = EXCHANGES["bybit"]

WS_URL = "wss://stream.bybit.com"
REST_URL = "https://api.bybit.com"

ARGUMENT_CHARACTERS = 21_000
"""Limit of the characters of all topics of a connection together."""

REQUESTS_PER_MINUTE = 600

_STATUS: dict[str, TradingStatus] = {"Trading": "trading", "PreLaunch": "halted", "Closed": "halted"}


class _Market(msgspec.Struct):
    """What a market needs to exist; anything else may be of any type."""

    symbol: str
    base: str = msgspec.field(name="baseCoin")
    quote: str = msgspec.field(name="quoteCoin")
    status: Any = ""
    lot: Any = msgspec.field(name="lotSizeFilter", default=None)
    price: Any = msgspec.field(name="priceFilter", default=None)


class _Markets(msgspec.Struct):
    markets: list[msgspec.Raw] = msgspec.field(name="list")


class _MarketsAnswer(msgspec.Struct):
    result: _Markets


class _Day(msgspec.Struct):
    symbol: str
    turnover: float = msgspec.field(name="turnover24h")


class _Days(msgspec.Struct):
    days: list[msgspec.Raw] = msgspec.field(name="list")


class _DaysAnswer(msgspec.Struct):
    result: _Days


_decode_markets = json_decoder(_MarketsAnswer, "an instruments-info answer", MetadataError)
_decode_entries = entry_decoder(_Market, "an instruments-info answer", MetadataError)
_decode_day_list = json_decoder(_DaysAnswer, "a list of 24-hour figures", RestError)
_decode_days = entry_decoder(_Day, "a list of 24-hour figures", RestError)


class Bybit(Venue):
    """Bybit spot as shared code sees it."""

    exchange = EXCHANGE
    ws_url = WS_URL
    rest_url = REST_URL
    modes = ("diff",)
    topics = TOPICS
    keepalive = '{"op":"ping"}'

    def stream_url(self, ws_url: str) -> str:
        return f"{ws_url.rstrip('/')}/v5/public/spot"

    def protocol(self, natives: Iterable[str] | None, options: FeedOptions, *, recorded: bool = False) -> VenueProtocol:
        return BybitProtocol(natives, options, recorded=recorded)

    def connections(self, natives: Sequence[str], options: FeedOptions) -> list[Sequence[str]]:
        longest = max((len(native) for native in natives), default=1) + len('"orderbook.1000.",')
        size = max(1, ARGUMENT_CHARACTERS // (longest * len(options.topics)))
        return [natives[start : start + size] for start in range(0, len(natives), size)]

    def rest(self, rest_url: str, timeout: float) -> RestClient:
        return RestClient(rest_url, WeightBudget(REQUESTS_PER_MINUTE), timeout)

    async def fetch_metadata(self, rest: RestClient) -> bytes:
        return await rest.get("/v5/market/instruments-info", {"category": "spot"}, 1)

    async def fetch_turnover(self, rest: RestClient) -> dict[str, float]:
        body = await rest.get("/v5/market/tickers", {"category": "spot"}, 1)
        return {day.symbol: day.turnover for day in _decode_days(_decode_day_list(body).result.days, {})}

    def instruments(self, metadata: bytes) -> list[Instrument]:
        skipped: dict[str, str] = {}
        markets: list[_Market] = _decode_entries(_decode_markets(metadata).result.markets, skipped)
        return InstrumentList(map(_instrument, markets), skipped).checked()


def _instrument(market: _Market) -> Instrument:
    return Instrument(
        EXCHANGE.id,
        market.base,
        market.quote,
        market.symbol,
        tick=_value(market.price, "tickSize"),
        step=_value(market.lot, "basePrecision"),
        minimum_notional=_value(market.lot, "minOrderAmt"),
        status=_STATUS.get(market.status, "unknown") if isinstance(market.status, str) else "unknown",
    )


def _value(rules: object, name: str) -> float | None:
    """A number of a market's rules; None where it cannot be read."""
    return plain_number(rules.get(name)) if isinstance(rules, dict) else None


VENUE = Bybit()
