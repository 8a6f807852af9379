"""Binance spot: sockets, requests and metadata."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bookbus.feeders.books.events import SnapshotNeeded
from bookbus.feeders.errors import MetadataError, RestError, RestRefusedError
from bookbus.feeders.exchanges.binance_protocol import BinanceProtocol, decode_answer, request_of
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.venue import (
    DELISTED,
    BestPrices,
    FeedOptions,
    InstrumentList,
    ListedMarket,
    MarketStatus,
    Top,
    Venue,
    VenueProtocol,
    VenueSnapshots,
    level,
    listed_markets,
    market_status,
)
from bookbus.schemas.decoding import entry_decoder, json_decoder, plain_number
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
_TICKER_PATH = "/api/v3/ticker/bookTicker"
_DEPTH_WEIGHTS = ((100, 5), (500, 25), (1_000, 50), (5_000, 250))
_STATUS: dict[str, TradingStatus] = {
    "TRADING": "trading",
    "AUCTION_MATCH": "auction",
    **dict.fromkeys(("HALT", "BREAK", "CANCEL_ONLY", "END_OF_DAY", "PRE_TRADING", "POST_TRADING"), "halted"),
}
_INFO_PATH = "/api/v3/exchangeInfo"
_INFO_WEIGHT = 20
_NAMES_PER_REQUEST = 100
"""Keeps the address of a request near two thousand characters; its weight does not depend on the names."""

_MOST_NAMED = 500
"""For more symbols, the whole list costs less."""


class _Filter(msgspec.Struct):
    kind: str = msgspec.field(name="filterType")
    tick_size: Any = msgspec.field(name="tickSize", default=None)
    step_size: Any = msgspec.field(name="stepSize", default=None)
    minimum_notional: Any = msgspec.field(name="minNotional", default=None)


class _Symbol(msgspec.Struct):
    """What a market needs to exist; anything else may be of any type."""

    symbol: str
    base: str = msgspec.field(name="baseAsset")
    quote: str = msgspec.field(name="quoteAsset")
    status: Any = ""
    filters: msgspec.Raw = msgspec.Raw(b"[]")


class _Day(msgspec.Struct):
    symbol: str
    turnover: float = msgspec.field(name="quoteVolume")


class _ExchangeInfo(msgspec.Struct):
    symbols: list[msgspec.Raw]


class _Ticker(msgspec.Struct):
    """Best prices; zero stands for an empty side."""

    symbol: str
    bid: float = msgspec.field(name="bidPrice")
    ask: float = msgspec.field(name="askPrice")
    bid_quantity: float = msgspec.field(name="bidQty", default=0.0)
    ask_quantity: float = msgspec.field(name="askQty", default=0.0)


_decode_info = json_decoder(_ExchangeInfo, "an exchangeInfo answer", MetadataError)
_decode_symbols = entry_decoder(_Symbol, "an exchangeInfo answer", MetadataError)
_decode_filters = entry_decoder(_Filter, "a list of filters", ValueError)
_decode_entries = json_decoder(list[msgspec.Raw], "a list", ValueError)
_decode_day_list = json_decoder(list[msgspec.Raw], "a list of 24-hour figures", RestError)
_decode_days = entry_decoder(_Day, "a list of 24-hour figures", RestError)
_decode_ticker_list = json_decoder(list[msgspec.Raw], "a list of best prices", RestError)
_decode_tickers = entry_decoder(_Ticker, "a list of best prices", RestError)


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
    snapshots: VenueSnapshots | None = None
    lead = 0.0

    async def fetch_best_prices(self, rest: RestClient) -> Mapping[str, BestPrices]:
        body = await rest.get(_TICKER_PATH, {}, 4, urgent=False)
        tickers: list[_Ticker] = _decode_tickers(_decode_ticker_list(body), {})
        return {ticker.symbol: BestPrices(ticker.bid or None, ticker.ask or None) for ticker in tickers}


class BinanceTops:
    """Best levels by REST: one depth request a symbol for few symbols, else one request for all best prices."""

    _FEW = 3
    _LEVELS = 20

    async def fetch(self, rest: RestClient, natives: Sequence[str]) -> Mapping[str, Top]:
        if len(natives) > self._FEW:
            body = await rest.get(_TICKER_PATH, {}, 4)
            tickers: list[_Ticker] = _decode_tickers(_decode_ticker_list(body), {})
            return {
                each.symbol: Top(level(each.bid, each.bid_quantity), level(each.ask, each.ask_quantity), 1)
                for each in tickers
            }
        found = {native: await self._fetch_one(rest, native) for native in natives}
        return {native: top for native, top in found.items() if top is not None}

    async def _fetch_one(self, rest: RestClient, native: str) -> Top | None:
        try:
            body = await rest.get(_DEPTH_PATH, {"symbol": native, "limit": self._LEVELS}, 5)
        except RestRefusedError:
            return None  # delisted
        book = decode_answer(body)
        return Top(tuple(book.bids), tuple(book.asks), self._LEVELS, book.last_id)


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
    tops = BinanceTops()

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
        return await rest.get(_INFO_PATH, {}, _INFO_WEIGHT)

    async def fetch_trading(self, rest: RestClient, natives: Sequence[str]) -> Mapping[str, MarketStatus]:
        found: dict[str, MarketStatus] = {}
        if len(natives) > _MOST_NAMED:
            found = _statuses(await rest.get(_INFO_PATH, {}, _INFO_WEIGHT, urgent=False))
            return {native: found.get(native, DELISTED) for native in natives}
        for start in range(0, len(natives), _NAMES_PER_REQUEST):
            names = json.dumps(natives[start : start + _NAMES_PER_REQUEST], separators=(",", ":"), ensure_ascii=False)
            try:
                body = await rest.get(_INFO_PATH, {"symbols": names}, _INFO_WEIGHT, urgent=False)
            except RestRefusedError:
                # One name that the exchange no longer knows refuses the whole request.
                found = _statuses(await rest.get(_INFO_PATH, {}, _INFO_WEIGHT, urgent=False))
                break
            found |= _statuses(body)
        return {native: found.get(native, DELISTED) for native in natives}

    async def fetch_turnover(self, rest: RestClient) -> dict[str, float]:
        body = await rest.get("/api/v3/ticker/24hr", {"type": "MINI"}, 80)
        return {day.symbol: day.turnover for day in _decode_days(_decode_day_list(body), {})}

    def instruments(self, metadata: bytes) -> list[Instrument]:
        skipped: dict[str, str] = {}
        symbols: list[_Symbol] = _decode_symbols(_decode_info(metadata).symbols, skipped)
        return InstrumentList(map(_instrument, symbols), skipped).checked()


def _statuses(body: bytes) -> dict[str, MarketStatus]:
    markets = listed_markets(body, ListedMarket, "symbols")
    return {market.symbol: market_status(_STATUS, market.status) for market in markets}


def _instrument(symbol: _Symbol) -> Instrument:
    filters = _filters(symbol.filters)
    return Instrument(
        EXCHANGE.id,
        symbol.base,
        symbol.quote,
        symbol.symbol,
        tick=_value(filters, "PRICE_FILTER", "tick_size"),
        step=_value(filters, "LOT_SIZE", "step_size"),
        minimum_notional=_value(filters, "NOTIONAL", "minimum_notional"),
        status=market_status(_STATUS, symbol.status).status,
    )


def _filters(raw: msgspec.Raw) -> dict[str, _Filter]:
    """By kind; what cannot be read limits no order."""
    try:
        entries: list[_Filter] = _decode_filters(_decode_entries(raw), {})
    except ValueError:
        return {}
    return {entry.kind: entry for entry in entries}


def _value(filters: dict[str, _Filter], kind: str, name: str) -> float | None:
    return plain_number(getattr(filters.get(kind), name, None))


VENUE = Binance()
