"""Upbit's public REST answers: order books, markets, tick sizes, day figures; limits and errors."""

import time
from collections.abc import Callable, Mapping

import msgspec

from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, VenueRest
from bookbus.feeders.simulator.core.market import SimulatedInstrument
from bookbus.feeders.simulator.core.websocket_server import RateLimit
from bookbus.feeders.simulator.upbit.feed import DEPTH, UpbitFeed
from bookbus.feeders.simulator.upbit.messages import error_text, grouping_factor, plain, rest_book, supported_levels
from bookbus.feeders.simulator.upbit.settings import UpbitSettings

_CAUTIONS = (
    *("PRICE_FLUCTUATIONS", "TRADING_VOLUME_SOARING", "DEPOSIT_AMOUNT_SOARING", "GLOBAL_PRICE_DIFFERENCES"),
    "CONCENTRATION_OF_SMALL_ACCOUNTS",
)


class _RefusedError(Exception):
    def __init__(self, status: int, name: str | int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.name = name
        self.message = message


class _Group:
    """What one address may ask of one group of paths."""

    def __init__(self, name: str, settings: UpbitSettings) -> None:
        self._name = name
        self._rules = settings.rules
        self._limit = RateLimit(self._rules.requests, self._rules.request_window)
        self._refused = 0
        self._banned_until = 0.0
        self._bans = 0

    @property
    def headers(self) -> dict[str, str]:
        return {"Remaining-Req": f"group={self._name}; min=600; sec={self._limit.left}"}

    def charge(self) -> None:
        """Count a request. Raises when it is one too many; asking on makes it a ban, and every ban a longer one."""
        now = time.monotonic()
        if now < self._banned_until:
            self._ban(now)
        if not self._limit.exceeded():
            self._refused = 0
            return
        self._refused += 1
        if self._refused > self._rules.requests_until_ban:
            self._bans += 1
            self._ban(now)
        raise _RefusedError(429, "too_many_requests", "요청 수 제한을 초과했습니다.")

    def _ban(self, now: float) -> None:
        self._banned_until = max(self._banned_until, now + self._rules.ban * self._bans)
        seconds = round(self._banned_until - now)
        raise _RefusedError(418, "temporarily_blocked", f"{seconds}초 동안 요청이 차단되었습니다.")


class UpbitRest(VenueRest):
    """Answers `/v1/…` from the feeds."""

    def __init__(self, feeds: Mapping[str, UpbitFeed], settings: UpbitSettings, faults: FaultBoard) -> None:
        super().__init__(faults, settings.rest_delay)
        self._feeds = feeds
        self._settings = settings
        self._groups: dict[tuple[str, str], _Group] = {}
        self._from_pages = RateLimit(1, settings.rules.origin_window)
        self._routes: dict[str, tuple[str, Callable[[HttpRequest], str]]] = {
            "/v1/orderbook": ("orderbook", self._orderbook),
            "/v1/orderbook/instruments": ("orderbook", self._instruments),
            "/v1/market/all": ("market", self._markets),
            "/v1/ticker/all": ("ticker", self._tickers),
        }

    def _respond(self, request: HttpRequest) -> HttpResponse:
        if request.path not in self._routes or request.method != "GET":
            return _error(404, 404, "no Route matched with those values")
        name, route = self._routes[request.path]
        group = self._groups.setdefault((request.client, name), _Group(name, self._settings))
        try:
            if "origin" in request.headers and self._from_pages.exceeded():
                raise _RefusedError(429, "too_many_requests", "요청 수 제한을 초과했습니다.")
            group.charge()
            return HttpResponse(200, route(request).encode(), group.headers)
        except _RefusedError as error:
            return _error(error.status, error.name, error.message, group.headers)

    def _faulty_status(self, fault: Fault) -> HttpResponse:
        status = int(fault.number(503))
        names = {429: "too_many_requests", 418: "temporarily_blocked"}
        return _error(status, names.get(status, status), "fault")

    def _orderbook(self, request: HttpRequest) -> str:
        feeds = self._asked(request)
        try:
            level, count = float(request.query.get("level", "0")), int(request.query.get("count", str(DEPTH)))
        except ValueError:
            raise _RefusedError(400, 400, "Type mismatch error. Check the parameters type!") from None
        factors = [grouping_factor(feed.instrument, level) for feed in feeds]
        if None in factors:
            return "[]"
        units = count if 1 <= count <= DEPTH else DEPTH
        books = (rest_book(feed, units, factor or 0) for feed, factor in zip(feeds, factors, strict=True))
        return f"[{','.join(books)}]"

    def _instruments(self, request: HttpRequest) -> str:
        return _text(
            [
                {
                    "market": instrument.native,
                    "quote_currency": instrument.quote,
                    "tick_size": plain(1, instrument.tick_decimals),
                    "supported_levels": supported_levels(instrument),
                }
                for instrument in (feed.instrument for feed in self._asked(request))
            ]
        )

    def _markets(self, request: HttpRequest) -> str:
        with_details = request.query.get("is_details", request.query.get("isDetails", "false")).lower() == "true"
        return _text([_market(feed.instrument, with_details=with_details) for feed in self._feeds.values()])

    def _tickers(self, request: HttpRequest) -> str:
        quotes = request.query.get("quote_currencies", "KRW,BTC,USDT").upper().split(",")
        feeds = (feed for feed in self._feeds.values() if feed.instrument.quote in quotes)
        return f"[{','.join(map(_day, feeds))}]"

    def _asked(self, request: HttpRequest) -> list[UpbitFeed]:
        """The markets of a request; one that is not known spoils it. Here the case of letters does not matter."""
        markets = request.query.get("markets", "")
        if not markets:
            raise _RefusedError(400, 400, "Missing request parameter. Check the required parameter!")
        feeds = [self._feeds.get(market.upper()) for market in markets.split(",")]
        known = [feed for feed in feeds if feed is not None]
        if len(known) < len(feeds):
            raise _RefusedError(404, 404, "Code not found")
        return known


def _market(instrument: SimulatedInstrument, *, with_details: bool) -> dict[str, object]:
    market: dict[str, object] = {
        "market": instrument.native,
        "korean_name": instrument.base,
        "english_name": instrument.base,
    }
    if with_details:
        market["market_event"] = {"warning": False, "caution": dict.fromkeys(_CAUTIONS, False)}
    return market


def _day(feed: UpbitFeed) -> str:
    """The figures of a day that never was: what a market turns over follows from its usual sizes."""
    instrument = feed.instrument
    turnover = instrument.start_ticks * instrument.typical_steps * 1000
    decimals = instrument.tick_decimals + instrument.step_decimals
    price = plain(feed.live.quote().bid[0], instrument.tick_decimals)
    return (
        f'{{"market":"{instrument.native}","trade_price":{price},'
        f'"acc_trade_price_24h":{turnover // 10**decimals}.{turnover % 10**decimals:0{decimals}d},'
        f'"timestamp":{feed.time_ms}}}'
    )


def _error(status: int, name: str | int, message: str, headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(status, error_text(name, message).encode(), headers or {})


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
