"""Binance spot's public REST API: depth, exchangeInfo, time, trades, candles, tickers; weights and errors."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import Any, NamedTuple

import msgspec

from bookbus.feeders.simulator.binance import messages, statistics
from bookbus.feeders.simulator.binance.settings import BinanceRules, BinanceSettings
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.feed import BookAt, MarketFeed, last_price, window
from bookbus.feeders.simulator.core.http_server import ApiError, HttpRequest, HttpResponse, RestApi, json_response
from bookbus.feeders.simulator.core.market import SimulatedInstrument, decimal_text
from bookbus.feeders.simulator.core.settings import Bans
from bookbus.feeders.simulator.core.tape import DAY, HOUR, MINUTE

_DELISTED = (
    SimulatedInstrument("BCCBTC", "BCC", "BTC", 6, 3, 61_000, 100),
    SimulatedInstrument("HNTUSDT", "HNT", "USDT", 4, 3, 61_000, 100),
)
_ORDER_TYPES = ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT", "TAKE_PROFIT_LIMIT"]


def exchange_info(
    instruments: Iterable[SimulatedInstrument], rules: BinanceRules, time: int, *, with_delisted: bool
) -> dict[str, Any]:
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


class WeightVerdict(NamedTuple):
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
        now = self._clock()
        if now >= self._window_end:
            self._window_end = now + self._rules.weight_window
            self._used = self._bans.refusals = 0
        return self._used

    def charge(self, weight: int) -> WeightVerdict:
        used, now = self.used + weight, self._clock()
        if seconds := self._bans.check(now):
            return WeightVerdict(418, _whole_seconds(seconds))
        self._used = used
        self.total += weight
        self.highest = max(self.highest, used)
        if used <= self._rules.weight:
            return WeightVerdict(200, 0)
        if seconds := self._bans.refuse(now):
            return WeightVerdict(418, _whole_seconds(seconds))
        return WeightVerdict(429, _whole_seconds(self._window_end - now))


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
_ZONE = re.compile(r"(?P<sign>[+-]?)(?P<hours>\d{1,2})(:(?P<minutes>\d\d))?")
_WINDOW_SIZE = re.compile(r"([1-9]|[1-5]\d)m|([1-9]|1\d|2[0-3])h|[1-7]d")
_WINDOW_UNITS = {"m": MINUTE, "h": HOUR, "d": DAY}


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
            "/api/v3/trades": self._trades,
            "/api/v3/historicalTrades": self._trades,
            "/api/v3/aggTrades": self._aggregate_trades,
            "/api/v3/klines": self._candles,
            "/api/v3/uiKlines": self._candles,
            "/api/v3/avgPrice": self._average_price,
            "/api/v3/ticker": self._window,
            "/api/v3/ticker/24hr": self._window,
            "/api/v3/ticker/tradingDay": self._window,
            "/api/v3/ticker/price": lambda request: self._each(request, _price),
            "/api/v3/ticker/bookTicker": lambda request: self._each(request, _book_ticker),
        }
        self._volumes = statistics.volumes(markets.values())

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
        except ApiError as error:
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
        _check_status(request)
        symbol = feed.instrument.native
        if self._faults.match("stale_snapshot", symbol=symbol):
            book = feed.stale_snapshot(_limit(request, _DEFAULT_LIMIT, _MAXIMUM_LIMIT))
        else:
            book = feed.snapshot(_limit(request, _DEFAULT_LIMIT, _MAXIMUM_LIMIT), self._settings.snapshot_mode)
        if self._faults.match("empty_snapshot", symbol=symbol):
            book = BookAt(book.update_id, [], book.asks)
        self._faults.snapshot_served(symbol)
        return messages.book_text(feed.instrument, book)

    def _exchange_info(self, request: HttpRequest) -> object:
        named = "symbol" in request.query or "symbols" in request.query
        wanted = _status(request)
        if named and wanted is not None:
            raise ApiError(400, -1128, "Combination of optional parameters invalid.")
        instruments = [feed.instrument for feed in self._named(request)]
        found = exchange_info(instruments, self._settings.rules, _now_ms(), with_delisted=not named)
        for symbol in found["symbols"]:
            if symbol["symbol"] in self._faults.halted:
                symbol["status"] = self._faults.halted[symbol["symbol"]] or "BREAK"
        if wanted is not None:
            found["symbols"] = [symbol for symbol in found["symbols"] if symbol["status"] == wanted]
        return found

    def _trades(self, request: HttpRequest) -> object:
        feed, limit = self._feed(request), _limit(request, 500, 1000)
        trades = statistics.trade_answers(feed.instrument, feed.tape.recent)
        from_id = _integer(request, "fromId") if request.path.endswith("historicalTrades") else None
        return _page(trades, "id", from_id, limit)

    def _aggregate_trades(self, request: HttpRequest) -> object:
        feed, limit = self._feed(request), _limit(request, 500, 1000)
        start, end = _integer(request, "startTime"), _integer(request, "endTime")
        if (from_id := _integer(request, "fromId")) is not None or (start is None and end is None):
            return _page(statistics.aggregate_answers(feed.instrument, feed.tape.recent), "a", from_id, limit)
        found = [trade for trade in feed.tape.recent if (start or 0) <= trade.time_ms <= (end or trade.time_ms)]
        chosen = found[:limit] if start is not None else found[-limit:]
        return statistics.aggregate_answers(feed.instrument, chosen)

    def _candles(self, request: HttpRequest) -> object:
        feed, limit = self._feed(request), _limit(request, 500, 1000)
        interval = statistics.INTERVALS.get(request.query.get("interval", ""))
        if interval is None:
            raise ApiError(400, -1120, "Invalid interval.")
        zone = _ZONE.fullmatch(request.query.get("timeZone", "0"))
        if zone is None:
            raise ApiError(400, -1100, "Illegal characters found in parameter 'timeZone'.")
        minutes = int(zone["hours"]) * 60 + int(zone["minutes"] or 0)
        zone_ms = -minutes * MINUTE if zone["sign"] == "-" else minutes * MINUTE
        now_ms, until_ms = _now_ms(), _integer(request, "endTime")
        until_ms = now_ms if until_ms is None else min(until_ms, now_ms)
        candles = feed.tape.candles(interval, limit, until_ms, _integer(request, "startTime"), zone_ms)
        return [statistics.candle_answer(feed.instrument, candle, interval, zone_ms) for candle in candles]

    def _average_price(self, request: HttpRequest) -> object:
        feed, now_ms = self._feed(request), _now_ms()
        price = statistics.average(feed.instrument, window(feed, statistics.AVERAGE, now_ms))
        return {"mins": 5, "price": price, "closeTime": feed.tape.recent[-1].time_ms if feed.tape.recent else now_ms}

    def _window(self, request: HttpRequest) -> object:
        form, size = request.query.get("type", "FULL"), request.query.get("windowSize", "1d")
        span_ms = int(size[:-1]) * _WINDOW_UNITS[size[-1]] if _WINDOW_SIZE.fullmatch(size) else 0
        if form not in ("FULL", "MINI") or not span_ms:
            wrong = "type" if span_ms else "windowSize"
            raise ApiError(400, -1130, f"Data sent for parameter '{wrong}' is not valid.")
        rolling, now_ms = not request.path.endswith("24hr"), _now_ms()
        if rolling and "symbol" not in request.query and "symbols" not in request.query:
            raise ApiError(400, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")

        def describe(feed: MarketFeed) -> object:
            volume = self._volumes[feed.instrument.native] if span_ms >= DAY else 0
            found = statistics.figures(feed, span_ms, now_ms, volume)
            return statistics.answer(found, short=form == "MINI", rolling=rolling)

        return self._each(request, describe)

    def _each(self, request: HttpRequest, describe: Callable[[MarketFeed], object]) -> object:
        """One object for `symbol`; a list for `symbols`, or of all markets."""
        wanted = _status(request)
        if wanted not in (None, "TRADING") and "symbol" not in request.query and "symbols" not in request.query:
            return []
        _check_status(request)
        found = [describe(feed) for feed in self._named(request)]
        return found[0] if "symbol" in request.query else found

    def _named(self, request: HttpRequest) -> list[MarketFeed]:
        """The markets that `symbol` or `symbols` name, otherwise all."""
        if "symbols" not in request.query:
            return [self._feed(request)] if "symbol" in request.query else list(self._markets.values())
        if "symbol" in request.query:
            raise ApiError(400, -1128, "Combination of optional parameters invalid.")
        try:
            names = msgspec.json.decode(request.query["symbols"], type=list[str])
        except msgspec.MsgspecError:
            raise ApiError(400, -1100, "Illegal characters found in parameter 'symbols'.") from None
        if not names or any(name not in self._markets for name in names):
            raise ApiError(400, -1121, "Invalid symbol.")
        return [self._markets[name] for name in names]

    def _feed(self, request: HttpRequest) -> MarketFeed:
        symbol = request.query.get("symbol")
        if not symbol:
            raise ApiError(400, -1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        feed = self._markets.get(symbol)
        if feed is None:
            raise ApiError(400, -1121, "Invalid symbol.")
        return feed


def _integer(request: HttpRequest, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise ApiError(400, -1100, f"Illegal characters found in parameter '{name}'; legal range is '^[0-9]{{1,20}}$'.")
    return int(text)


def _limit(request: HttpRequest, default: int, most: int) -> int:
    limit = _integer(request, "limit")
    if limit == 0:
        raise ApiError(400, -1130, "Data sent for parameter 'limit' is not valid.")
    return min(default if limit is None else limit, most)


def _status(request: HttpRequest) -> str | None:
    wanted = request.query.get("symbolStatus")
    if wanted not in (None, "TRADING", "HALT", "BREAK"):
        raise ApiError(400, -1122, "Invalid symbolStatus.")
    return wanted


def _check_status(request: HttpRequest) -> None:
    """Every market trades: raises ApiError for a request about another status."""
    if _status(request) not in (None, "TRADING"):
        raise ApiError(400, -1220, "The symbol's status does not match the requested symbolStatus.")


def _page(trades: list[dict[str, Any]], key: str, from_id: int | None, limit: int) -> list[dict[str, Any]]:
    if from_id is None:
        return trades[-limit:]
    return [trade for trade in trades if trade[key] >= from_id][:limit]


_WEIGHTS = {
    "/api/v3/exchangeInfo": 20,
    "/api/v3/trades": 25,
    "/api/v3/historicalTrades": 25,
    "/api/v3/aggTrades": 4,
    "/api/v3/klines": 2,
    "/api/v3/uiKlines": 2,
    "/api/v3/avgPrice": 2,
}


def _weight(request: HttpRequest) -> int:
    names = request.query.get("symbols")
    symbols = 1 if "symbol" in request.query else names.count(",") + 1 if names else None
    match request.path:
        case "/api/v3/ticker/bookTicker" | "/api/v3/ticker/price":
            return 2 if "symbol" in request.query else 4
        case "/api/v3/ticker/24hr":
            return 80 if symbols is None or symbols > 100 else 40 if symbols > 20 else 2
        case "/api/v3/ticker" | "/api/v3/ticker/tradingDay":
            return min(200, 4 * (symbols or 1))
        case "/api/v3/depth":
            text = request.query.get("limit", "")
            limit = int(text) if text.isascii() and text.isdigit() else _DEFAULT_LIMIT
            return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250
    return _WEIGHTS.get(request.path, 1)


def _price(feed: MarketFeed) -> dict[str, str]:
    return {"symbol": feed.instrument.native, "price": feed.instrument.price_text(last_price(feed))}


def _book_ticker(feed: MarketFeed) -> dict[str, str]:
    return messages.book_ticker_answer(feed.instrument, feed.quote())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
