"""Upbit: frames in, events out."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Literal
from uuid import uuid4

import msgspec

from feeders.errors import WebSocketProtocolError
from feeders.events import Event, PrecisionLost, Refused, Topic, TradeHappened
from feeders.exchanges.venue import FeedOptions, Request
from feeders.order_book import DepthChange
from feeders.sync import NOTHING, ReplaceSync
from schemas.instruments import EXACT_DIGITS, significant_digits
from schemas.snapshot import PositiveNumber, UpdateId

UNIT_COUNTS = (1, 5, 15, 30)
"""Levels a side that can be asked for; any other number is answered with 30."""

TOPICS: Sequence[Topic] = ("book", "trades")

# A price and a size of zero fill up a side that has fewer orders than the other.
Amount = Annotated[float, msgspec.Meta(ge=0, le=1.7e308)]


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
    trade_id: int = msgspec.field(name="sequential_id")
    price: PositiveNumber = msgspec.field(name="trade_price")
    quantity: PositiveNumber = msgspec.field(name="trade_volume")
    side: Literal["ASK", "BID"] = msgspec.field(name="ask_bid")
    trade_time_ms: UpdateId = msgspec.field(name="trade_timestamp")


class _ShortTrade(msgspec.Struct, tag_field="ty", tag="trade"):
    code: str = msgspec.field(name="cd")
    trade_id: int = msgspec.field(name="sid")
    price: PositiveNumber = msgspec.field(name="tp")
    quantity: PositiveNumber = msgspec.field(name="tv")
    side: Literal["ASK", "BID"] = msgspec.field(name="ab")
    trade_time_ms: UpdateId = msgspec.field(name="ttms")


class _Complaint(msgspec.Struct):
    name: str | int = ""
    message: str = ""


class _Other(msgspec.Struct):
    """An error, the word that the connection is up, a list of subscriptions, or data nobody asked for."""

    error: _Complaint | None = None
    status: str = ""
    method: str = ""
    short_method: str = msgspec.field(name="mthd", default="")
    type: str = ""
    short_type: str = msgspec.field(name="ty", default="")

    @property
    def is_known(self) -> bool:
        """Whether it is something the exchange sends beside books and trades."""
        kind = self.type or self.short_type
        return bool(self.status or self.method or self.short_method or (kind and kind not in ("orderbook", "trade")))


class _WholeBook(msgspec.Struct):
    """The best levels of both sides at one moment."""

    last_id: int
    bids: Sequence[DepthChange]
    asks: Sequence[DepthChange]

    @property
    def first_id(self) -> int:
        return self.last_id

    @property
    def exchange_us(self) -> int:
        return self.last_id * 1000


_Message = _Book | _Trade
_ShortMessage = _ShortBook | _ShortTrade

_decode = msgspec.json.Decoder(_Message | list[_Message]).decode
_decode_short = msgspec.json.Decoder(_ShortMessage | list[_ShortMessage]).decode
_decode_other = msgspec.json.Decoder(_Other | list[_Other]).decode

_NUMBERS = re.compile(rb'"(?:ap|bp|as|bs|(?:ask|bid)_(?:price|size))"\s*:\s*([-+.0-9eE]+)')


class UpbitProtocol:
    """Every symbol of one connection, or of several that carry the same symbols (`lines`).

    A book's id is the time of its last change in milliseconds: it never falls, but two books may share one. Trade
    ids are unique; the exchange does not promise that they rise.
    """

    def __init__(
        self, natives: Iterable[str] | None, options: FeedOptions, ticket: Callable[[], str] = lambda: uuid4().hex
    ) -> None:
        """`natives` None takes whatever symbol arrives, which is what a recording needs."""
        if options.depth > UNIT_COUNTS[-1]:
            raise ValueError(f"upbit sends at most {UNIT_COUNTS[-1]} levels a side, not {options.depth}")
        if missing := options.topics - set(TOPICS):
            raise ValueError(f"upbit has no {' and no '.join(sorted(missing))} topic: use {', '.join(TOPICS)}")
        self._options = options
        self._ticket = ticket
        self._lines: set[int] = set()
        self._takes_all = natives is None
        self._natives = tuple(natives or ())
        self._wanted = frozenset(self._natives)
        self._books = {native: self._new_sync(native) for native in self._natives if "book" in options.topics}
        self._checked: set[str] = set()

    @property
    def natives(self) -> Sequence[str]:
        """Symbols that have a book here, or will have."""
        return tuple(self._books)

    def update_id(self, native: str, topic: Topic = "book") -> int | None:
        """Where the book is; None while there is none to trust."""
        return self._books[native].update_id

    def subscribe(self, natives: Sequence[str] | None = None) -> list[Request]:
        """One message that asks for everything, whichever symbols it is for: it replaces the message before."""
        if not self._natives:
            return []
        topics = self._options.topics
        request: list[dict[str, object]] = [{"ticket": self._ticket()}]
        if "book" in topics:
            count = next(count for count in UNIT_COUNTS if count >= self._options.depth)
            request.append({"type": "orderbook", "codes": [f"{native}.{count}" for native in self._natives]})
        if "trades" in topics:
            request.append({"type": "trade", "codes": self._natives, "is_only_realtime": True})
        request.append({"format": "SIMPLE"})
        return [Request(None, msgspec.json.encode(request).decode())]

    def open_line(self, line: int) -> None:
        """From now on this connection brings every update."""
        self._lines.add(line)

    def lose_line(self, line: int, reason: str) -> Sequence[Event]:
        """The connection is gone."""
        self._lines.discard(line)
        return [event for sync in self._books.values() for event in sync.lose_line(line, reason)]

    def receive(self, frame: bytes, line: int = 0) -> Sequence[Event]:
        """What one WebSocket message says. Raises WebSocketProtocolError if it makes no sense."""
        try:
            message = _decode_short(frame) if b'"ty"' in frame else _decode(frame)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            return _receive_other(frame, error)
        if isinstance(message, list):
            return [event for each in message for event in self._take(each, frame, line)]
        return self._take(message, frame, line)

    def receive_answer(self, native: str, limit: int, body: bytes) -> Sequence[Event]:
        """No snapshot is ever asked for: every frame is a whole book."""
        return NOTHING

    def receive_recorded(self, url: str, body: bytes) -> Sequence[Event]:
        """HTTP answers say nothing that the frames do not."""
        return NOTHING

    def _take(self, message: _Message | _ShortMessage, frame: bytes, line: int) -> Sequence[Event]:
        code = message.code
        if not self._takes_all and code not in self._wanted:
            return NOTHING  # still on its way when a request replaced the one before
        if isinstance(message, _Trade | _ShortTrade):
            return [_trade(message)] if "trades" in self._options.topics else NOTHING
        sync = self._books.get(code)
        if sync is None:
            if "book" not in self._options.topics:
                return NOTHING
            sync = self._books[code] = self._new_sync(code)
        events = sync.receive_update(_whole_book(message, self._options.depth), line)
        return events if code in self._checked else [*self._check_precision(code, frame), *events]

    def _new_sync(self, native: str) -> ReplaceSync:
        return ReplaceSync(native, self._options.depth, self._lines)

    def _check_precision(self, native: str, frame: bytes) -> Sequence[Event]:
        """Once a symbol: whether its numbers fit float64."""
        self._checked.add(native)
        texts = (number.decode() for number in _NUMBERS.findall(frame))
        lost = next((text for text in texts if significant_digits(text) > EXACT_DIGITS), None)
        return NOTHING if lost is None else [PrecisionLost(native, lost)]


def _whole_book(book: _Book | _ShortBook, depth: int) -> _WholeBook:
    units = book.units[:depth]
    bids = [(unit.bid_price, unit.bid_size) for unit in units if unit.bid_price and unit.bid_size]
    asks = [(unit.ask_price, unit.ask_size) for unit in units if unit.ask_price and unit.ask_size]
    if bids != sorted(bids, reverse=True) or asks != sorted(asks):
        raise WebSocketProtocolError(f"{book.code}: levels out of order at {book.timestamp}")
    return _WholeBook(book.timestamp, bids, asks)


def _trade(trade: _Trade | _ShortTrade) -> Event:
    aggressor: Literal["buy", "sell"] = "sell" if trade.side == "ASK" else "buy"
    return TradeHappened(trade.code, trade.trade_id, trade.price, trade.quantity, aggressor, trade.trade_time_ms * 1000)


def _receive_other(frame: bytes, reason: Exception) -> Sequence[Event]:
    """What is neither a book nor a trade, for the given reason."""
    try:
        message = _decode_other(frame)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise WebSocketProtocolError(f"not an Upbit message: {reason}") from reason
    events: list[Event] = []
    for each in message if isinstance(message, list) else [message]:
        if each.error is not None:
            events.append(Refused(None, f"{each.error.name}: {each.error.message}"))
        elif not each.is_known:
            raise WebSocketProtocolError(f"neither a book nor a trade: {reason}") from reason
    return events
