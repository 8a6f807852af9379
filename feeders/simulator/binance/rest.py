"""Binance spot's public REST API: depth, exchangeInfo, time, ping, tickers; weights and errors."""

import time
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import NamedTuple

import msgspec

from bookbus.feeders.simulator.binance import messages
from bookbus.feeders.simulator.binance.settings import BinanceRules, BinanceSettings
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.feed import BookAt, MarketFeed
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, RestApi, RestError, json_response
from bookbus.feeders.simulator.core.limits import Bans
from bookbus.feeders.simulator.core.market import DECIMALS, Quote, SimulatedInstrument, decimal_text

_DELISTED = (
    SimulatedInstrument("BCCBTC", "BCC", "BTC", 6, 3, 61_000, 100),
    SimulatedInstrument("HNTUSDT", "HNT", "USDT", 4, 3, 61_000, 100),
)
_GREATEST_TURNOVER = 2_000_000_000
_ORDER_TYPES = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"]


def exchange_info(
    instruments: Iterable[SimulatedInstrument], rules: BinanceRules, time: int, *, with_delisted: bool
) -> dict[str, object]:
    """The whole answer."""
    symbols = [_symbol(instrument, "TRADING") for instrument in instruments]
    if with_delisted:
        named = {symbol["symbol"] for symbol in symbols}
        symbols += [_symbol(gone, "BREAK") for gone in _DELISTED if gone.native not in named]
    return {
        "timezone": "UTC",
        "serverTime": time,
        "rateLimits": [
            _rate_limit("REQUEST_WEIGHT", "MINUTE", 1, rules.weight),
            _rate_limit("ORDERS", "SECOND", 10, 100),
            _rate_limit("ORDERS", "DAY", 1, 200_000),
            _rate_limit("RAW_REQUESTS", "MINUTE", 5, 300_000),
        ],
        "exchangeFilters": [],
        "symbols": symbols,
    }


def day_statistics(instrument: SimulatedInstrument, quote: Quote, rank: int, time: int) -> dict[str, object]:
    """Synthetic figures of a day in the short form. The greatest turnover has `rank` 0."""
    price, (last, _) = instrument.price_text(instrument.start_ticks), quote.bid
    volume = round(_GREATEST_TURNOVER / (rank + 1) / instrument.price(last) * 10**instrument.step_decimals)
    traded = round(instrument.price(last) * instrument.quantity(volume) * 10**DECIMALS)
    return {
        "symbol": instrument.native,
        "openPrice": price,
        "highPrice": instrument.price_text(max(instrument.start_ticks, last)),
        "lowPrice": instrument.price_text(min(instrument.start_ticks, last)),
        "lastPrice": instrument.price_text(last),
        "volume": instrument.quantity_text(volume),
        "quoteVolume": decimal_text(traded, DECIMALS),
        "openTime": time - 86_400_000,
        "closeTime": time,
        "firstId": 1,
        "lastId": volume,
        "count": volume,
    }


def _rate_limit(kind: str, interval: str, number: int, limit: int) -> dict[str, object]:
    return {"rateLimitType": kind, "interval": interval, "intervalNum": number, "limit": limit}


def _symbol(instrument: SimulatedInstrument, status: str) -> dict[str, object]:
    return {
        "symbol": instrument.native,
        "status": status,
        "baseAsset": instrument.base,
        "baseAssetPrecision": 8,
        "quoteAsset": instrument.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": _ORDER_TYPES,
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": _filters(instrument),
        "permissions": [],
        "permissionSets": [["SPOT"]],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT"],
    }


def _filters(instrument: SimulatedInstrument) -> list[dict[str, object]]:
    tick, step = decimal_text(1, instrument.tick_decimals), decimal_text(1, instrument.step_decimals)
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": tick,
            "maxPrice": instrument.price_text(instrument.start_ticks * 100),
            "tickSize": tick,
        },
        {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000.00000000", "stepSize": step},
        {"filterType": "ICEBERG_PARTS", "limit": 10},
        {
            "filterType": "MARKET_LOT_SIZE",
            "minQty": "0.00000000",
            "maxQty": "120000.00000000",
            "stepSize": "0.00000000",
        },
        {
            "filterType": "TRAILING_DELTA",
            "minTrailingAboveDelta": 10,
            "maxTrailingAboveDelta": 2000,
            "minTrailingBelowDelta": 10,
            "maxTrailingBelowDelta": 2000,
        },
        {
            "filterType": "PERCENT_PRICE_BY_SIDE",
            "bidMultiplierUp": "5",
            "bidMultiplierDown": "0.2",
            "askMultiplierUp": "5",
            "askMultiplierDown": "0.2",
            "avgPriceMins": 5,
        },
        {
            "filterType": "NOTIONAL",
            "minNotional": "5.00000000",
            "applyMinToMarket": True,
            "maxNotional": "9000000.00000000",
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
        {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
        {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
    ]


class Verdict(NamedTuple):
    """Status of a request for its weight: 200, 429 or 418; `retry_after` in whole seconds."""

    status: int
    retry_after: int


class RequestWeight:
    """One address's budget. `clock` is monotonic."""

    def __init__(self, rules: BinanceRules, clock: Callable[[], float]) -> None:
        self._rules = rules
        self._clock = clock
        self._window_end = clock() + rules.weight_window
        self._bans = Bans(rules.requests_until_ban, rules.ban)
        self._used = 0
        self.highest = 0
        """Most weight used in one window."""
        self.total = 0
        """Weight used since the start."""

    @property
    def used(self) -> int:
        """Weight used in the running window."""
        now = self._clock()
        if now >= self._window_end:
            self._window_end = now + self._rules.weight_window
            self._used = self._bans.refusals = 0
        return self._used

    def charge(self, weight: int) -> Verdict:
        """Count a request."""
        used, now = self.used + weight, self._clock()
        if seconds := self._bans.check(now):
            return Verdict(418, _whole_seconds(seconds))
        self._used = used
        self.total += weight
        self.highest = max(self.highest, used)
        if used <= self._rules.weight:
            return Verdict(200, 0)
        if seconds := self._bans.refuse(now):
            return Verdict(418, _whole_seconds(seconds))
        return Verdict(429, _whole_seconds(self._window_end - now))


def _whole_seconds(seconds: float) -> int:
    """Rounded up, but not for the rounding error of a sum: (214.21 + 120) - 214.21 is slightly above 120."""
    return ceil(round(seconds, 6))


_RESTRICTED = (
    "Service unavailable from a restricted location according to 'b. Eligibility' in "
    "https://www.binance.com/en/terms. Please contact customer service if you believe you received this message "
    "in error."
)
_TOO_MUCH = (
    "Too much request weight used; current limit is {limit} request weight per 1 MINUTE. "
    "Please use WebSocket Streams for live updates to avoid polling the API."
)
_BANNED = (
    "Way too much request weight used; IP banned until {until}. "
    "Please use WebSocket Streams for live updates to avoid bans."
)
_DEFAULT_LIMIT = 100
_MAXIMUM_LIMIT = 5000


class BinanceRest(RestApi[MarketFeed]):
    """Answers `/api/v3/…` from the feeds."""

    def __init__(self, settings: BinanceSettings, markets: Mapping[str, MarketFeed], faults: FaultBoard) -> None:
        super().__init__(settings, markets, faults)
        self._settings = settings
        self._weight = RequestWeight(settings.rules, time.monotonic)
        self._routes: dict[str, Callable[[HttpRequest], object]] = {
            "/api/v3/ping": lambda _: {},
            "/api/v3/time": lambda _: {"serverTime": _now_ms()},
            "/api/v3/exchangeInfo": self._exchange_info,
            "/api/v3/depth": self._depth,
            "/api/v3/ticker/bookTicker": self._book_ticker,
            "/api/v3/ticker/24hr": self._day,
        }

    def status(self) -> dict[str, object]:
        weight = self._weight
        return {
            **super().status(),
            "weight_used": weight.used,
            "weight_highest": weight.highest,
            "weight_total": weight.total,
        }

    def _respond(self, request: HttpRequest) -> HttpResponse:
        route = self._routes.get(request.path)
        if route is None or request.method != "GET":
            return HttpResponse(404, b"<html><body><h2>404 Not found</h2></body></html>", content_type="text/html")
        verdict = self._weight.charge(_weight(request))
        if verdict.status != 200:
            return self._refused(verdict.status, verdict.retry_after)
        try:
            body = route(request)
        except RestError as error:
            return json_response({"code": error.code, "msg": error.message}, error.status, self._headers())
        encoded = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
        return HttpResponse(200, encoded, self._headers())

    def _headers(self) -> dict[str, str]:
        used = str(self._weight.used)
        return {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used}

    def _refused(self, status: int, retry_after: int) -> HttpResponse:
        until = _now_ms() + retry_after * 1000
        message = (_TOO_MUCH if status == 429 else _BANNED).format(limit=self._settings.rules.weight, until=until)
        headers = self._headers() | {"Retry-After": str(retry_after)}
        return json_response({"code": -1003, "msg": message}, status, headers)

    def _faulty_status(self, fault: Fault) -> HttpResponse:
        status = int(fault.number(503))
        if status in (418, 429):
            return self._refused(status, max(1, _whole_seconds(self._faults.remaining(fault) or 1)))
        if status == 451:
            return json_response({"code": 0, "msg": _RESTRICTED}, status)
        if status == 403:
            return HttpResponse(status, b"<html><body><h1>403 ERROR</h1></body></html>", content_type="text/html")
        return json_response({"code": -1000, "msg": "An unknown error occurred while processing the request."}, status)

    def _depth(self, request: HttpRequest) -> str:
        feed = self._feed(request)
        wanted = request.query.get("symbolStatus", "TRADING")
        if wanted not in ("TRADING", "HALT", "BREAK"):
            raise RestError(400, -1122, "Invalid symbolStatus.")
        if wanted != "TRADING":
            raise RestError(400, -1220, "The symbol's status does not match the requested symbolStatus.")
        symbol = feed.instrument.native
        if self._faults.match("stale_snapshot", symbol=symbol):
            book = feed.stale_snapshot(_limit(request))
        else:
            book = feed.snapshot(_limit(request), self._settings.snapshot_mode)
        if self._faults.match("empty_snapshot", symbol=symbol):
            book = BookAt(book.update_id, [], book.asks)
        self._faults.snapshot_served(symbol)
        return messages.book_text(feed.instrument, book)

    def _exchange_info(self, request: HttpRequest) -> object:
        query = request.query
        if "symbols" in query:
            try:
                names = msgspec.json.decode(query["symbols"], type=list[str])
            except msgspec.MsgspecError:
                raise RestError(400, -1100, "Illegal characters found in parameter 'symbols'.") from None
        else:
            names = [query["symbol"]] if "symbol" in query else list(self._markets)
        if any(name not in self._markets for name in names):
            raise RestError(400, -1121, "Invalid symbol.")
        everything = "symbol" not in query and "symbols" not in query
        instruments = [self._markets[name].instrument for name in names]
        return exchange_info(instruments, self._settings.rules, _now_ms(), with_delisted=everything)

    def _book_ticker(self, request: HttpRequest) -> object:
        if "symbol" in request.query:
            return _book_ticker(self._feed(request))
        return [_book_ticker(feed) for feed in self._markets.values()]

    def _day(self, request: HttpRequest) -> object:
        if request.query.get("type") != "MINI":  # the long form is not simulated
            raise RestError(400, -1130, "Data sent for parameter 'type' is not valid.")
        feeds = list(self._markets.values())
        days = [day_statistics(feed.instrument, feed.quote(), rank, _now_ms()) for rank, feed in enumerate(feeds)]
        return days[feeds.index(self._feed(request))] if "symbol" in request.query else days

    def _feed(self, request: HttpRequest) -> MarketFeed:
        symbol = request.query.get("symbol")
        if not symbol:
            raise RestError(400, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        feed = self._markets.get(symbol)
        if feed is None:
            raise RestError(400, -1121, "Invalid symbol.")
        return feed


def _limit(request: HttpRequest) -> int:
    text = request.query.get("limit", str(_DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise RestError(400, -1100, "Illegal characters found in parameter 'limit'; legal range is '^[0-9]{1,20}$'.")
    if int(text) == 0:
        raise RestError(400, -1130, "Data sent for parameter 'limit' is not valid.")
    return min(int(text), _MAXIMUM_LIMIT)


def _weight(request: HttpRequest) -> int:
    match request.path:
        case "/api/v3/exchangeInfo":
            return 20
        case "/api/v3/ticker/bookTicker":
            return 2 if "symbol" in request.query else 4
        case "/api/v3/ticker/24hr":
            return 2 if "symbol" in request.query else 80
        case "/api/v3/depth":
            text = request.query.get("limit", str(_DEFAULT_LIMIT))
            limit = int(text) if text.isascii() and text.isdigit() else _DEFAULT_LIMIT
            return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250
    return 1


def _book_ticker(feed: MarketFeed) -> dict[str, str]:
    return messages.book_ticker_answer(feed.instrument, feed.quote())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
