"""Upbit: frames in, events out."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import gt, itemgetter, lt
from typing import Annotated, Literal
from uuid import uuid4

import msgspec

from bookbus.feeders.books.arbitration import LineArbiter
from bookbus.feeders.books.events import Event, PrecisionLost, Refused, Topic, TradeHappened
from bookbus.feeders.books.order_book import DepthChange
from bookbus.feeders.books.synchronizer import NOTHING, ReplaceSync
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.venue import FeedOptions, Request, require_symbol
from bookbus.schemas.decoding import DECODE_ERRORS
from bookbus.schemas.instruments import EXACT_DIGITS, significant_digits
from bookbus.schemas.snapshot import PositiveNumber, UpdateId

MAX_FRAME_BYTES = 1 << 20
"""Hundreds of times what one message has."""

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


class Book(msgspec.Struct, tag_field="type", tag="orderbook"):
    """`timestamp`: milliseconds, when the book last changed, which may be minutes ago."""

    code: str
    timestamp: UpdateId
    units: list[_Unit] = msgspec.field(name="orderbook_units")


class ShortBook(msgspec.Struct, tag_field="ty", tag="orderbook"):
    code: str = msgspec.field(name="cd")
    timestamp: UpdateId = msgspec.field(name="tms")
    units: list[_ShortUnit] = msgspec.field(name="obu")


class Trade(msgspec.Struct, tag_field="type", tag="trade"):
    code: str
    trade_id: TradeId = msgspec.field(name="sequential_id")
    price: PositiveNumber = msgspec.field(name="trade_price")
    quantity: PositiveNumber = msgspec.field(name="trade_volume")
    side: Literal["ASK", "BID"] = msgspec.field(name="ask_bid")
    trade_time_ms: UpdateId = msgspec.field(name="trade_timestamp")


class ShortTrade(msgspec.Struct, tag_field="ty", tag="trade"):
    code: str = msgspec.field(name="cd")
    trade_id: TradeId = msgspec.field(name="sid")
    price: PositiveNumber = msgspec.field(name="tp")
    quantity: PositiveNumber = msgspec.field(name="tv")
    side: Literal["ASK", "BID"] = msgspec.field(name="ab")
    trade_time_ms: UpdateId = msgspec.field(name="ttms")


class _Complaint(msgspec.Struct):
    name: str | int = ""
    message: str = ""


class Other(msgspec.Struct):
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


class WholeBook(msgspec.Struct):
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


Message = Book | ShortBook | Trade | ShortTrade | Other

_decode = msgspec.json.Decoder(Book | Trade | list[Book | Trade]).decode
_decode_short = msgspec.json.Decoder(ShortBook | ShortTrade | list[ShortBook | ShortTrade]).decode
_decode_other = msgspec.json.Decoder(Other | list[Other]).decode

_price = itemgetter(0)

_NUMBERS = re.compile(rb'"(?:ap|bp|as|bs|(?:ask|bid)_(?:price|size))"\s*:\s*([-+.0-9eE]+)')


def decode(frame: bytes) -> Sequence[Message]:
    """The messages in a frame, of which there is one. Raises WebSocketProtocolError."""
    if len(frame) > MAX_FRAME_BYTES:
        raise WebSocketProtocolError(f"{len(frame)} bytes are more than any message has")
    try:
        message = _decode_short(frame) if b'"ty"' in frame else _decode(frame)
    except DECODE_ERRORS as error:
        return _decode_rest(frame, error)
    return message if isinstance(message, list) else (message,)


def numbers_in(frame: bytes) -> Iterator[str]:
    """Prices and sizes as they are written."""
    return (number.decode() for number in _NUMBERS.findall(frame))


def whole_book(book: Book | ShortBook, depth: int) -> WholeBook:
    """The best `depth` levels. Raises WebSocketProtocolError if they are out of order."""
    units = book.units[:depth]
    bids = [(unit.bid_price, unit.bid_size) for unit in units if unit.bid_price and unit.bid_size]
    asks = [(unit.ask_price, unit.ask_size) for unit in units if unit.ask_price and unit.ask_size]
    bid_prices, ask_prices = list(map(_price, bids)), list(map(_price, asks))
    if not (all(map(gt, bid_prices, bid_prices[1:])) and all(map(lt, ask_prices, ask_prices[1:]))):
        raise WebSocketProtocolError(f"{book.code}: levels out of order at {book.timestamp}")
    return WholeBook(book.timestamp, bids, asks)


def _decode_rest(frame: bytes, reason: Exception) -> Sequence[Other]:
    """What is neither a book nor a trade, for the given reason."""
    try:
        message = _decode_other(frame)
    except DECODE_ERRORS:
        raise WebSocketProtocolError(f"not an Upbit message: {reason}") from reason
    messages = message if isinstance(message, list) else [message]
    if not all(each.error or each.is_known for each in messages):
        raise WebSocketProtocolError(f"neither a book nor a trade: {reason}") from reason
    return messages


UNIT_COUNTS = (1, 5, 15, 30)
"""Levels a side that can be asked for; any other number is answered with 30."""

TOPICS: Sequence[Topic] = ("book", "trades")


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
        self.race: LineArbiter | None = None
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

    def is_behind(self, native: str, topic: Topic = "book") -> bool:
        """Whether the book may be older than what its lines brought."""
        return self._books[native].is_behind

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

    def line_up(self, line: int) -> None:
        """From now on this connection brings every update."""
        self._lines.add(line)

    def line_down(self, line: int, reason: str) -> Sequence[Event]:
        """The connection is gone."""
        self._lines.discard(line)
        return [event for sync in self._books.values() for event in sync.line_down(line, reason)]

    def receive(self, frame: bytes, line: int = 0) -> Sequence[Event]:
        """What one WebSocket message says. Raises WebSocketProtocolError if it makes no sense."""
        messages = decode(frame)
        if len(messages) == 1:
            return self._take(messages[0], frame, line)
        return [event for each in messages for event in self._take(each, frame, line)]

    def snapshot_requested(self, native: str) -> None:
        """No snapshot is ever asked for."""

    def apply_snapshot(self, native: str, limit: int, body: bytes) -> Sequence[Event]:
        """No snapshot is ever asked for: every frame is a whole book."""
        return NOTHING

    def record(self, native: str) -> None:
        """No book is built from changes."""

    def invalidate(self, native: str, reason: str) -> Sequence[Event]:
        """Nothing is ever recorded."""
        return NOTHING

    def receive_recorded(self, url: str, body: bytes) -> Sequence[Event]:
        """HTTP answers say nothing that the frames do not."""
        return NOTHING

    def _take(self, message: Message, frame: bytes, line: int) -> Sequence[Event]:
        if isinstance(message, Other):
            error = message.error
            return NOTHING if error is None else [Refused(None, f"{error.name}: {error.message}")]
        code = message.code
        if not self._takes_all and code not in self._wanted:
            return NOTHING  # still on its way when a request replaced the one before
        if isinstance(message, Trade | ShortTrade):
            if "trades" not in self._options.topics:
                return NOTHING
            return [_trade(message, code if code in self._wanted else require_symbol("upbit", code))]
        sync = self._books.get(code)
        if sync is None:
            if "book" not in self._options.topics:
                return NOTHING
            sync = self._books[code] = self._new_sync(require_symbol("upbit", code))
        book = whole_book(message, self._options.depth)
        if self.race is not None:
            self.race.note(code, book.last_id)
        events = sync.receive_update(book, line)
        return events if code in self._checked else [*self._check_precision(code, frame), *events]

    def _new_sync(self, native: str) -> ReplaceSync:
        return ReplaceSync(native, self._options.depth, self._lines)

    def _check_precision(self, native: str, frame: bytes) -> Sequence[Event]:
        """Once a symbol: whether its numbers fit float64."""
        self._checked.add(native)
        lost = next((number for number in numbers_in(frame) if significant_digits(number) > EXACT_DIGITS), None)
        return NOTHING if lost is None else [PrecisionLost(native, lost)]


def _trade(trade: Trade | ShortTrade, native: str) -> Event:
    aggressor: Literal["buy", "sell"] = "sell" if trade.side == "ASK" else "buy"
    return TradeHappened(native, trade.trade_id, trade.price, trade.quantity, aggressor, trade.trade_time_ms * 1000)
