"""Upbit: its messages."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import gt, itemgetter, lt
from typing import Annotated, Any, ClassVar, Literal
from uuid import uuid4

import msgspec

from bookbus.feeders.books.events import Ignored, Refused, Topic, TradeHappened
from bookbus.feeders.books.order_book import DepthChange
from bookbus.feeders.books.synchronizer import BookSync, ReplaceSync
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.exchanges.drift import OTHER_FORMAT, Timestamp, microseconds, usable_time
from bookbus.feeders.venue import ControlMessage, DepthMessage, FeedOptions, Message, require_symbol
from bookbus.schemas.decoding import DECODE_ERRORS
from bookbus.schemas.snapshot import PositiveNumber, Side, UpdateId

UNIT_COUNTS = (1, 5, 15, 30)
"""Levels a side that can be asked for; any other number is answered with 30."""

TOPICS: Sequence[Topic] = ("book", "trades")

# A price and a size of zero fill up a side that has fewer orders than the other.
Amount = Annotated[float, msgspec.Meta(ge=0, le=1.7e308)]

# Above 2^53 today; what a stream's id can hold.
TradeId = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]


class _Unit(msgspec.Struct, gc=False):
    """The i-th best ask and the i-th best bid."""

    ask_price: Amount
    bid_price: Amount
    ask_size: Amount
    bid_size: Amount


class _ShortUnit(
    msgspec.Struct, gc=False, rename={"ask_price": "ap", "bid_price": "bp", "ask_size": "as", "bid_size": "bs"}
):
    ask_price: Amount
    bid_price: Amount
    ask_size: Amount
    bid_size: Amount


class _Book(msgspec.Struct, tag_field="type", tag="orderbook"):
    """`timestamp`: milliseconds, when the book last changed, which may be minutes ago."""

    code: str
    timestamp: UpdateId
    units: list[_Unit] = msgspec.field(name="orderbook_units")


class _ShortBook(msgspec.Struct, tag_field="ty", tag="orderbook"):
    code: str = msgspec.field(name="cd")
    timestamp: UpdateId = msgspec.field(name="tms")
    units: list[_ShortUnit] = msgspec.field(name="obu")


class _Trade(msgspec.Struct, tag_field="type", tag="trade"):
    code: str
    trade_id: TradeId = msgspec.field(name="sequential_id")
    price: PositiveNumber = msgspec.field(name="trade_price")
    quantity: PositiveNumber = msgspec.field(name="trade_volume")
    side: Literal["ASK", "BID"] = msgspec.field(name="ask_bid")
    trade_time: Timestamp = msgspec.field(name="trade_timestamp")


class _ShortTrade(msgspec.Struct, tag_field="ty", tag="trade"):
    code: str = msgspec.field(name="cd")
    trade_id: TradeId = msgspec.field(name="sid")
    price: PositiveNumber = msgspec.field(name="tp")
    quantity: PositiveNumber = msgspec.field(name="tv")
    side: Literal["ASK", "BID"] = msgspec.field(name="ab")
    trade_time: Timestamp = msgspec.field(name="ttms")


class _Error(msgspec.Struct):
    name: str | int = ""
    message: str = ""


class _Other(msgspec.Struct):
    """An error, a status, a list of subscriptions, or data of a type that is not subscribed."""

    error: _Error | None = None
    status: str = ""
    method: str = ""
    short_method: str = msgspec.field(name="mthd", default="")
    type: str = ""
    short_type: str = msgspec.field(name="ty", default="")

    @property
    def is_known(self) -> bool:
        """Whether it is something the exchange sends beside books and trades."""
        return bool(self.status or self.method or self.short_method or (self.kind and self.kind not in _TYPES))

    @property
    def kind(self) -> str:
        """The type of data that is not subscribed; empty for what is no data."""
        return self.type or self.short_type


class WholeBook(msgspec.Struct):
    """The best levels of both sides at one moment.

    A book's id is the time of its last change in milliseconds: it never falls, but two books may share one.
    """

    last_id: int
    bids: Sequence[DepthChange]
    asks: Sequence[DepthChange]
    is_whole: ClassVar[bool] = True

    @property
    def first_id(self) -> int:
        return self.last_id

    @property
    def exchange_us(self) -> int:
        return microseconds(self.last_id)


_price = itemgetter(0)

_NUMBERS = re.compile(rb'"(?:ap|bp|as|bs|(?:ask|bid)_(?:price|size))"\s*:\s*([-+.0-9eE]+)')


class UpbitProtocol:
    """Books and trades of some symbols. Trade ids are unique; the exchange does not promise that they rise."""

    numbers = _NUMBERS

    def __init__(
        self,
        natives: Iterable[str] | None,
        options: FeedOptions,
        ticket: Callable[[], str] = lambda: uuid4().hex,
        *,
        recorded: bool = False,
    ) -> None:
        """Raises ValueError for what the exchange does not have; `recorded` is not used."""
        if options.depth > UNIT_COUNTS[-1]:
            raise ValueError(f"upbit sends at most {UNIT_COUNTS[-1]} levels a side, not {options.depth}")
        if missing := options.topics - set(TOPICS):
            raise ValueError(f"upbit has no {' and no '.join(sorted(missing))} topic: use {', '.join(TOPICS)}")
        self._options = options
        self._ticket = ticket
        self.natives: Sequence[str] = tuple(dict.fromkeys(natives or ()))
        self._wanted = None if natives is None else frozenset(self.natives)

    def streams(self, native: str) -> Mapping[Topic, str]:
        """Streams have no names: the symbol's is used."""
        return {topic: native for topic in TOPICS if topic in self._options.topics}

    def subscribe(
        self, natives: Sequence[str], ids: Iterator[int], *, again: Sequence[str] = ()
    ) -> list[ControlMessage]:
        """One message that asks for all `natives`, whichever are asked for again: it replaces the message before."""
        if not natives:
            return []
        topics = self._options.topics
        request: list[dict[str, object]] = [{"ticket": self._ticket()}]
        if "book" in topics:
            count = next(count for count in UNIT_COUNTS if count >= self._options.depth)
            request.append({"type": "orderbook", "codes": [f"{native}.{count}" for native in natives]})
        if "trades" in topics:
            request.append({"type": "trade", "codes": natives, "is_only_realtime": True})
        request.append({"format": "SIMPLE"})
        return [ControlMessage(None, msgspec.json.encode(request).decode())]

    def decode(self, frame: bytes) -> Sequence[Message]:
        try:
            parts = _decode_short(frame) if b'"ty"' in frame else _decode(frame)
        except DECODE_ERRORS as error:
            parts = _decode_rest(frame, error)
        if isinstance(parts, list):
            return [message for part in parts for message in self._message(part)]
        return self._message(parts)

    def synchronizer(self, native: str, topic: Topic, stream: str | None, lines: set[int]) -> BookSync:
        """Every message is a whole book."""
        return ReplaceSync(native, self._options.depth, lines)

    def _message(self, part: "_Part") -> Sequence[Message]:
        if isinstance(part, _NOT_DATA):
            if isinstance(part, Ignored):
                return (part,)
            if (error := part.error) is not None:
                return (Refused(None, f"{error.name}: {error.message}"),)
            return (Ignored("", part.kind),) if part.kind else ()
        code = part.code
        if self._wanted is None:
            require_symbol("upbit", code)
        elif code not in self._wanted:
            return ()  # still on its way when a request replaced the one before
        if isinstance(part, _TRADES):
            return (_trade(part),) if "trades" in self._options.topics else ()
        if "book" not in self._options.topics:
            return ()
        return (DepthMessage(code, "book", code, _whole_book(part, self._options.depth)),)


_Part = _Book | _ShortBook | _Trade | _ShortTrade | _Other | Ignored
_NOT_DATA, _TRADES = (_Other, Ignored), (_Trade, _ShortTrade)

_decode = msgspec.json.Decoder(_Book | _Trade | list[_Book | _Trade]).decode
_decode_short = msgspec.json.Decoder(_ShortBook | _ShortTrade | list[_ShortBook | _ShortTrade]).decode

_TYPES = ("orderbook", "trade")
_TYPED: Mapping[tuple[Any, Any], Any] = {
    ("orderbook", None): _Book,
    ("trade", None): _Trade,
    (None, "orderbook"): _ShortBook,
    (None, "trade"): _ShortTrade,
}
"""By `type` and `ty`."""


def _decode_rest(frame: bytes, reason: Exception) -> list[_Part]:
    """The messages in a frame that is refused as books or trades for the given reason."""
    try:
        message = msgspec.json.decode(frame)
        return [part for each in (message if isinstance(message, list) else [message]) for part in _parts(each, reason)]
    except DECODE_ERRORS:
        raise WebSocketProtocolError(f"not an Upbit message: {reason}") from reason


def _parts(message: Any, reason: Exception) -> list[_Part]:
    """One message that may be a book or a trade in another spelling, or neither. Raises WebSocketProtocolError."""
    types = (message.get("type"), message.get("ty")) if isinstance(message, dict) else ()
    kind = next((kind for names, kind in _TYPED.items() if names == types), None)
    if kind is None:
        other: _Other = msgspec.convert(message, _Other, strict=False)
        if not (other.error or other.is_known):
            raise WebSocketProtocolError(f"neither a book nor a trade: {reason}") from reason
        return [other]
    for name in ("trade_timestamp", "ttms"):
        if name in message:
            message[name] = usable_time(message[name])
    for name in ("ask_bid", "ab"):
        if isinstance(message.get(name), str):
            message[name] = message[name].upper()
    try:
        return [msgspec.convert(message, kind, strict=False), Ignored("", OTHER_FORMAT)]
    except DECODE_ERRORS:
        raise WebSocketProtocolError(f"neither a book nor a trade: {reason}") from reason


def _whole_book(book: _Book | _ShortBook, depth: int) -> WholeBook:
    """The best `depth` levels. Raises WebSocketProtocolError if they are out of order."""
    units = book.units[:depth]
    bids = [(unit.bid_price, unit.bid_size) for unit in units if unit.bid_price and unit.bid_size]
    asks = [(unit.ask_price, unit.ask_size) for unit in units if unit.ask_price and unit.ask_size]
    bid_prices, ask_prices = list(map(_price, bids)), list(map(_price, asks))
    if not (all(map(gt, bid_prices, bid_prices[1:])) and all(map(lt, ask_prices, ask_prices[1:]))):
        raise WebSocketProtocolError(f"{book.code}: levels out of order at {book.timestamp}")
    return WholeBook(book.timestamp, bids, asks)


def _trade(trade: _Trade | _ShortTrade) -> TradeHappened:
    aggressor: Side = "sell" if trade.side == "ASK" else "buy"
    exchange_us = microseconds(trade.trade_time)
    return TradeHappened(trade.code, trade.trade_id, trade.price, trade.quantity, aggressor, exchange_us)
