"""Upbit's public REST API: order books, markets, tick sizes, trades, candles, day figures; limits and errors."""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from itertools import pairwise

import msgspec

from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.http_server import ApiError, HttpRequest, HttpResponse, RestApi
from bookbus.feeders.simulator.core.market import SimulatedInstrument
from bookbus.feeders.simulator.core.settings import Bans, RateLimit
from bookbus.feeders.simulator.upbit import statistics
from bookbus.feeders.simulator.upbit.market import DEPTH, UpbitMarket
from bookbus.feeders.simulator.upbit.messages import (
    error_text,
    grouping_factor,
    price_plain,
    rest_book,
    supported_levels,
)
from bookbus.feeders.simulator.upbit.settings import UpbitSettings

_CAUTIONS = (
    "PRICE_FLUCTUATIONS",
    "TRADING_VOLUME_SOARING",
    "DEPOSIT_AMOUNT_SOARING",
    "GLOBAL_PRICE_DIFFERENCES",
    "CONCENTRATION_OF_SMALL_ACCOUNTS",
)


class _Group:
    """The limit of one address on one group of paths."""

    def __init__(self, name: str, settings: UpbitSettings) -> None:
        rules = settings.rules
        self._name = name
        self._limit = RateLimit(rules.requests, rules.request_window)
        self._bans = Bans(rules.requests_until_ban, rules.ban)

    @property
    def headers(self) -> dict[str, str]:
        return {"Remaining-Req": f"group={self._name}; min=600; sec={self._limit.left}"}

    def charge(self) -> None:
        """Count a request. Raises ApiError when it is one too many or the address is banned."""
        now = time.monotonic()
        seconds = self._bans.check(now)
        if not seconds:
            if not self._limit.exceeded():
                self._bans.refusals = 0
                return
            seconds = self._bans.refuse(now)
        if seconds:
            raise ApiError(418, "temporarily_blocked", f"{round(seconds)}초 동안 요청이 차단되었습니다.")
        raise _too_many()


def _too_many() -> ApiError:
    return ApiError(429, "too_many_requests", "요청 수 제한을 초과했습니다.")


class UpbitRest(RestApi[UpbitMarket]):
    """Answers `/v1/…` from the markets."""

    def __init__(self, settings: UpbitSettings, markets: Mapping[str, UpbitMarket], faults: FaultBoard) -> None:
        super().__init__(settings, markets, faults)
        self._settings = settings
        self._groups: dict[tuple[str, str], _Group] = {}
        self._origin_limit = RateLimit(1, settings.rules.origin_window)
        self._routes: dict[str, tuple[str, Callable[[HttpRequest], str]]] = {
            "/v1/orderbook": ("orderbook", self._orderbook),
            "/v1/orderbook/instruments": ("orderbook", self._instruments),
            "/v1/market/all": ("market", self._all_markets),
            "/v1/ticker": ("ticker", lambda request: self._days(self._named(request))),
            "/v1/ticker/all": ("ticker", self._all_days),
            "/v1/trades/ticks": ("trades", self._trades),
            **{f"/v1/candles/{period}": ("candles", self._candles) for period in statistics.PERIODS},
        }

    def _respond(self, request: HttpRequest) -> HttpResponse:
        if request.path not in self._routes or request.method != "GET":
            return _error(404, 404, "no Route matched with those values")
        name, route = self._routes[request.path]
        group = self._groups.setdefault((request.client, name), _Group(name, self._settings))
        try:
            if "origin" in request.headers and self._origin_limit.exceeded():
                raise _too_many()
            group.charge()
            return HttpResponse(200, route(request).encode(), group.headers)
        except ApiError as error:
            return _error(error.status, error.code, error.message, group.headers)

    def _faulty_status(self, fault: Fault) -> HttpResponse:
        status = int(fault.number(503))
        names = {429: "too_many_requests", 418: "temporarily_blocked"}
        return _error(status, names.get(status, status), "fault")

    def _orderbook(self, request: HttpRequest) -> str:
        markets = self._named(request)
        try:
            level, count = float(request.query.get("level", "0")), int(request.query.get("count", str(DEPTH)))
        except ValueError:
            raise ApiError(400, 400, "Type mismatch error. Check the parameters type!") from None
        factors = [grouping_factor(market.instrument, level) for market in markets]
        if None in factors:
            return "[]"
        units = count if 1 <= count <= DEPTH else DEPTH
        books = (rest_book(market, units, factor or 0) for market, factor in zip(markets, factors, strict=True))
        return f"[{','.join(books)}]"

    def _instruments(self, request: HttpRequest) -> str:
        return _text(
            [
                {
                    "market": instrument.native,
                    "quote_currency": instrument.quote,
                    "tick_size": price_plain(instrument, 1),
                    "supported_levels": supported_levels(instrument),
                }
                for instrument in (market.instrument for market in self._named(request))
            ]
        )

    def _all_markets(self, request: HttpRequest) -> str:
        with_details = request.query.get("is_details", request.query.get("isDetails", "false")).lower() == "true"
        halted, warned = self._faults.halted, self._faults.warned
        return _text(
            [
                _market(market.instrument, halted.get(native), warned.get(native), with_details=with_details)
                for native, market in self._markets.items()
                if halted.get(native) != ""
            ]
        )

    def _all_days(self, request: HttpRequest) -> str:
        quotes = request.query.get("quote_currencies", "KRW,BTC,USDT").upper().split(",")
        return self._days(market for market in self._markets.values() if market.instrument.quote in quotes)

    def _days(self, markets: Iterable[UpbitMarket]) -> str:
        now_ms = _now_ms()
        return _text([statistics.day_answer(market, now_ms) for market in markets])

    def _trades(self, request: HttpRequest) -> str:
        market, count = self._one(request), _count(request, most=500)
        newest = list(market.trades)[-count:]
        return _text([statistics.trade_answer(market.instrument, trade) for trade in reversed(newest)])

    def _candles(self, request: HttpRequest) -> str:
        market, period = self._one(request), request.path.removeprefix("/v1/candles/")
        now_ms = until_ms = _now_ms()
        if to := request.query.get("to"):
            try:
                at = datetime.fromisoformat(to)
            except ValueError:
                raise ApiError(400, 400, "Type mismatch error. Check the parameters type!") from None
            # A time without a zone is UTC; the candle that begins then is not in the answer.
            until_ms = round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000) - 1
        interval, last_ms, count = statistics.PERIODS[period], min(until_ms, now_ms), _count(request, most=200)
        candles = market.feed.tape.candles(interval, count + 1, last_ms)
        answers = [
            statistics.candle_answer(market.instrument, period, candle, before, max(candle.start_ms, last_ms))
            for before, candle in pairwise(candles)
        ]
        return _text(answers[::-1])

    def _one(self, request: HttpRequest) -> UpbitMarket:
        return self._find(request.query.get("market", ""))[0]

    def _named(self, request: HttpRequest) -> list[UpbitMarket]:
        """The markets that a request names, in any case. Raises ApiError if one of them is unknown."""
        return self._find(request.query.get("markets", ""))

    def _find(self, names: str) -> list[UpbitMarket]:
        if not names:
            raise ApiError(400, 400, "Missing request parameter. Check the required parameter!")
        markets = [self._markets.get(name.upper()) for name in names.split(",")]
        known = [market for market in markets if market is not None]
        if len(known) < len(markets):
            raise ApiError(404, 404, "Code not found")
        return known


def _market(
    instrument: SimulatedInstrument, state: str | None, warned: str | None, *, with_details: bool
) -> dict[str, object]:
    """`warned` names a caution; any other text is a warning, None is neither."""
    market: dict[str, object] = {
        "market": instrument.native,
        "korean_name": instrument.base,
        "english_name": instrument.base,
    }
    if with_details:
        cautions = {name: name == warned for name in _CAUTIONS}
        market["market_event"] = {"warning": warned is not None and warned not in _CAUTIONS, "caution": cautions}
        if state is not None:
            market["market_state"] = state
    return market


def _count(request: HttpRequest, most: int) -> int:
    text = request.query.get("count", "1")
    if not (text.isascii() and text.isdigit()):
        raise ApiError(400, 400, "Type mismatch error. Check the parameters type!")
    return min(max(1, int(text)), most)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _error(status: int, name: str | int, message: str, headers: dict[str, str] | None = None) -> HttpResponse:
    return HttpResponse(status, error_text(name, message).encode(), headers or {})


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
