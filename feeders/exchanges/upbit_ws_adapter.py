"""Upbit Korea: sockets, requests and metadata. Its other regions are other markets, hence other exchange ids."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec

from bookbus.feeders.errors import MetadataError, RestError, RestRefusedError
from bookbus.feeders.exchanges.upbit_protocol import TOPICS, UpbitProtocol
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.venue import (
    DELISTED,
    FeedOptions,
    InstrumentList,
    MarketStatus,
    Top,
    Venue,
    VenueProtocol,
    level,
    listed_markets,
    market_status,
)
from bookbus.schemas.decoding import entry_decoder, json_decoder, plain_number
from bookbus.schemas.instruments import EXCHANGES, Instrument, TradingStatus

logger = logging.getLogger(__name__)

EXCHANGE = EXCHANGES["upbit"]

WS_URL = "wss://api.upbit.com"
REST_URL = "https://api.upbit.com"

REQUESTS_PER_MINUTE = 600
"""Ten a second; what was not used in one second is lost."""

_MARKETS_PATH = "/v1/market/all"
_TICKS_PATH = "/v1/orderbook/instruments"

_STATES: dict[str, TradingStatus] = {"ACTIVE": "trading", "PREVIEW": "halted", "DELISTED": "delisted"}
_WARNINGS: dict[str, TradingStatus] = {"NONE": "trading", "CAUTION": "warning"}

_MARKETS_PER_REQUEST = 100
"""Keeps the address of a request near a thousand characters."""


class _Market(msgspec.Struct):
    market: str


class _ListedMarket(msgspec.Struct):
    """What says whether a market trades. Answers differ by their age in which of these they have."""

    market: str
    event: Any = msgspec.field(default=None, name="market_event")
    warning: Any = msgspec.field(default="NONE", name="market_warning")
    state: Any = msgspec.field(default=None, name="market_state")


class _Tick(msgspec.Struct):
    market: str
    tick_size: Any = None


class _Day(msgspec.Struct):
    market: str
    turnover: float = msgspec.field(name="acc_trade_price_24h")


class _Unit(msgspec.Struct):
    bid_price: float
    bid_size: float
    ask_price: float
    ask_size: float


class _Orderbook(msgspec.Struct):
    market: str
    timestamp: int
    units: list[_Unit] = msgspec.field(name="orderbook_units")


class _Metadata(msgspec.Struct):
    """The content of two kinds of answers, as it is cached. The tick of a market may be unknown."""

    markets: list[msgspec.Raw]
    ticks: list[msgspec.Raw]


_decode_list = json_decoder(list[msgspec.Raw], "a list of markets", RestError)
_decode_markets = entry_decoder(_Market, "a list of markets", MetadataError)
_decode_tick_list = json_decoder(list[msgspec.Raw], "a list of ticks", RestError)
_decode_ticks = entry_decoder(_Tick, "a list of ticks", RestError)
_decode_day_list = json_decoder(list[msgspec.Raw], "a list of 24-hour figures", RestError)
_decode_days = entry_decoder(_Day, "a list of 24-hour figures", RestError)
_decode_books = json_decoder(list[_Orderbook], "a list of order books", RestError)
_decode_metadata = json_decoder(_Metadata, "a list of markets", MetadataError)
_encode_metadata = msgspec.json.Encoder().encode


class UpbitTops:
    """Whole books with the stream's ids, of as many markets as one request may name."""

    _FEW = 5
    _LEVELS = 30

    async def fetch(self, rest: RestClient, natives: Sequence[str]) -> Mapping[str, Top]:
        found: dict[str, Top] = {}
        for start in range(0, len(natives), _MARKETS_PER_REQUEST):
            found |= await self._fetch_some(rest, natives[start : start + _MARKETS_PER_REQUEST])
        return found

    async def _fetch_some(self, rest: RestClient, natives: Sequence[str]) -> Mapping[str, Top]:
        try:
            return await self._fetch(rest, natives)
        except RestRefusedError:
            # One market that is delisted fails the whole request.
            if len(natives) == 1:
                return {}
        found: dict[str, Top] = {}
        for native in natives[: self._FEW]:
            with suppress(RestRefusedError):
                found |= await self._fetch(rest, [native])
        return found

    async def _fetch(self, rest: RestClient, natives: Sequence[str]) -> dict[str, Top]:
        parameters: dict[str, str | int] = {"markets": ",".join(natives), "count": self._LEVELS}
        books: list[_Orderbook] = _decode_books(await rest.get("/v1/orderbook", parameters, 1))
        return {book.market: self._top(book) for book in books}

    def _top(self, book: _Orderbook) -> Top:
        bids = [each for unit in book.units for each in level(unit.bid_price, unit.bid_size)]
        asks = [each for unit in book.units for each in level(unit.ask_price, unit.ask_size)]
        return Top(tuple(bids), tuple(asks), self._LEVELS, book.timestamp, book.timestamp * 1000)


class Upbit(Venue):
    """Upbit Korea as shared code sees it."""

    exchange = EXCHANGE
    ws_url = WS_URL
    rest_url = REST_URL
    networks = {"live": ("api.upbit.com",)}  # noqa: RUF012 - as in the interface
    modes = ("partial",)
    topics = TOPICS
    tops = UpbitTops()

    def protocol(self, natives: Iterable[str] | None, options: FeedOptions, *, recorded: bool = False) -> VenueProtocol:
        return UpbitProtocol(natives, options, recorded=recorded)

    def connections(self, natives: Sequence[str], options: FeedOptions) -> list[Sequence[str]]:
        """The whole exchange fits on one socket."""
        return [natives] if natives else []

    def stream_url(self, ws_url: str) -> str:
        return f"{ws_url.rstrip('/')}/websocket/v1"

    def rest(self, rest_url: str, timeout: float) -> RestClient:
        return RestClient(rest_url, WeightBudget(REQUESTS_PER_MINUTE, burst=1.0), timeout)

    async def fetch_metadata(self, rest: RestClient) -> bytes:
        """The list of markets, with the ticks of those whose tick is known."""
        listed = _decode_list(await rest.get(_MARKETS_PATH, {}, 1))
        try:
            markets: list[_Market] = [market for market in _decode_markets(listed, {}) if _is_native(market.market)]
        except MetadataError as error:
            raise RestError(str(error)) from error
        ticks: list[msgspec.Raw] = []
        for start in range(0, len(markets), _MARKETS_PER_REQUEST):
            names = ",".join(market.market for market in markets[start : start + _MARKETS_PER_REQUEST])
            try:
                found = _decode_tick_list(await rest.get(_TICKS_PATH, {"markets": names}, 1))
                _decode_ticks(found, {})
                ticks += found
            except RestRefusedError as error:
                logger.info("some markets without a tick size: %s", error)
            except RestError as error:
                # A limit or an outage: the books matter more than the rest of the ticks.
                logger.info("markets without a tick size: %s", error)
                break
        return _encode_metadata(_Metadata(listed, ticks))

    async def fetch_trading(self, rest: RestClient, natives: Sequence[str]) -> Mapping[str, MarketStatus]:
        """By one request for all. A market in the list trades, unless the exchange says or warns otherwise."""
        body = await rest.get(_MARKETS_PATH, {"is_details": "true"}, 1, urgent=False)
        found = {market.market: _market_status(market) for market in listed_markets(body, _ListedMarket)}
        return {native: found.get(native, DELISTED) for native in natives}

    async def fetch_turnover(self, rest: RestClient) -> dict[str, float]:
        body = await rest.get("/v1/ticker/all", {"quote_currencies": "KRW,BTC,USDT"}, 1)
        return {day.market: day.turnover for day in _decode_days(_decode_day_list(body), {})}

    def instruments(self, metadata: bytes) -> list[Instrument]:
        """The instruments in what `fetch_metadata` returned. Raises MetadataError if it is not that."""
        known: _Metadata = _decode_metadata(metadata)
        ticks = _ticks(known.ticks)
        skipped: dict[str, str] = {}
        markets: list[_Market] = _decode_markets(known.markets, skipped)
        instruments = (_instrument(market.market, ticks.get(market.market)) for market in markets)
        return InstrumentList(instruments, skipped).checked()


def _ticks(entries: list[msgspec.Raw]) -> dict[str, float | None]:
    """By market; a market whose tick cannot be read has none."""
    try:
        return {tick.market: plain_number(tick.tick_size) for tick in _decode_ticks(entries, {})}
    except RestError:
        return {}


def _is_native(native: str) -> bool:
    quote, _, base = native.partition("-")
    return bool(quote and base) and native.isprintable() and not set(native) & set(", &?")


def _market_status(market: _ListedMarket) -> MarketStatus:
    if market.state is not None and (state := market_status(_STATES, market.state)).status != "trading":
        return state
    if not isinstance(market.event, dict):
        return market_status(_WARNINGS, market.warning)
    warning, cautions = market.event.get("warning", False), market.event.get("caution") or {}
    if warning is True:
        return MarketStatus("warning", "market_event.warning")
    if warning is not False or not isinstance(cautions, dict):
        return MarketStatus("unknown", f"market_event {market.event}"[:80])
    # Whatever is not off warns, also what has no name here.
    if named := [str(name) for name, is_on in cautions.items() if is_on not in (False, None)]:
        return MarketStatus("caution", " ".join(named)[:80])
    return MarketStatus("trading")


def _instrument(native: str, tick: float | None) -> Instrument:
    """`status` stays unknown: the cached list does not contain whether a market trades now."""
    quote, _, base = native.partition("-")
    return Instrument(EXCHANGE.id, base, quote, native, tick=tick)


VENUE = Upbit()
