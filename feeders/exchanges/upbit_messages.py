"""Upbit: what messages look like in either spelling, decoded and checked in one pass."""

import re
from collections.abc import Iterator, Sequence
from operator import gt, itemgetter, lt
from typing import Annotated, Literal

import msgspec

from bookbus.feeders.books.order_book import DepthChange
from bookbus.feeders.errors import WebSocketProtocolError
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
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
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
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        raise WebSocketProtocolError(f"not an Upbit message: {reason}") from reason
    messages = message if isinstance(message, list) else [message]
    if not all(each.error or each.is_known for each in messages):
        raise WebSocketProtocolError(f"neither a book nor a trade: {reason}") from reason
    return messages
