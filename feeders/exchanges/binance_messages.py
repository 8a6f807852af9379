"""Binance spot: what messages look like, decoded and checked in one pass."""

from collections.abc import Callable
from operator import gt, itemgetter, lt
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.schemas.snapshot import Levels, PositiveNumber, UpdateId

_STREAM_START = b'{"stream":"'

Quantity = Annotated[float, msgspec.Meta(ge=0, le=1.7e308)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
Data = TypeVar("Data")

_price = itemgetter(0)


class Complaint(msgspec.Struct):
    code: int | None = None
    msg: str = ""


class Envelope(msgspec.Struct):
    """What any message may say beside its data: a stream, a control reply (with `id`), or a bare notice (with `e`)."""

    stream: str = ""
    id: int | str | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: Complaint | None = None
    code: int | None = None
    msg: str = ""
    e: str = ""


class Framed(msgspec.Struct, Generic[Data]):
    """A combined-stream frame."""

    data: Data


class Diff(msgspec.Struct):
    event: Literal["depthUpdate"] = msgspec.field(name="e")
    event_time_ms: Milliseconds = msgspec.field(name="E")
    first_id: UpdateId = msgspec.field(name="U")
    last_id: UpdateId = msgspec.field(name="u")
    bids: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="b")
    asks: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="a")

    @property
    def exchange_us(self) -> int:
        return self.event_time_ms * 1000


class Whole(msgspec.Struct):
    """Partial depth frame and REST depth answer: no symbol and no time in either."""

    last_id: UpdateId = msgspec.field(name="lastUpdateId")
    bids: list[tuple[PositiveNumber, PositiveNumber]]
    asks: list[tuple[PositiveNumber, PositiveNumber]]
    exchange_us: ClassVar[None] = None

    def __post_init__(self) -> None:
        bids, asks = list(map(_price, self.bids)), list(map(_price, self.asks))
        if not (all(map(gt, bids, bids[1:])) and all(map(lt, asks, asks[1:]))):
            raise ValueError("levels out of order")

    @property
    def first_id(self) -> int:
        return self.last_id


class Ticker(msgspec.Struct):
    """Best bid and offer: a whole book of one level, without a time. Zeros stand for an empty side."""

    last_id: UpdateId = msgspec.field(name="u")
    bid: Quantity = msgspec.field(name="b")
    bid_quantity: Quantity = msgspec.field(name="B")
    ask: Quantity = msgspec.field(name="a")
    ask_quantity: Quantity = msgspec.field(name="A")
    exchange_us: ClassVar[None] = None

    @property
    def first_id(self) -> int:
        return self.last_id

    @property
    def bids(self) -> Levels:
        return ((self.bid, self.bid_quantity),) if self.bid and self.bid_quantity else ()

    @property
    def asks(self) -> Levels:
        return ((self.ask, self.ask_quantity),) if self.ask and self.ask_quantity else ()


class Trade(msgspec.Struct):
    event: Literal["trade"] = msgspec.field(name="e")
    trade_id: UpdateId = msgspec.field(name="t")
    price: PositiveNumber = msgspec.field(name="p")
    quantity: PositiveNumber = msgspec.field(name="q")
    trade_time_ms: Milliseconds = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")


def _decoder(kind: Any, name: str) -> Callable[[bytes], Any]:
    decode = msgspec.json.Decoder(kind, strict=False).decode

    def checked(data: bytes) -> Any:
        try:
            return decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise WebSocketProtocolError(f"not a {name}: {error}") from error

    return checked


decode_envelope = _decoder(Envelope, "message")
decode_diff = _decoder(Framed[Diff], "diff depth frame")
decode_partial = _decoder(Framed[Whole], "partial depth frame")
decode_ticker = _decoder(Framed[Ticker], "book ticker frame")
decode_trade = _decoder(Framed[Trade], "trade frame")
decode_answer = _decoder(Whole, "depth answer")


def stream_name(frame: bytes) -> bytes:
    """The stream as it stands where the exchange writes it, first in the frame; anywhere else it is not looked for."""
    start = len(_STREAM_START)
    return frame[start : frame.find(b'"', start)] if frame.startswith(_STREAM_START) else b""
