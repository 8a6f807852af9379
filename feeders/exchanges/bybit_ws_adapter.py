"""Bybit spot: sockets and metadata. Its derivatives are other markets, hence other exchange ids."""

from collections.abc import Iterable, Sequence

import msgspec

from bookbus.feeders.errors import MetadataError, RestError
from bookbus.feeders.exchanges.bybit_protocol import TOPICS, BybitProtocol
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.venue import FeedOptions, Venue, VenueProtocol
from bookbus.schemas.decoding import json_decoder
from bookbus.schemas.instruments import EXCHANGES, Instrument, TradingStatus

EXCHANGE = EXCHANGES["bybit"]

WS_URL = "wss://stream.bybit.com"
REST_URL = "https://api.bybit.com"

ARGUMENT_CHARACTERS = 21_000
"""Limit of the characters of all topics of a connection together."""

REQUESTS_PER_MINUTE = 600

_STATUS: dict[str, TradingStatus] = {"Trading": "trading", "PreLaunch": "halted", "Closed": "halted"}


class _Lot(msgspec.Struct):
    step: float | None = msgspec.field(name="basePrecision", default=None)
    minimum_amount: float | None = msgspec.field(name="minOrderAmt", default=None)


class _Price(msgspec.Struct):
    tick: float | None = msgspec.field(name="tickSize", default=None)


class _Market(msgspec.Struct):
    symbol: str
    base: str = msgspec.field(name="baseCoin")
    quote: str = msgspec.field(name="quoteCoin")
    status: str = ""
    lot: _Lot = msgspec.field(name="lotSizeFilter", default_factory=_Lot)
    price: _Price = msgspec.field(name="priceFilter", default_factory=_Price)


class _Markets(msgspec.Struct):
    markets: list[_Market] = msgspec.field(name="list")


class _MarketsAnswer(msgspec.Struct):
    result: _Markets


class _Day(msgspec.Struct):
    symbol: str
    turnover: float = msgspec.field(name="turnover24h")


class _Days(msgspec.Struct):
    days: list[_Day] = msgspec.field(name="list")


class _DaysAnswer(msgspec.Struct):
    result: _Days


_decode_markets = json_decoder(_MarketsAnswer, "an instruments-info answer", MetadataError)
_decode_days = json_decoder(_DaysAnswer, "a list of 24-hour figures", RestError)


class Bybit(Venue):
    """Bybit spot as shared code sees it."""

    exchange = EXCHANGE
    ws_url = WS_URL
    rest_url = REST_URL
    networks = {  # noqa: RUF012 - as in the interface
        "live": ("stream.bybit.com", "api.bybit.com", "api.bytick.com"),
        "testnet": ("stream-testnet.bybit.com", "api-testnet.bybit.com"),
    }
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
        return {day.symbol: day.turnover for day in _decode_days(body).result.days}

    def instruments(self, metadata: bytes) -> list[Instrument]:
        markets: list[_Market] = _decode_markets(metadata).result.markets
        return [
            Instrument(
                EXCHANGE.id,
                market.base,
                market.quote,
                market.symbol,
                tick=market.price.tick,
                step=market.lot.step,
                minimum_notional=market.lot.minimum_amount,
                status=_STATUS.get(market.status, "unknown"),
            )
            for market in markets
        ]


VENUE = Bybit()
