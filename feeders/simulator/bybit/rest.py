"""Bybit's public REST API: instruments, books, trades, candles and day figures of spot markets."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from bookbus.feeders.simulator.bybit import messages, statistics
from bookbus.feeders.simulator.bybit.market import BybitMarket
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.http_server import ApiError, HttpRequest, HttpResponse, RestApi, json_response
from bookbus.feeders.simulator.core.market import DECIMALS, decimal_text
from bookbus.feeders.simulator.core.settings import SimulatorSettings

_INVALID = 10001
_TOO_MANY = 10006
_WITHOUT_MARKETS = ("linear", "inverse", "option")
"""Categories of the exchange that have no markets here."""
_PREFIX = "/v5/market/"
_FULL = 10_000
_FULL_STREAM = 7_000_000
"""By which ids of the full book are ahead of those of the topics."""


class BybitRest(RestApi[BybitMarket]):
    """Answers `/v5/market/…` from the markets."""

    def __init__(self, settings: SimulatorSettings, markets: Mapping[str, BybitMarket], faults: FaultBoard) -> None:
        super().__init__(settings, markets, faults)
        self._routes: dict[str, Callable[[HttpRequest], dict[str, object]]] = {
            "time": lambda _: _time(),
            "instruments-info": self._instruments,
            "tickers": lambda request: self._each(
                request, lambda market: statistics.day_answer(market.feed, _now_ms())
            ),
            "orderbook": self._book,
            "full_orderbook": self._full_book,
            "recent-trade": self._trades,
            "kline": self._candles,
        }

    def _respond(self, request: HttpRequest) -> HttpResponse:
        route = self._routes.get(request.path.removeprefix(_PREFIX)) if request.path.startswith(_PREFIX) else None
        if route is None or request.method != "GET":
            return HttpResponse(404, b"", content_type="text/plain")
        try:
            return _answer(0, "OK", route(request))
        except ApiError as error:
            # Errors of a request are in the body, with status 200.
            return _answer(int(error.code), error.message, {}, error.status)

    def _faulty_status(self, fault: Fault) -> HttpResponse:
        return _answer(_TOO_MANY, "fault", {}, int(fault.number(503)))

    def _instruments(self, request: HttpRequest) -> dict[str, object]:
        """A halted market is not listed, unless the fault names a status."""
        found, halted = self._each(request, lambda market: market), self._faults.halted
        markets: Any = found["list"]
        names = [(market, market.instrument.native) for market in markets]
        listed = [(market, halted.get(name, "Trading")) for market, name in names]
        return found | {"list": [_describe_market(market, status) for market, status in listed if status]}

    def _each(self, request: HttpRequest, describe: Callable[[BybitMarket], object]) -> dict[str, object]:
        category = _category(request)
        symbol = request.query.get("symbol")
        markets = {} if category in _WITHOUT_MARKETS else self._markets
        found = markets.values() if symbol is None else [self._market(request)]
        return {"category": category, "list": [describe(market) for market in found], "nextPageCursor": ""}

    def _book(self, request: HttpRequest) -> dict[str, object]:
        market, limit = self._market(request), _integer(request, "limit", 1, 200)
        return messages.book_answer(market.instrument, market.at_depth(limit), market.sequence, _now_ms())

    def _full_book(self, request: HttpRequest) -> dict[str, object]:
        """All levels, also between two messages; `u` counts another stream than the topics that are served here."""
        market = self._market(request)
        book = market.full(_FULL)
        shown = book._replace(update_id=market.update_id + _FULL_STREAM)
        return messages.book_answer(market.instrument, shown, book.update_id, _now_ms())

    def _trades(self, request: HttpRequest) -> dict[str, object]:
        market, limit = self._market(request), _integer(request, "limit", 60, 60)
        newest = list(market.feed.tape.recent)[-limit:]
        return {"category": "spot", "list": statistics.trade_answers(market.instrument, newest[::-1])}

    def _candles(self, request: HttpRequest) -> dict[str, object]:
        market, limit = self._market(request), _integer(request, "limit", 200, 1000)
        interval = statistics.INTERVALS.get(request.query.get("interval", ""))
        if interval is None:
            raise ApiError(200, _INVALID, "Invalid period!")
        now_ms = _now_ms()
        since_ms = _integer(request, "start", 0, now_ms) if "start" in request.query else None
        candles = market.feed.tape.candles(interval, limit, _integer(request, "end", now_ms, now_ms), since_ms)
        rows = [statistics.candle_answer(market.instrument, candle) for candle in reversed(candles)]
        return {"category": "spot", "symbol": market.instrument.native, "list": rows}

    def _market(self, request: HttpRequest) -> BybitMarket:
        market = self._markets.get(request.query.get("symbol", ""))
        if market is None or _category(request) != "spot":
            raise ApiError(200, _INVALID, "Not supported symbols")
        return market


def _category(request: HttpRequest) -> str:
    category = request.query.get("category", "")
    if category not in ("spot", *_WITHOUT_MARKETS):
        raise ApiError(200, _INVALID, "Illegal category")
    return category


def _integer(request: HttpRequest, name: str, default: int, most: int) -> int:
    text = request.query.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or not int(text):
        raise ApiError(200, _INVALID, f"params error: {name} is invalid")
    return min(int(text), most)


def _time() -> dict[str, object]:
    now_ns = time.time_ns()
    return {"timeSecond": str(now_ns // 1_000_000_000), "timeNano": str(now_ns)}


def _answer(code: int, message: str, result: dict[str, object], status: int = 200) -> HttpResponse:
    body = {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": _now_ms()}
    return json_response(body, status)


def _describe_market(market: BybitMarket, status: str) -> dict[str, object]:
    instrument = market.instrument
    step = decimal_text(1, instrument.step_decimals)
    return {
        "symbol": instrument.native,
        "baseCoin": instrument.base,
        "quoteCoin": instrument.quote,
        "innovation": "0",
        "status": status,
        "marginTrading": "none",
        "lotSizeFilter": {
            "basePrecision": step,
            "quotePrecision": decimal_text(1, DECIMALS),
            "minOrderQty": step,
            "maxOrderQty": "9000000.00000000",
            "minOrderAmt": "5",
            "maxOrderAmt": "4000000",
        },
        "priceFilter": {"tickSize": decimal_text(1, instrument.tick_decimals)},
    }


def _describe_day(market: BybitMarket) -> dict[str, str]:
    return statistics.day_answer(market.feed, _now_ms())


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
