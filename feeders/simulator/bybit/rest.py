"""Bybit's public REST answers: instruments and day figures of spot markets."""

import time
from collections.abc import Callable, Mapping

from bookbus.feeders.simulator.bybit.feed import BybitFeed
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, VenueRest, json_response
from bookbus.feeders.simulator.core.market import DECIMALS, decimal_text

_INVALID = 10001
_TOO_MANY = 10006


class BybitRest(VenueRest):
    """Answers `/v5/market/…` from the feeds."""

    def __init__(self, feeds: Mapping[str, BybitFeed], delay: float, faults: FaultBoard) -> None:
        super().__init__(faults, delay)
        self._feeds = feeds
        self._routes: dict[str, Callable[[BybitFeed], dict[str, object]]] = {
            "/v5/market/instruments-info": _market,
            "/v5/market/tickers": _day,
        }

    def _respond(self, request: HttpRequest) -> HttpResponse:
        route = self._routes.get(request.path)
        if route is None or request.method != "GET":
            return HttpResponse(404, b"", content_type="text/plain")
        # What is wrong with a request is told in the body; the status is that of a good one.
        if request.query.get("category") != "spot":
            return _answer(_INVALID, "Illegal category", {})
        symbol = request.query.get("symbol")
        if symbol is not None and symbol not in self._feeds:
            return _answer(_INVALID, "Not supported symbols", {})
        feeds = self._feeds.values() if symbol is None else [self._feeds[symbol]]
        return _answer(0, "OK", {"category": "spot", "list": [route(feed) for feed in feeds]})

    def _faulty_status(self, fault: Fault) -> HttpResponse:
        return _answer(_TOO_MANY, "fault", {}, int(fault.number(503)))


def _answer(code: int, message: str, result: dict[str, object], status: int = 200) -> HttpResponse:
    now_ms = time.time_ns() // 1_000_000
    body = {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": now_ms}
    return json_response(body, status)


def _market(feed: BybitFeed) -> dict[str, object]:
    instrument = feed.instrument
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


def _day(feed: BybitFeed) -> dict[str, object]:
    """The figures of a day that never was: what a market turns over follows from its usual sizes."""
    instrument, (_, bid, ask) = feed.instrument, feed.market.quote()
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
