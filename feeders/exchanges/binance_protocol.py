"""Binance spot: frames and answers in, events out."""

import re
from collections.abc import Callable, Iterable, Sequence
from operator import gt, itemgetter, lt
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from bookbus.feeders.books.arbitration import LineArbiter
from bookbus.feeders.books.events import Acknowledged, ClosingSoon, Event, PrecisionLost, Refused, Topic, TradeHappened
from bookbus.feeders.books.history import BookHistory
from bookbus.feeders.books.synchronizer import NOTHING, BookSync, RangeSync, ReplaceSync
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.venue import FeedOptions, Request, require_symbol
from bookbus.schemas.decoding import DECODE_ERRORS
from bookbus.schemas.instruments import EXACT_DIGITS, significant_digits
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
        except DECODE_ERRORS as error:
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


MAX_SUBSCRIBE_BYTES = 4_000
"""A SUBSCRIBE of about 4,096 bytes or more is ignored by the exchange without a word."""

_ENVELOPE_BYTES = 80
"""More than a SUBSCRIBE takes beside its streams."""

MAX_STREAMS_PER_REQUEST = 150

MAX_UNANSWERED = 500
"""Requests remembered until they are answered: many times what connections ask at once. Lost ones never are."""

MAX_FRAME_BYTES = 1 << 20
"""Many times what the busiest symbol sends in one message."""

PARTIAL_DEPTHS = (5, 10, 20)
FIRST_LIMIT = 100
DEEP_LIMIT = 1_000
MAX_LIMIT = 5_000

_STREAM_TOPICS: dict[str, Topic] = {"depth": "book", "bookTicker": "quote", "trade": "trades"}
_NUMBER = re.compile(rb'"([0-9.]+)"')

Receiver = Callable[[bytes, int], Sequence[Event]]


class BinanceProtocol:
    """Every symbol of one connection, or of several that carry the same symbols (`lines`)."""

    def __init__(self, natives: Iterable[str] | None, options: FeedOptions) -> None:
        """`natives` None takes whatever symbol arrives, which is what a recording needs."""
        if options.mode == "partial" and options.depth > PARTIAL_DEPTHS[-1]:
            raise ValueError(
                f"--mode partial has at most {PARTIAL_DEPTHS[-1]} levels; use --mode diff for {options.depth}"
            )
        if options.depth > MAX_LIMIT:
            raise ValueError(f"at most {MAX_LIMIT} levels can be known, not {options.depth}")
        self._options = options
        self.race: LineArbiter | None = None
        self._lines: set[int] = set()
        self._syncs: dict[tuple[Topic, str], BookSync] = {}
        self._receivers: dict[bytes, Receiver] = {}
        self._sources: dict[tuple[Topic, str], str] = {}
        self._requests: dict[int, tuple[str, ...]] = {}
        self._request_id = 0
        self._checked: set[str] = set()
        self._one_sided: set[str] = set()
        """Symbols whose last snapshot had a side without one level."""
        self._takes_all = natives is None
        self._natives = {native.lower(): native for native in natives or ()}
        """By the name that streams use."""
        for native in self._natives.values():
            if "book" in options.topics:
                _ = self._range_sync(native) if options.mode == "diff" else self._replace_sync("book", native)
            if "quote" in options.topics:
                self._replace_sync("quote", native)

    @property
    def natives(self) -> Sequence[str]:
        """Symbols that have a book here, or will have."""
        return tuple(native for topic, native in self._syncs if topic == "book")

    def update_id(self, native: str, topic: Topic = "book") -> int | None:
        """Where the book or quote is; None while there is none to trust."""
        return self._syncs[topic, native].update_id

    def is_behind(self, native: str, topic: Topic = "book") -> bool:
        """Whether the book or quote may be older than what its lines brought."""
        return self._syncs[topic, native].is_behind

    def subscribe(self, natives: Sequence[str] | None = None) -> list[Request]:
        """The control messages that ask for every stream, each small enough for the exchange to read."""
        wanted = self._natives.values() if natives is None else natives
        chunks: list[list[str]] = []
        size = MAX_SUBSCRIBE_BYTES
        for stream in [stream for native in wanted for stream in self._streams(native)]:
            added = len(stream.encode()) + len('"",')
            if size + added > MAX_SUBSCRIBE_BYTES or len(chunks[-1]) == MAX_STREAMS_PER_REQUEST:
                chunks.append([])
                size = _ENVELOPE_BYTES
            chunks[-1].append(stream)
            size += added
        return [self._request(chunk) for chunk in chunks]

    def line_up(self, line: int) -> None:
        """From now on this connection brings every update."""
        self._lines.add(line)

    def line_down(self, line: int, reason: str) -> Sequence[Event]:
        """The connection is gone."""
        self._lines.discard(line)
        return [event for sync in self._syncs.values() for event in sync.line_down(line, reason)]

    def receive(self, frame: bytes, line: int = 0) -> Sequence[Event]:
        """What one WebSocket message says. Raises WebSocketProtocolError if it makes no sense."""
        if len(frame) > MAX_FRAME_BYTES:
            raise WebSocketProtocolError(f"{len(frame)} bytes are more than any message has")
        receiver = self._receivers.get(stream_name(frame))
        return self._receive_other(frame, line) if receiver is None else receiver(frame, line)

    def snapshot_requested(self, native: str) -> None:
        """The request for a snapshot leaves now: updates from here on may have to follow its answer."""
        if isinstance(sync := self._syncs.get(("book", native)), RangeSync):
            sync.snapshot_requested()

    def apply_snapshot(self, native: str, limit: int, body: bytes) -> Sequence[Event]:
        """What a REST depth answer says. Raises WebSocketProtocolError if it makes no sense."""
        whole: Whole = decode_answer(body)
        self._doubt_one_sided(native, whole)
        return self._take_answer(native, limit, body, whole)

    def record(self, native: str) -> BookHistory | None:
        """Keep what a book built from diffs goes through from now on; None while there is none to trust."""
        sync = self._syncs.get(("book", native))
        return sync.record() if isinstance(sync, RangeSync) else None

    def invalidate(self, native: str, reason: str) -> Sequence[Event]:
        """Somebody knows that a recorded book is not the exchange's."""
        sync = self._syncs.get(("book", native))
        return sync.invalidate(reason) if isinstance(sync, RangeSync) else NOTHING

    def receive_recorded(self, url: str, body: bytes) -> Sequence[Event]:
        """What an HTTP answer of a recording says; only depth answers say anything."""
        try:
            parts = urlsplit(url)
            query = parse_qs(parts.query)
            limit = min(int(query.get("limit", ["100"])[0]), MAX_LIMIT)
        except ValueError as error:
            raise WebSocketProtocolError(f"not the address of a request: {error}") from error
        if not parts.path.endswith("/depth") or "symbol" not in query:
            return NOTHING
        native = query["symbol"][0]
        known = self._syncs.get(("book", native))
        if known is None and self._takes_all and self._options.mode == "diff" and "book" in self._options.topics:
            known = self._range_sync(require_symbol("binance", native))
        if isinstance(known, RangeSync):
            # Somebody asked, perhaps before the first update came: a quiet symbol sends none for minutes.
            known.start()
        return self._take_answer(native, limit, body, decode_answer(body))

    def _streams(self, native: str) -> list[str]:
        topics, name = self._options.topics, native.lower()
        book = "depth" if self._options.mode == "diff" else f"depth{self._partial_depth()}"
        wanted = (("book", f"{book}@100ms"), ("quote", "bookTicker"), ("trades", "trade"))
        return [f"{name}@{stream}" for topic, stream in wanted if topic in topics]

    def _partial_depth(self) -> int:
        return next(depth for depth in PARTIAL_DEPTHS if depth >= self._options.depth)

    def _receive_other(self, frame: bytes, line: int) -> Sequence[Event]:
        """A stream's first frame, one of a stream nobody asked for, or what is no stream's."""
        envelope: Envelope = decode_envelope(frame)
        if envelope.stream in ("", "!serverShutdown"):
            return self._control(envelope)
        receiver = self._receiver(envelope.stream)
        if receiver is None:
            return NOTHING
        if name := stream_name(frame):
            self._receivers[name] = receiver
        return receiver(frame, line)

    def _receiver(self, stream: str) -> Receiver | None:
        """Who takes a stream's frames; None if nobody asked for it or another stream brings the same already."""
        name, _, kind = stream.partition("@")
        native = self._natives.get(name) or (require_symbol("binance", name.upper()) if self._takes_all else None)
        kind = kind.partition("@")[0]
        topic = _STREAM_TOPICS.get(kind.rstrip("0123456789"))
        if native is None or topic not in self._options.topics:
            return None
        # What was not asked for comes in recordings only, which are not subscribed to.
        if self._request_id and stream not in self._streams(native):
            return None
        if self._sources.setdefault((topic, native), stream) != stream:
            return None
        if topic == "trades":
            return lambda frame, _: [_trade(native, decode_trade(frame).data)]
        if topic == "quote":
            receive_quote = self._replace_sync("quote", native).receive_update
            return lambda frame, line: receive_quote(decode_ticker(frame).data, line)
        if kind == "depth":
            return self._diff_receiver(native)
        return self._partial_receiver(native)

    def _diff_receiver(self, native: str) -> Receiver:
        receive_update = self._range_sync(native).receive_update

        def receive(frame: bytes, line: int) -> Sequence[Event]:
            diff: Diff = decode_diff(frame).data
            if diff.first_id > diff.last_id:
                raise WebSocketProtocolError(f"{native}: first id {diff.first_id} above last id {diff.last_id}")
            if self.race is not None:
                self.race.note(native, diff.last_id)
            return receive_update(diff, line)

        return receive

    def _partial_receiver(self, native: str) -> Receiver:
        receive_update = self._replace_sync("book", native).receive_update

        def receive(frame: bytes, line: int) -> Sequence[Event]:
            whole: Whole = decode_partial(frame).data
            if self.race is not None:
                self.race.note(native, whole.last_id)
            events = receive_update(whole, line)
            return events if native in self._checked else [*self._check_precision(native, frame), *events]

        return receive

    def _range_sync(self, native: str) -> RangeSync:
        depth = self._options.depth
        first = min(max(FIRST_LIMIT, 2 * depth), MAX_LIMIT)
        deep = min(max(self._options.snapshot_limit or DEEP_LIMIT, first), MAX_LIMIT)
        sync = self._syncs.get(("book", native))
        if not isinstance(sync, RangeSync):
            sync = self._syncs["book", native] = RangeSync(native, depth, self._lines, first, deep)
        return sync

    def _replace_sync(self, topic: Topic, native: str) -> ReplaceSync:
        sync = self._syncs.get((topic, native))
        if not isinstance(sync, ReplaceSync):
            sync = self._syncs[topic, native] = ReplaceSync(native, self._options.depth, self._lines, topic)
        return sync

    def _control(self, envelope: Envelope) -> Sequence[Event]:
        if envelope.stream == "!serverShutdown" or envelope.e == "serverShutdown":
            return [ClosingSoon("the exchange announced a shutdown of this connection")]
        complaint = envelope.error or (Complaint(envelope.code, envelope.msg) if envelope.code is not None else None)
        request_id = envelope.id if isinstance(envelope.id, int) else None
        if complaint is not None:
            return [Refused(request_id, f"{complaint.msg} (code {complaint.code})")]
        if envelope.result is msgspec.UNSET or request_id is None:
            raise WebSocketProtocolError("neither a subscribed stream nor a control reply")
        natives = self._requests.pop(request_id, ())
        syncs = (self._syncs.get(("book", native)) for native in natives)
        started = [event for sync in syncs if isinstance(sync, RangeSync) for event in sync.start()]
        return [Acknowledged(request_id), *started]

    def _request(self, streams: Sequence[str]) -> Request:
        self._request_id += 1
        names = dict.fromkeys(stream.partition("@")[0] for stream in streams)
        self._requests[self._request_id] = tuple(self._natives[name] for name in names)
        self._requests.pop(self._request_id - MAX_UNANSWERED, None)
        message = {"method": "SUBSCRIBE", "params": streams, "id": self._request_id}
        return Request(self._request_id, msgspec.json.encode(message).decode())

    def _take_answer(self, native: str, limit: int, body: bytes, whole: Whole) -> Sequence[Event]:
        sync = self._syncs.get(("book", native))
        if not isinstance(sync, RangeSync):
            return NOTHING
        return [*self._check_precision(native, body), *sync.receive_snapshot(whole, limit)]

    def _doubt_one_sided(self, native: str, whole: Whole) -> None:
        """Such a market is rarer than an answer that lacks what it should hold: raises unless the last said so too."""
        if whole.bids and whole.asks:
            self._one_sided.discard(native)
        elif native not in self._one_sided:
            self._one_sided.add(native)
            raise WebSocketProtocolError("one side has no level: asking again to be sure")

    def _check_precision(self, native: str, body: bytes) -> Sequence[Event]:
        """Once a symbol: whether its numbers fit float64."""
        if native in self._checked:
            return NOTHING
        self._checked.add(native)
        numbers = (number.decode() for number in _NUMBER.findall(body))
        lost = next((number for number in numbers if significant_digits(number) > EXACT_DIGITS), None)
        return NOTHING if lost is None else [PrecisionLost(native, lost)]


def _trade(native: str, trade: Trade) -> Event:
    aggressor: Literal["buy", "sell"] = "sell" if trade.buyer_is_maker else "buy"
    return TradeHappened(native, trade.trade_id, trade.price, trade.quantity, aggressor, trade.trade_time_ms * 1000)
