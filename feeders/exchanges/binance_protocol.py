"""Binance spot: its messages."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import gt, itemgetter, lt
from typing import Annotated, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from bookbus.feeders.books.events import Acknowledged, ClosingSoon, Ignored, Refused, Topic, TradeHappened
from bookbus.feeders.books.order_book import DepthSnapshot
from bookbus.feeders.books.synchronizer import BookSync, RangeSync, ReplaceSync
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.exchanges.drift import Timestamp, cut_levels, microseconds, repaired, usable_time
from bookbus.feeders.venue import ControlMessage, DepthMessage, FeedOptions, Message, require_symbol
from bookbus.schemas.decoding import json_decoder
from bookbus.schemas.snapshot import Levels, PositiveNumber, Side, UpdateId

MAX_SUBSCRIBE_BYTES = 4_000
"""The exchange ignores a SUBSCRIBE of about 4,096 bytes or more and sends no reply."""

MAX_STREAMS_PER_REQUEST = 150

PARTIAL_DEPTHS = (5, 10, 20)
FIRST_LIMIT = 100
DEEP_LIMIT = 1_000
MAX_LIMIT = 5_000

_ENVELOPE_BYTES = 80
"""More than a SUBSCRIBE takes beside its streams."""

_STREAM_START = b'{"stream":"'

_NUMBER = re.compile(rb'"([0-9.]+)"')

Quantity = Annotated[float, msgspec.Meta(ge=0, le=1.7e308)]
Data = TypeVar("Data")

_price = itemgetter(0)


class _Error(msgspec.Struct):
    code: int | None = None
    msg: str = ""


class _Envelope(msgspec.Struct):
    """Fields of any message except its data: a stream, a control reply (with `id`), or a bare notice (with `e`)."""

    stream: str = ""
    id: int | str | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Error | None = None
    code: int | None = None
    msg: str = ""
    e: str = ""
    symbol: str = msgspec.field(name="s", default="")
    update_id: int | None = msgspec.field(name="u", default=None)
    last_id: int | None = msgspec.field(name="lastUpdateId", default=None)


class _Framed(msgspec.Struct, Generic[Data]):
    """A combined-stream frame."""

    data: Data


class Diff(msgspec.Struct):
    event: Literal["depthUpdate"] = msgspec.field(name="e")
    event_time: Timestamp = msgspec.field(name="E")
    first_id: UpdateId = msgspec.field(name="U")
    last_id: UpdateId = msgspec.field(name="u")
    bids: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="b")
    asks: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="a")

    is_whole: ClassVar[bool] = False

    @property
    def exchange_us(self) -> int:
        return microseconds(self.event_time)


class Whole(msgspec.Struct):
    """Partial depth frame and REST depth answer: no symbol and no time in either."""

    last_id: UpdateId = msgspec.field(name="lastUpdateId")
    bids: list[tuple[PositiveNumber, PositiveNumber]]
    asks: list[tuple[PositiveNumber, PositiveNumber]]
    exchange_us: ClassVar[None] = None
    is_whole: ClassVar[bool] = True

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
    is_whole: ClassVar[bool] = True

    @property
    def first_id(self) -> int:
        return self.last_id

    @property
    def bids(self) -> Levels:
        return ((self.bid, self.bid_quantity),) if self.bid and self.bid_quantity else ()

    @property
    def asks(self) -> Levels:
        return ((self.ask, self.ask_quantity),) if self.ask and self.ask_quantity else ()


class _Trade(msgspec.Struct):
    event: Literal["trade"] = msgspec.field(name="e")
    trade_id: UpdateId = msgspec.field(name="t")
    price: PositiveNumber = msgspec.field(name="p")
    quantity: PositiveNumber = msgspec.field(name="q")
    trade_time: Timestamp = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")


class _Kind(NamedTuple):
    """How the streams of one kind are decoded; `sides` are the fields that hold levels."""

    topic: Topic
    decode: Callable[[bytes], Any]
    framed: Any
    sides: Sequence[str]


class _Stream(NamedTuple):
    """A stream by its parsed name."""

    name: str
    topic: Topic
    native: str
    decode: Callable[[bytes], Any]
    kind: _Kind


class BinanceProtocol:
    """Combined streams of some symbols."""

    numbers = _NUMBER

    def __init__(self, natives: Iterable[str] | None, options: FeedOptions, *, recorded: bool = False) -> None:
        """Raises ValueError for a depth that the exchange does not have."""
        if options.mode == "partial" and options.depth > PARTIAL_DEPTHS[-1]:
            raise ValueError(
                f"--mode partial has at most {PARTIAL_DEPTHS[-1]} levels; use --mode diff for {options.depth}"
            )
        if options.depth > MAX_LIMIT:
            raise ValueError(f"at most {MAX_LIMIT} levels can be known, not {options.depth}")
        self._options = options
        self._recorded = recorded
        self._any_symbol = natives is None
        self._by_name = {native.lower(): native for native in natives or ()}
        """Symbols by the name that streams use."""
        self.natives: Sequence[str] = tuple(self._by_name.values())
        self._streams: dict[bytes, _Stream] = {}

    def streams(self, native: str) -> Mapping[Topic, str]:
        book = "depth" if self._options.mode == "diff" else f"depth{self._partial_depth()}"
        names: dict[Topic, str] = {"book": f"{book}@100ms", "quote": "bookTicker", "trades": "trade"}
        prefix = native.lower()
        return {topic: f"{prefix}@{name}" for topic, name in names.items() if topic in self._options.topics}

    def subscribe(
        self, natives: Sequence[str], ids: Iterator[int], *, again: Sequence[str] = ()
    ) -> list[ControlMessage]:
        """The control messages that ask for every stream, each small enough for the exchange to read."""
        chunks: list[dict[str, str]] = []
        size = MAX_SUBSCRIBE_BYTES
        for native in again or natives:
            for stream in self.streams(native).values():
                added = len(stream.encode()) + len('"",')
                if size + added > MAX_SUBSCRIBE_BYTES or len(chunks[-1]) == MAX_STREAMS_PER_REQUEST:
                    chunks.append({})
                    size = _ENVELOPE_BYTES
                chunks[-1][stream] = native
                size += added
        return [_control_message(next(ids), chunk) for chunk in chunks]

    def decode(self, frame: bytes) -> Sequence[Message]:
        stream = self._streams.get(_stream_name(frame))
        if stream is None:
            envelope: _Envelope = _decode_envelope(frame)
            if not envelope.stream and _is_data(envelope):
                return self._decode_single(frame, envelope)
            if envelope.stream in ("", "!serverShutdown"):
                return (_control(envelope),)
            stream = self._stream(envelope.stream)
            if stream is None:
                return self._ignored(envelope.stream)
            if name := _stream_name(frame):
                self._streams[name] = stream
        ignored = ""
        try:
            data = stream.decode(frame).data
        except WebSocketProtocolError as error:
            data, ignored = _decode_repaired(stream, frame, error)
        message: Message
        if stream.topic == "trades":
            message = _trade(stream.native, data)
        elif not data.is_whole and data.first_id > data.last_id:
            raise WebSocketProtocolError(f"{stream.name}: first id {data.first_id} above last id {data.last_id}")
        else:
            message = DepthMessage(stream.native, stream.topic, stream.name, data)
        return (message, Ignored(stream.native, ignored)) if ignored else (message,)

    def synchronizer(self, native: str, topic: Topic, stream: str | None, lines: set[int]) -> BookSync:
        """Diffs by snapshot and ranges of ids; partial depth and quotes are whole books."""
        depth = self._options.depth
        is_diff = self._options.mode == "diff" if stream is None else stream.split("@")[1] == "depth"
        if topic == "book" and is_diff:
            first = min(max(FIRST_LIMIT, 2 * depth), MAX_LIMIT)
            deep = min(max(self._options.snapshot_limit or DEEP_LIMIT, first), MAX_LIMIT)
            return RangeSync(native, depth, lines, first, deep)
        return ReplaceSync(native, depth, lines, topic)

    def _decode_single(self, frame: bytes, envelope: _Envelope) -> Sequence[Message]:
        """Data of a single-stream connection (`/ws/<stream>`), which names its symbol but not its stream."""
        if not envelope.symbol:
            raise WebSocketProtocolError(
                "a frame of a single-stream connection that does not name its symbol: record combined streams (/stream)"
            )
        kind = _SINGLE_KINDS.get(envelope.e, envelope.e)
        name = f"{envelope.symbol.lower()}@{kind}"
        stream = self._stream(name, any_speed=True)
        if stream is None:
            return self._ignored(name)
        return self.decode(b'{"stream":"%b","data":%b}' % (stream.name.encode(), frame))

    def _ignored(self, name: str) -> Sequence[Message]:
        """Data of a stream that is not used; none if another symbol or topic was asked for."""
        symbol, _, kind = name.partition("@")
        known = _KINDS.get(kind.partition("@")[0])
        left_out = known is not None and known.topic not in self._options.topics
        if left_out or not (self._any_symbol or symbol.startswith("!") or symbol in self._by_name):
            return ()
        return (Ignored(symbol.upper(), kind if not symbol.startswith("!") else name),)

    def _partial_depth(self) -> int:
        return next(depth for depth in PARTIAL_DEPTHS if depth >= self._options.depth)

    def _stream(self, name: str, *, any_speed: bool = False) -> _Stream | None:
        """None for a stream that was not subscribed, except in a recording.

        `any_speed` takes the subscribed stream of the same kind and symbol for one whose speed is not known.
        """
        symbol, _, rest = name.partition("@")
        kind = _KINDS.get(start := rest.partition("@")[0])
        native = self._by_name.get(symbol)
        if kind is None or kind.topic not in self._options.topics or not (native or self._any_symbol):
            return None
        native = native or require_symbol("binance", symbol.upper())
        names = self.streams(native).values()
        if any_speed:
            name = next((known for known in names if known.partition("@")[2].partition("@")[0] == start), name)
        if not self._recorded and name not in names:
            return None
        return _Stream(name, kind.topic, native, kind.decode, kind)


def decode_answer(body: bytes) -> DepthSnapshot:
    """The book in a REST depth answer. Raises WebSocketProtocolError if there is none."""
    book: DepthSnapshot
    try:
        book = _decode_answer(body)
    except WebSocketProtocolError as error:
        book, _ = repaired(body, Whole, lambda fields: cut_levels(fields, "bids", "asks"), error)
    return book


def request_of(url: str) -> tuple[str, int] | None:
    """Symbol and levels a side of a depth request, None for another. Raises WebSocketProtocolError if invalid."""
    try:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        limit = min(int(query.get("limit", ["100"])[0]), MAX_LIMIT)
    except ValueError as error:
        raise WebSocketProtocolError(f"not the address of a request: {error}") from error
    if not parts.path.endswith("/depth") or "symbol" not in query:
        return None
    return require_symbol("binance", query["symbol"][0]), limit


def _control_message(request_id: int, streams: Mapping[str, str]) -> ControlMessage:
    message = {"method": "SUBSCRIBE", "params": list(streams), "id": request_id}
    natives = tuple(dict.fromkeys(streams.values()))
    return ControlMessage(request_id, msgspec.json.encode(message).decode(), natives)


def _control(envelope: _Envelope) -> Message:
    if envelope.stream == "!serverShutdown" or envelope.e == "serverShutdown":
        return ClosingSoon("the exchange announced a shutdown of this connection")
    error = envelope.error or (_Error(envelope.code, envelope.msg) if envelope.code is not None else None)
    request_id = envelope.id if isinstance(envelope.id, int) else None
    if error is not None:
        return Refused(request_id, f"{error.msg} (code {error.code})")
    if envelope.result is msgspec.UNSET or request_id is None:
        raise WebSocketProtocolError("neither a subscribed stream nor a control reply")
    return Acknowledged(request_id)


def _trade(native: str, trade: _Trade) -> TradeHappened:
    aggressor: Side = "sell" if trade.buyer_is_maker else "buy"
    return TradeHappened(native, trade.trade_id, trade.price, trade.quantity, aggressor, microseconds(trade.trade_time))


def _is_data(envelope: _Envelope) -> bool:
    """Whether a frame without a stream's name is market data, and no reply or notice."""
    if envelope.e:
        return envelope.e != "serverShutdown"
    return envelope.last_id is not None or bool(envelope.symbol and envelope.update_id is not None)


def _decode_repaired(stream: _Stream, frame: bytes, error: WebSocketProtocolError) -> tuple[Any, str]:
    """Data that the strict decoder refused with `error`, and the name of what is ignored of it."""

    def repair(message: dict[str, Any]) -> str:
        fields = message["data"]
        for name in ("E", "T"):
            if name in fields:
                fields[name] = usable_time(fields[name])
        return cut_levels(fields, *stream.kind.sides)

    framed, ignored = repaired(frame, stream.kind.framed, repair, error)
    return framed.data, ignored


def _stream_name(frame: bytes) -> bytes:
    """The stream's name if it is the first field of the frame, where the exchange writes it; else empty."""
    start = len(_STREAM_START)
    return frame[start : frame.find(b'"', start)] if frame.startswith(_STREAM_START) else b""


_decode_envelope = json_decoder(_Envelope, "a message", WebSocketProtocolError)
_decode_answer = json_decoder(Whole, "a depth answer", WebSocketProtocolError)


def _kind(topic: Topic, data: Any, what: str, sides: Sequence[str] = ()) -> _Kind:
    framed = _Framed[data]
    return _Kind(topic, json_decoder(framed, what, WebSocketProtocolError), framed, sides)


_KINDS: Mapping[str, _Kind] = {
    "depth": _kind("book", Diff, "a diff depth frame", ("b", "a")),
    **{f"depth{depth}": _kind("book", Whole, "a partial depth frame", ("bids", "asks")) for depth in PARTIAL_DEPTHS},
    "bookTicker": _kind("quote", Ticker, "a book ticker frame"),
    "trade": _kind("trades", _Trade, "a trade frame"),
}

_SINGLE_KINDS = {"depthUpdate": "depth", "": "bookTicker"}
"""Kind of a stream by the event that its data names, where they differ; the best prices name none."""
