"""Binance spot's public REST answers: depth, exchangeInfo, time, ping, tickers; weights and errors."""

import time
from collections.abc import Callable, Mapping

import msgspec

from bookbus.feeders.simulator.binance import messages
from bookbus.feeders.simulator.binance.settings import SimulatorSettings
from bookbus.feeders.simulator.binance_metadata import day_statistics, exchange_info
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.feed import Feed
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, json_response
from bookbus.feeders.simulator.request_weight import RequestWeight
from bookbus.feeders.simulator.truth import BookAt
from bookbus.feeders.simulator.venue_rest import VenueRest

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


class _BadRequestError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class BinanceRest(VenueRest):
    """Answers `/api/v3/…` from the feeds."""

    def __init__(self, feeds: Mapping[str, Feed], settings: SimulatorSettings, faults: FaultBoard) -> None:
        super().__init__(faults, settings.rest_delay)
        self._feeds = feeds
        self._settings = settings
        self.weight = RequestWeight(settings.rules, time.monotonic)
        self._routes: dict[str, Callable[[HttpRequest], object]] = {
            "/api/v3/ping": lambda _: {},
            "/api/v3/time": lambda _: {"serverTime": _milliseconds()},
            "/api/v3/exchangeInfo": self._exchange_info,
            "/api/v3/depth": self._depth,
            "/api/v3/ticker/bookTicker": self._book_ticker,
            "/api/v3/ticker/24hr": self._day,
        }

    def _respond(self, request: HttpRequest) -> HttpResponse:
        route = self._routes.get(request.path)
        if route is None or request.method != "GET":
            return HttpResponse(404, b"<html><body><h2>404 Not found</h2></body></html>", content_type="text/html")
        verdict = self.weight.charge(_weight(request))
        if verdict.status != 200:
            return self._refused(verdict.status, verdict.retry_after)
        try:
            body = route(request)
        except _BadRequestError as error:
            return json_response({"code": error.code, "msg": error.message}, 400, self._headers())
        encoded = body.encode() if isinstance(body, str) else msgspec.json.encode(body)
        return HttpResponse(200, encoded, self._headers())

    def _headers(self) -> dict[str, str]:
        used = str(self.weight.used)
        return {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used}

    def _refused(self, status: int, retry_after: int) -> HttpResponse:
        until = _milliseconds() + retry_after * 1000
        message = (_TOO_MUCH if status == 429 else _BANNED).format(limit=self._settings.rules.weight, until=until)
        headers = self._headers() | {"Retry-After": str(retry_after)}
        return json_response({"code": -1003, "msg": message}, status, headers)

    def _faulty_status(self, fault: Fault) -> HttpResponse:
        status = int(fault.number(503))
        if status in (418, 429):
            return self._refused(status, max(1, round(self._faults.remaining(fault) or 1)))
        if status == 451:
            return json_response({"code": 0, "msg": _RESTRICTED}, status)
        if status == 403:
            return HttpResponse(status, b"<html><body><h1>403 ERROR</h1></body></html>", content_type="text/html")
        return json_response({"code": -1000, "msg": "An unknown error occurred while processing the request."}, status)

    def _depth(self, request: HttpRequest) -> str:
        feed = self._feed(request)
        wanted = request.query.get("symbolStatus", "TRADING")
        if wanted not in ("TRADING", "HALT", "BREAK"):
            raise _BadRequestError(-1122, "Invalid symbolStatus.")
        if wanted != "TRADING":
            raise _BadRequestError(-1220, "The symbol's status does not match the requested symbolStatus.")
        symbol = feed.instrument.native
        if self._faults.strike("stale_snapshot", symbol=symbol):
            book = feed.stale_snapshot(_limit(request))
        else:
            book = feed.snapshot(_limit(request), self._settings.snapshot_mode)
        if self._faults.strike("empty_snapshot", symbol=symbol):
            book = BookAt(book.update_id, [], book.asks)
        self._faults.snapshot_served(symbol)
        return messages.book_text(feed.instrument, book)

    def _exchange_info(self, request: HttpRequest) -> object:
        query = request.query
        if "symbols" in query:
            try:
                names = msgspec.json.decode(query["symbols"], type=list[str])
            except msgspec.MsgspecError:
                raise _BadRequestError(-1100, "Illegal characters found in parameter 'symbols'.") from None
        else:
            names = [query["symbol"]] if "symbol" in query else list(self._feeds)
        if any(name not in self._feeds for name in names):
            raise _BadRequestError(-1121, "Invalid symbol.")
        everything = "symbol" not in query and "symbols" not in query
        instruments = [self._feeds[name].instrument for name in names]
        return exchange_info(instruments, self._settings.rules, _milliseconds(), with_delisted=everything)

    def _book_ticker(self, request: HttpRequest) -> object:
        if "symbol" in request.query:
            return _book_ticker(self._feed(request))
        return [_book_ticker(feed) for feed in self._feeds.values()]

    def _day(self, request: HttpRequest) -> object:
        if request.query.get("type") != "MINI":
            raise _BadRequestError(-1130, "Data sent for parameter 'type' is not valid.")  # the long form is not played
        feeds = list(self._feeds.values())
        days = [day_statistics(feed.instrument, feed.quote(), rank, _milliseconds()) for rank, feed in enumerate(feeds)]
        return days[feeds.index(self._feed(request))] if "symbol" in request.query else days

    def _feed(self, request: HttpRequest) -> Feed:
        symbol = request.query.get("symbol")
        if not symbol:
            raise _BadRequestError(-1102, "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed.")
        feed = self._feeds.get(symbol)
        if feed is None:
            raise _BadRequestError(-1121, "Invalid symbol.")
        return feed


def _limit(request: HttpRequest) -> int:
    text = request.query.get("limit", str(_DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        raise _BadRequestError(-1100, "Illegal characters found in parameter 'limit'; legal range is '^[0-9]{1,20}$'.")
    if int(text) == 0:
        raise _BadRequestError(-1130, "Data sent for parameter 'limit' is not valid.")
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


def _book_ticker(feed: Feed) -> dict[str, str]:
    return messages.book_ticker_answer(feed.instrument, feed.quote())


def _milliseconds() -> int:
    return time.time_ns() // 1_000_000
