"""Upbit Korea: sockets, requests and metadata. Its other regions are other markets, hence other exchange ids."""

import logging
from collections.abc import Iterable, Sequence

import msgspec

from bookbus.feeders.errors import MetadataError, RestError, RestRefusedError
from bookbus.feeders.exchanges.upbit_protocol import TOPICS, UpbitProtocol
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.venue import FeedOptions, Venue, VenueProtocol
from bookbus.schemas.decoding import json_decoder
from bookbus.schemas.instruments import EXCHANGES, Instrument

logger = logging.getLogger(__name__)

EXCHANGE = EXCHANGES["upbit"]

WS_URL = "wss://api.upbit.com"
REST_URL = "https://api.upbit.com"

REQUESTS_PER_MINUTE = 600
"""Ten a second; what was not used in one second is lost."""

_MARKETS_PATH = "/v1/market/all"
_TICKS_PATH = "/v1/orderbook/instruments"

_MARKETS_PER_REQUEST = 100
"""Keeps the address of a request near a thousand characters."""


class _Market(msgspec.Struct):
    market: str


class _Tick(msgspec.Struct):
    market: str
    tick_size: float | None = None


class _Day(msgspec.Struct):
    market: str
    turnover: float = msgspec.field(name="acc_trade_price_24h")


class _Metadata(msgspec.Struct):
    """The content of two kinds of answers, as it is cached. The tick of a market may be unknown."""

    markets: list[_Market]
    ticks: list[_Tick]


_decode_markets = json_decoder(list[_Market], "a list of markets", RestError)
_decode_ticks = json_decoder(list[_Tick], "a list of ticks", RestError)
_decode_days = json_decoder(list[_Day], "a list of 24-hour figures", RestError)
_decode_metadata = json_decoder(_Metadata, "a list of markets", MetadataError)
_encode_metadata = msgspec.json.Encoder().encode


class Upbit(Venue):
    """Upbit Korea as shared code sees it."""

    exchange = EXCHANGE
    ws_url = WS_URL
    rest_url = REST_URL
    networks = {"live": ("api.upbit.com",)}  # noqa: RUF012 - as in the interface
    modes = ("partial",)
    topics = TOPICS

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
        markets: list[_Market] = _decode_markets(await rest.get(_MARKETS_PATH, {}, 1))
        ticks: list[_Tick] = []
        for start in range(0, len(markets), _MARKETS_PER_REQUEST):
            names = ",".join(market.market for market in markets[start : start + _MARKETS_PER_REQUEST])
            try:
                ticks += _decode_ticks(await rest.get(_TICKS_PATH, {"markets": names}, 1))
            except RestRefusedError as error:
                logger.info("some markets without a tick size: %s", error)
            except RestError as error:
                # A limit or an outage: the books matter more than the rest of the ticks.
                logger.info("markets without a tick size: %s", error)
                break
        return _encode_metadata(_Metadata(markets, ticks))

    async def fetch_turnover(self, rest: RestClient) -> dict[str, float]:
        body = await rest.get("/v1/ticker/all", {"quote_currencies": "KRW,BTC,USDT"}, 1)
        return {day.market: day.turnover for day in _decode_days(body)}

    def instruments(self, metadata: bytes) -> list[Instrument]:
        """The instruments in what `fetch_metadata` returned. Raises MetadataError if it is not that."""
        known: _Metadata = _decode_metadata(metadata)
        ticks = {tick.market: tick.tick_size for tick in known.ticks}
        return [_instrument(market.market, ticks.get(market.market)) for market in known.markets]


def _instrument(native: str, tick: float | None) -> Instrument:
    """`status` stays unknown: the list does not contain whether a market trades now."""
    quote, separator, base = native.partition("-")
    if not (quote and separator and base):
        raise MetadataError(f"not a market: {native!r}")
    return Instrument(EXCHANGE.id, base, quote, native, tick=tick)


VENUE = Upbit()
