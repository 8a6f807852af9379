"""Binance spot: sockets, requests and metadata."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bookbus.feeders.books.events import SnapshotNeeded
from bookbus.feeders.errors import MetadataError, RestError
from bookbus.feeders.exchanges.binance_protocol import BinanceProtocol, decode_answer, request_of
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.venue import BestPrices, FeedOptions, Venue, VenueProtocol
from bookbus.schemas.decoding import json_decoder
from bookbus.schemas.instruments import EXCHANGES, Instrument, TradingStatus

EXCHANGE = EXCHANGES["binance"]

# The hosts that serve market data only: no key, no trading surface.
WS_URL = "wss://data-stream.binance.vision"
REST_URL = "https://data-api.binance.vision"

WEIGHT_PER_MINUTE = 6_000
STREAMS_PER_CONNECTION = 1_024

LIFETIME = 23 * 3600.0
"""Seconds. The exchange cuts every connection after 24 hours."""

_URGENT_PATIENCE = 3.0
"""Seconds for an answer that a book waits for: it has few levels, and asking again is cheap."""

_DEPTH_PATH = "/api/v3/depth"
_DEPTH_WEIGHTS = ((100, 5), (500, 25), (1_000, 50), (5_000, 250))
_STATUS: dict[str, TradingStatus] = {"TRADING": "trading", "HALT": "halted", "BREAK": "halted", "CANCEL_ONLY": "halted"}


class _Filter(msgspec.Struct):
    kind: str = msgspec.field(name="filterType")
    tick_size: float | None = msgspec.field(name="tickSize", default=None)
    step_size: float | None = msgspec.field(name="stepSize", default=None)
    minimum_notional: float | None = msgspec.field(name="minNotional", default=None)


class _Symbol(msgspec.Struct):
    symbol: str
    base: str = msgspec.field(name="baseAsset")
    quote: str = msgspec.field(name="quoteAsset")
    status: str = ""
    filters: list[_Filter] = []


class _Day(msgspec.Struct):
    symbol: str
    turnover: float = msgspec.field(name="quoteVolume")


class _ExchangeInfo(msgspec.Struct):
    symbols: list[_Symbol]


class _Ticker(msgspec.Struct):
    """Best prices; zero stands for an empty side."""

    symbol: str
    bid: float = msgspec.field(name="bidPrice")
    ask: float = msgspec.field(name="askPrice")


_decode_info = json_decoder(_ExchangeInfo, "an exchangeInfo answer", MetadataError)
_decode_days = json_decoder(list[_Day], "a list of 24-hour figures", RestError)
_decode_tickers = json_decoder(list[_Ticker], "a list of best prices", RestError)


class BinanceSnapshots:
    """Depth requests."""

    decode = staticmethod(decode_answer)
    request_of = staticmethod(request_of)

    async def fetch(self, rest: RestClient, need: SnapshotNeeded) -> tuple[str, bytes]:
        weight = next(weight for levels, weight in _DEPTH_WEIGHTS if need.limit <= levels)
        parameters: dict[str, str | int] = {"symbol": need.native, "limit": need.limit}
        patience = _URGENT_PATIENCE if need.urgent else None
        body = await rest.get(_DEPTH_PATH, parameters, weight, urgent=need.urgent, patience=patience)
        return rest.url(_DEPTH_PATH, parameters), body


class BinanceAudit:
    """Depth answers of weight 5, and the list of all best prices, of weight 4."""

    levels = 100

    async def fetch_best_prices(self, rest: RestClient) -> Mapping[str, BestPrices]:
        body = await rest.get("/api/v3/ticker/bookTicker", {}, 4, urgent=False)
        tickers: list[_Ticker] = _decode_tickers(body)
        return {ticker.symbol: BestPrices(ticker.bid or None, ticker.ask or None) for ticker in tickers}


class Binance(Venue):
    """Binance spot as shared code sees it."""

    exchange = EXCHANGE
    ws_url = WS_URL
    rest_url = REST_URL
    networks = {  # noqa: RUF012 - as in the interface
        "live": (
            *("data-stream.binance.vision", "stream.binance.com", "data-api.binance.vision", "api.binance.com"),
            *("api-gcp.binance.com", "api1.binance.com", "api2.binance.com", "api3.binance.com", "api4.binance.com"),
        ),
        "testnet": ("stream.testnet.binance.vision", "testnet.binance.vision", "api1.testnet.binance.vision"),
        "demo": ("demo-stream.binance.com", "demo-api.binance.com"),
    }
    lifetime = LIFETIME
    modes = ("diff", "partial")
    topics = ("book", "quote", "trades")
    snapshots = BinanceSnapshots()
    audit = BinanceAudit()

    def protocol(self, natives: Iterable[str] | None, options: FeedOptions, *, recorded: bool = False) -> VenueProtocol:
        return BinanceProtocol(natives, options, recorded=recorded)

    def connections(self, natives: Sequence[str], options: FeedOptions) -> list[Sequence[str]]:
        size = STREAMS_PER_CONNECTION // len(options.topics)
        return [natives[start : start + size] for start in range(0, len(natives), size)]

    def stream_url(self, ws_url: str) -> str:
        return f"{ws_url.rstrip('/')}/stream"

    def rest(self, rest_url: str, timeout: float) -> RestClient:
        return RestClient(rest_url, WeightBudget(WEIGHT_PER_MINUTE), timeout, "X-MBX-USED-WEIGHT-1M")

    async def fetch_metadata(self, rest: RestClient) -> bytes:
        return await rest.get("/api/v3/exchangeInfo", {}, 20)

    async def fetch_turnover(self, rest: RestClient) -> dict[str, float]:
        body = await rest.get("/api/v3/ticker/24hr", {"type": "MINI"}, 80)
        return {day.symbol: day.turnover for day in _decode_days(body)}

    def instruments(self, metadata: bytes) -> list[Instrument]:
        return [_instrument(symbol) for symbol in _decode_info(metadata).symbols]


def _instrument(symbol: _Symbol) -> Instrument:
    filters = {entry.kind: entry for entry in symbol.filters}
    return Instrument(
        EXCHANGE.id,
        symbol.base,
        symbol.quote,
        symbol.symbol,
        tick=_value(filters, "PRICE_FILTER", "tick_size"),
        step=_value(filters, "LOT_SIZE", "step_size"),
        minimum_notional=_value(filters, "NOTIONAL", "minimum_notional"),
        status=_STATUS.get(symbol.status, "unknown"),
    )


def _value(filters: dict[str, _Filter], kind: str, name: str) -> float | None:
    entry: Any = filters.get(kind)
    return None if entry is None else getattr(entry, name)


VENUE = Binance()
