"""Bybit spot: sockets and metadata. Its derivatives are other markets, hence other exchange ids."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from bookbus.feeders.books.events import SnapshotNeeded
from bookbus.feeders.errors import MetadataError, RestError
from bookbus.feeders.exchanges.bybit_protocol import TOPICS, BybitProtocol, decode_full_book
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

EXCHANGE = EXCHANGES["bybit"]

WS_URL = "wss://stream.bybit.com"
REST_URL = "https://api.bybit.com"

ARGUMENT_CHARACTERS = 21_000
"""Limit of the characters of all topics of a connection together."""

REQUESTS_PER_MINUTE = 600

_FULL_BOOK_PATH = "/v5/market/full_orderbook"
_FULL_BOOK_WEIGHT = 20
"""Requests that one counts for here: its answer has half a megabyte."""

_STATUS: dict[str, TradingStatus] = {
    "Trading": "trading",
    **dict.fromkeys(("PreLaunch", "Settling", "Delivering"), "halted"),
    "Closed": "delisted",
}
_INFO_PATH = "/v5/market/instruments-info"


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


class _Ticker(msgspec.Struct):
    """Best prices; empty texts stand for an empty side."""

    symbol: str
    bid: str = msgspec.field(name="bid1Price", default="")
    bid_quantity: str = msgspec.field(name="bid1Size", default="")
    ask: str = msgspec.field(name="ask1Price", default="")
    ask_quantity: str = msgspec.field(name="ask1Size", default="")

    @property
    def top(self) -> Top:
        values = [float(text or 0) for text in (self.bid, self.bid_quantity, self.ask, self.ask_quantity)]
        return Top(level(values[0], values[1]), level(values[2], values[3]), 1)


class _Tickers(msgspec.Struct):
    tickers: list[_Ticker] = msgspec.field(name="list")


class _TickersAnswer(msgspec.Struct):
    result: _Tickers


class _Orderbook(msgspec.Struct):
    """Its ids are those of another depth than ours; `matched_ms` is the matching engine's time."""

    bids: list[tuple[float, float]] = msgspec.field(name="b")
    asks: list[tuple[float, float]] = msgspec.field(name="a")
    matched_ms: int | None = msgspec.field(name="cts", default=None)


class _OrderbookAnswer(msgspec.Struct):
    result: _Orderbook


class _Days(msgspec.Struct):
    days: list[msgspec.Raw] = msgspec.field(name="list")


class _DaysAnswer(msgspec.Struct):
    result: _Days


_decode_markets = json_decoder(_MarketsAnswer, "an instruments-info answer", MetadataError)
_decode_entries = entry_decoder(_Market, "an instruments-info answer", MetadataError)
_decode_day_list = json_decoder(_DaysAnswer, "a list of 24-hour figures", RestError)
_decode_days = entry_decoder(_Day, "a list of 24-hour figures", RestError)


_decode_tickers = json_decoder(_TickersAnswer, "a list of best prices", RestError)
_decode_orderbook = json_decoder(_OrderbookAnswer, "an order book", RestError)


class BybitTops:
    """Books of few symbols one by one, else all best prices in one answer."""

    _FEW = 5
    _LEVELS = 50

    async def fetch(self, rest: RestClient, natives: Sequence[str]) -> Mapping[str, Top]:
        if len(natives) > self._FEW:
            tickers: _TickersAnswer = _decode_tickers(await rest.get("/v5/market/tickers", {"category": "spot"}, 1))
            try:
                return {each.symbol: each.top for each in tickers.result.tickers}
            except ValueError as error:
                raise RestError(f"a list of best prices: {error}") from error
        found = {native: await self._fetch_one(rest, native) for native in natives}
        return {native: top for native, top in found.items() if top is not None}

    async def _fetch_one(self, rest: RestClient, native: str) -> Top | None:
        parameters: dict[str, str | int] = {"category": "spot", "symbol": native, "limit": self._LEVELS}
        body = await rest.get("/v5/market/orderbook", parameters, 1)
        try:
            answer: _OrderbookAnswer = _decode_orderbook(body)
        except RestError:
            return None  # an error in an answer of status 200: delisted
        book = answer.result
        at_us = None if book.matched_ms is None else book.matched_ms * 1000
        return Top(tuple(book.bids), tuple(book.asks), self._LEVELS, exchange_us=at_us)


class BybitBooks:
    """Full books by request, for comparisons: 10,000 levels a side (docs/v5/market/full-ob).

    Their `u` counts another stream than the books that are followed; `seq` is the engine's counter in both.
    """

    decode = staticmethod(decode_full_book)

    def request_of(self, url: str) -> None:
        """No book is built from them."""

    async def fetch(self, rest: RestClient, need: SnapshotNeeded) -> tuple[str, bytes]:
        parameters: dict[str, str | int] = {"category": "spot", "symbol": need.native}
        body = await rest.get(_FULL_BOOK_PATH, parameters, _FULL_BOOK_WEIGHT, urgent=need.urgent)
        return rest.url(_FULL_BOOK_PATH, parameters), body


class BybitAudit:
    """Full books, and the list of all best prices."""

    levels = 10_000
    snapshots: VenueSnapshots | None = BybitBooks()
    lead = 0.5

    async def fetch_best_prices(self, rest: RestClient) -> Mapping[str, BestPrices]:
        body = await rest.get("/v5/market/tickers", {"category": "spot"}, 1, urgent=False)
        tickers: list[_Ticker] = _decode_tickers(body).result.tickers
        return {ticker.symbol: BestPrices(_price(ticker.bid), _price(ticker.ask)) for ticker in tickers}


def _price(value: float | str | None) -> float | None:
    try:
        return float(value or 0) or None
    except ValueError:
        return None


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
    audit = BybitAudit()
    keepalive = '{"op":"ping"}'
    tops = BybitTops()

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
        return await rest.get(_INFO_PATH, {"category": "spot"}, 1)

    async def fetch_trading(self, rest: RestClient, natives: Sequence[str]) -> Mapping[str, MarketStatus]:
        """By one request for all: the list has no pages, and of spot only the markets that trade."""
        body = await rest.get(_INFO_PATH, {"category": "spot"}, 1, urgent=False)
        markets = listed_markets(body, ListedMarket, "result", "list")
        found = {market.symbol: market_status(_STATUS, market.status) for market in markets}
        return {native: found.get(native, DELISTED) for native in natives}

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
        status=market_status(_STATUS, market.status).status,
    )


def _value(rules: object, name: str) -> float | None:
    """A number of a market's rules; None where it cannot be read."""
    return plain_number(rules.get(name)) if isinstance(rules, dict) else None


VENUE = Bybit()
