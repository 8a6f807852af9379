"""Bybit's public REST API: instruments and day figures of spot markets."""

import time
from collections.abc import Callable

from bookbus.feeders.simulator.core.faults import Fault
from bookbus.feeders.simulator.core.feed import WholeBookMarket
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, RestApi, json_response
from bookbus.feeders.simulator.core.market import DECIMALS, decimal_text

_INVALID = 10001
_TOO_MANY = 10006


class BybitRest(RestApi[WholeBookMarket]):
    """Answers `/v5/market/…` from the markets."""

    def _respond(self, request: HttpRequest) -> HttpResponse:
        describe = _ROUTES.get(request.path)
        if describe is None or request.method != "GET":
            return HttpResponse(404, b"", content_type="text/plain")
        # Errors of a request are in the body, with status 200.
        if request.query.get("category") != "spot":
            return _answer(_INVALID, "Illegal category", {})
        symbol = request.query.get("symbol")
        if symbol is not None and symbol not in self._markets:
            return _answer(_INVALID, "Not supported symbols", {})
        markets = self._markets.values() if symbol is None else [self._markets[symbol]]
        return _answer(0, "OK", {"category": "spot", "list": [describe(market) for market in markets]})

    def _faulty_status(self, fault: Fault) -> HttpResponse:
        return _answer(_TOO_MANY, "fault", {}, int(fault.number(503)))


def _answer(code: int, message: str, result: dict[str, object], status: int = 200) -> HttpResponse:
    now_ms = time.time_ns() // 1_000_000
    body = {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": now_ms}
    return json_response(body, status)


def _describe_market(market: WholeBookMarket) -> dict[str, object]:
    instrument = market.instrument
    step = decimal_text(1, instrument.step_decimals)
    return {
        "symbol": instrument.native,
        "baseCoin": instrument.base,
        "quoteCoin": instrument.quote,
        "innovation": "0",
        "status": "Trading",
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


def _describe_day(market: WholeBookMarket) -> dict[str, object]:
    """Synthetic figures of a day: the turnover follows from the market's usual sizes."""
    instrument, (_, bid, ask) = market.instrument, market.feed.quote()
    volume = instrument.typical_steps * 1000
    turnover = instrument.price(instrument.start_ticks) * instrument.quantity(volume)
    return {
        "symbol": instrument.native,
        "bid1Price": instrument.price_text(bid[0]),
        "bid1Size": instrument.quantity_text(bid[1]),
        "ask1Price": instrument.price_text(ask[0]),
        "ask1Size": instrument.quantity_text(ask[1]),
        "lastPrice": instrument.price_text(bid[0]),
        "volume24h": instrument.quantity_text(volume),
        "turnover24h": f"{turnover:.8f}",
    }


_ROUTES: dict[str, Callable[[WholeBookMarket], dict[str, object]]] = {
    "/v5/market/instruments-info": _describe_market,
    "/v5/market/tickers": _describe_day,
}
