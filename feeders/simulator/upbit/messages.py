"""Upbit's messages, with its two ways to write numbers, and its requests."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec

from bookbus.feeders.simulator.core.feed import BookAt
from bookbus.feeders.simulator.core.market import RawLevel, SimulatedInstrument, decimal_text
from bookbus.feeders.simulator.upbit.market import UpbitMarket, UpbitTrade
from bookbus.feeders.simulator.upbit.statistics import CANDLE_TYPES
from bookbus.schemas.decoding import DECODE_ERRORS

_UNIT_COUNTS = (1, 5, 15, 30)
_TYPES = ("orderbook", "trade", "ticker", *CANDLE_TYPES)
FORMATS = ("DEFAULT", "SIMPLE", "JSON_LIST", "SIMPLE_LIST")


class RequestError(Exception):
    """An error with which the exchange ends the connection."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name
        self.message = message


class Form(NamedTuple):
    """Format of messages: with short field names, and as a list of one."""

    short: bool
    listed: bool


DEFAULT_FORM = Form(short=False, listed=False)


class TypeRequest(msgspec.Struct, frozen=True):
    """Data of one type. `codes` are as the client wrote them, `.n` included."""

    kind: str
    codes: tuple[str, ...]
    level: float
    snapshot: bool
    realtime: bool


@dataclass(frozen=True, slots=True)
class Subscription:
    """Replaces all subscriptions of a connection."""

    parts: tuple[TypeRequest, ...]
    form: Form


@dataclass(frozen=True, slots=True)
class Listing:
    """The request to list the subscriptions of the connection."""

    ticket: str
    form: Form


def parse_request(message: str | bytes) -> Subscription | Listing:
    try:
        parts = msgspec.json.decode(message)
    except DECODE_ERRORS:
        parts = None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise RequestError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
    ticket = next((part["ticket"] for part in parts if "ticket" in part), None)
    if not isinstance(ticket, str) or not ticket:
        raise RequestError("NO_TICKET", "티켓이 존재하지 않거나, 유효하지 않습니다.")
    form = _form(next((part["format"] for part in parts if "format" in part), "DEFAULT"))
    if any(part.get("method") == "LIST_SUBSCRIPTIONS" for part in parts):
        return Listing(ticket, form)
    requests = tuple(_parse_type(part) for part in parts if "type" in part)
    if not requests:
        raise RequestError("NO_TYPE", "타입이 존재하지 않습니다.")
    return Subscription(requests, form)


def _form(name: object) -> Form:
    if name not in FORMATS:
        raise RequestError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
    return Form(short=str(name).startswith("SIMPLE"), listed=str(name).endswith("LIST"))


def _parse_type(part: dict[str, Any]) -> TypeRequest:
    kind, codes, level = part["type"], part.get("codes"), part.get("level", 0)
    if kind not in _TYPES:
        raise RequestError("INVALID_PARAM", f"{kind} 은 지원하지 않는 타입입니다.")
    if not isinstance(codes, list) or not codes:
        raise RequestError("NO_CODES", "코드가 존재하지 않습니다.")
    if not all(isinstance(code, str) for code in codes) or not isinstance(level, int | float):
        raise RequestError("WRONG_FORMAT", "Format 이 맞지 않습니다.")
    return TypeRequest(
        kind,
        tuple(codes),
        float(level),
        # Both spellings work.
        snapshot=not part.get("is_only_realtime", part.get("isOnlyRealtime", False)),
        realtime=not part.get("is_only_snapshot", part.get("isOnlySnapshot", False)),
    )


def split_code(code: str) -> tuple[str, int]:
    """Market and number of levels; a number that is not offered means 30."""
    market, _, suffix = code.partition(".")
    count = int(suffix) if suffix.isascii() and suffix.isdigit() else 0
    return market, count if count in _UNIT_COUNTS else _UNIT_COUNTS[-1]


_FACTORS = (10, 100, 1000)
"""Numbers of ticks by which price levels can be grouped."""

_SMALL, _LARGE = -3, 7
"""Powers of ten below and from which numbers are written with an exponent."""


def plain(units: int, decimals: int) -> str:
    """`units` of 10^-decimals without an exponent and without trailing zeros."""
    text = decimal_text(units, decimals)
    return text.rstrip("0").rstrip(".")


def price_plain(instrument: SimulatedInstrument, ticks: int) -> str:
    """A price without an exponent and without trailing zeros."""
    return plain(ticks * instrument.tick_units, instrument.tick_decimals)


def double(units: int, decimals: int) -> str:
    """As the exchange's servers print floating-point numbers: `1.16539E8`, `7.9276E-4`, `3040.0`."""
    digits = str(units)
    power = len(digits) - 1 - decimals
    if not units or _SMALL <= power < _LARGE:
        text = plain(units, decimals)
        return text if "." in text else f"{text}.0"
    digits = digits.rstrip("0")
    return f"{digits[0]}.{digits[1:] or '0'}E{power}"


class _Spelling(NamedTuple):
    """Field names and number formats of one format."""

    ask_price: str
    bid_price: str
    ask_size: str
    bid_size: str
    total_asks: str
    total_bids: str
    units: str
    write_price: Callable[[int, int], str]
    write_size: Callable[[int, int], str]


_LONG_NAMES = ("ask_price", "bid_price", "ask_size", "bid_size", "total_ask_size", "total_bid_size", "orderbook_units")
_DEFAULT = _Spelling(*_LONG_NAMES, double, decimal_text)
_SIMPLE = _Spelling("ap", "bp", "as", "bs", "tas", "tbs", "obu", plain, double)
_REST = _Spelling(*_LONG_NAMES, plain, plain)


def book_frame(market: UpbitMarket, form: Form, units: int, factor: int, stream_type: str) -> str:
    """A whole book; `factor` ticks make one price, 0 does not group."""
    instrument = market.instrument
    key = form.short, units, factor
    body = market.texts.get(key)
    if body is None:
        body = market.texts[key] = _body(market, _SIMPLE if form.short else _DEFAULT, units, factor)
    type_, code, time, stream, level = (
        ("ty", "cd", "tms", "st", "lv") if form.short else ("type", "code", "timestamp", "stream_type", "level")
    )
    text = (
        f'{{"{type_}":"orderbook","{code}":"{instrument.native}","{time}":{market.update_id},{body},'
        f'"{stream}":"{stream_type}","{level}":{price_plain(instrument, factor)}}}'
    )
    return f"[{text}]" if form.listed else text


def rest_book(market: UpbitMarket, units: int, factor: int) -> str:
    """One book of a REST answer, where the fields have other names."""
    body = _body(market, _REST, units, factor)
    level = price_plain(market.instrument, factor)
    return f'{{"market":"{market.instrument.native}","timestamp":{market.update_id},{body},"level":{level}}}'


def trade_frame(market: UpbitMarket, form: Form, trade: UpbitTrade, stream_type: str) -> str:
    fill, time_ms, trade_id = trade
    instrument = market.instrument
    at = datetime.fromtimestamp(time_ms // 1000, UTC)
    price = double(fill.ticks * instrument.tick_units, instrument.tick_decimals)
    values = (
        ("type", "ty", '"trade"'),
        ("code", "cd", f'"{instrument.native}"'),
        ("timestamp", "tms", str(time_ms + 2)),
        ("trade_date", "td", f'"{at:%Y-%m-%d}"'),
        ("trade_time", "ttm", f'"{at:%H:%M:%S}"'),
        ("trade_timestamp", "ttms", str(time_ms)),
        ("trade_price", "tp", price),
        ("trade_volume", "tv", double(fill.steps, instrument.step_decimals)),
        ("ask_bid", "ab", '"BID"' if fill.aggressor == "buy" else '"ASK"'),
        ("prev_closing_price", "pcp", price),
        ("change", "c", '"EVEN"'),
        ("change_price", "cp", "0E-8"),
        ("sequential_id", "sid", str(trade_id)),
        ("stream_type", "st", f'"{stream_type}"'),
    )
    text = ",".join(f'"{short if form.short else long}":{value}' for long, short, value in values)
    return f"[{{{text}}}]" if form.listed else f"{{{text}}}"


def listing_text(listing: Listing, subscription: Subscription | None) -> str:
    long_names = ("method", "result", "type", "codes", "level", "ticket")
    short_names = ("mthd", "rslt", "ty", "cds", "lv", "tckt")
    method, result, type_, codes, level, ticket = short_names if listing.form.short else long_names
    found = [
        {type_: part.kind, codes: part.codes} | ({level: part.level} if part.kind == "orderbook" else {})
        for part in (subscription.parts if subscription else ())
    ]
    return msgspec.json.encode({method: "LIST_SUBSCRIPTIONS", result: found, ticket: listing.ticket}).decode()


def error_text(name: str | int, message: str) -> str:
    """An error of WebSocket or REST, which names it by a number."""
    return msgspec.json.encode({"error": {"name": name, "message": message}}).decode()


def supported_levels(instrument: SimulatedInstrument) -> list[str]:
    """Units by which prices can be grouped; only the won markets offer any."""
    factors = _FACTORS if instrument.quote == "KRW" else ()
    return ["0", *(price_plain(instrument, factor) for factor in factors)]


def grouping_factor(instrument: SimulatedInstrument, level: float) -> int | None:
    """Ticks that make one price at this level; None if the level is not offered."""
    if level == 0:
        return 0
    factors = _FACTORS if instrument.quote == "KRW" else ()
    return next((factor for factor in factors if instrument.price(factor) == level), None)


def grouped_book(book: BookAt, factor: int, units: int) -> tuple[list[RawLevel], list[RawLevel]]:
    """Bids and asks of a message: bids are grouped downwards, asks upwards."""
    if not factor:
        return book.bids[:units], book.asks[:units]
    bids: dict[int, int] = {}
    asks: dict[int, int] = {}
    for ticks, steps in book.bids:
        price = ticks // factor * factor
        bids[price] = bids.get(price, 0) + steps
    for ticks, steps in book.asks:
        price = -(-ticks // factor) * factor
        asks[price] = asks.get(price, 0) + steps
    # A bid below one unit is grouped to the price 0.
    return [level for level in bids.items() if level[0]][:units], list(asks.items())[:units]


def _body(market: UpbitMarket, names: _Spelling, units: int, factor: int) -> str:
    bids, asks = grouped_book(market.book, factor, units)
    instrument = market.instrument
    tick, prices, sizes = instrument.tick_units, instrument.tick_decimals, instrument.step_decimals
    price, size = names.write_price, names.write_size
    rows = ",".join(
        f'{{"{names.ask_price}":{price(ask[0] * tick, prices)},"{names.bid_price}":{price(bid[0] * tick, prices)},'
        f'"{names.ask_size}":{size(ask[1], sizes)},"{names.bid_size}":{size(bid[1], sizes)}}}'
        for bid, ask in zip(_padded(bids, units), _padded(asks, units), strict=True)
    )
    total_asks, total_bids = (size(sum(steps for _, steps in side), sizes) for side in (asks, bids))
    return f'"{names.total_asks}":{total_asks},"{names.total_bids}":{total_bids},"{names.units}":[{rows}]'


def _padded(levels: list[RawLevel], units: int) -> list[RawLevel]:
    """Fill up a side with zeros to the number of levels."""
    return levels + [(0, 0)] * (units - len(levels))
