"""Binance spot: frames and answers in, events out."""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

import msgspec

from feeders.errors import WebSocketProtocolError
from feeders.events import Acknowledged, ClosingSoon, Event, PrecisionLost, Refused, Topic, TradeHappened
from feeders.exchanges.venue import FeedOptions, Request
from feeders.sync import NOTHING, BookSync, RangeSync, ReplaceSync
from schemas.instruments import EXACT_DIGITS, significant_digits
from schemas.snapshot import Levels, PositiveNumber, UpdateId

MAX_SUBSCRIBE_BYTES = 4_000
"""A SUBSCRIBE of about 4,096 bytes or more is ignored by the exchange without a word."""

_ENVELOPE_BYTES = 80
"""More than a SUBSCRIBE takes beside its streams."""

MAX_STREAMS_PER_REQUEST = 150
PARTIAL_DEPTHS = (5, 10, 20)
FIRST_LIMIT = 100
DEEP_LIMIT = 1_000
MAX_LIMIT = 5_000

Quantity = Annotated[float, msgspec.Meta(ge=0, le=1.7e308)]
Receiver = Callable[[msgspec.Raw, int], Sequence[Event]]


class _Complaint(msgspec.Struct):
    code: int | None = None
    msg: str = ""


class _Envelope(msgspec.Struct):
    """A combined-stream frame, a control reply (with `id`), or a bare notice (with `e`)."""

    stream: str = ""
    data: msgspec.Raw = msgspec.Raw()
    id: int | str | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: _Complaint | None = None
    code: int | None = None
    msg: str = ""
    e: str = ""


class _Diff(msgspec.Struct):
    event: Literal["depthUpdate"] = msgspec.field(name="e")
    event_time_ms: int = msgspec.field(name="E")
    first_id: UpdateId = msgspec.field(name="U")
    last_id: UpdateId = msgspec.field(name="u")
    bids: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="b")
    asks: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="a")

    @property
    def exchange_us(self) -> int:
        return self.event_time_ms * 1000


class _Whole(msgspec.Struct):
    """Partial depth frame and REST depth answer: no symbol and no time in either."""

    last_id: UpdateId = msgspec.field(name="lastUpdateId")
    bids: list[tuple[PositiveNumber, PositiveNumber]]
    asks: list[tuple[PositiveNumber, PositiveNumber]]
    exchange_us: None = None

    @property
    def first_id(self) -> int:
        return self.last_id


class _Ticker(msgspec.Struct):
    """Best bid and offer: a whole book of one level, without a time."""

    last_id: UpdateId = msgspec.field(name="u")
    bid: PositiveNumber = msgspec.field(name="b")
    bid_quantity: PositiveNumber = msgspec.field(name="B")
    ask: PositiveNumber = msgspec.field(name="a")
    ask_quantity: PositiveNumber = msgspec.field(name="A")
    exchange_us: None = None

    @property
    def first_id(self) -> int:
        return self.last_id

    @property
    def bids(self) -> Levels:
        return ((self.bid, self.bid_quantity),)

    @property
    def asks(self) -> Levels:
        return ((self.ask, self.ask_quantity),)


class _Trade(msgspec.Struct):
    event: Literal["trade"] = msgspec.field(name="e")
    trade_id: int = msgspec.field(name="t")
    price: PositiveNumber = msgspec.field(name="p")
    quantity: PositiveNumber = msgspec.field(name="q")
    trade_time_ms: int = msgspec.field(name="T")
    buyer_is_maker: bool = msgspec.field(name="m")


class _WholeText(msgspec.Struct):
    bids: list[tuple[str, str]]
    asks: list[tuple[str, str]]


def _decoder(kind: type[Any]) -> Callable[[bytes | msgspec.Raw], Any]:
    decode = msgspec.json.Decoder(kind, strict=False).decode

    def checked(data: bytes | msgspec.Raw) -> Any:
        try:
            return decode(data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise WebSocketProtocolError(f"not a {kind.__name__.lstrip('_').lower()}: {error}") from error

    return checked


_decode_envelope = _decoder(_Envelope)
_decode_diff = _decoder(_Diff)
_decode_whole = _decoder(_Whole)
_decode_ticker = _decoder(_Ticker)
_decode_trade = _decoder(_Trade)
_decode_whole_text = _decoder(_WholeText)


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
        self._lines: set[int] = set()
        self._syncs: dict[tuple[Topic, str], BookSync] = {}
        self._receivers: dict[str, Receiver | None] = {}
        self._requests: dict[int, tuple[str, ...]] = {}
        self._request_id = 0
        self._checked: set[str] = set()
        self._takes_all = natives is None
        self._natives = tuple(natives or ())
        for native in self._natives:
            for stream in self._streams(native):
                self._receivers[stream] = self._receiver(stream)

    @property
    def natives(self) -> Sequence[str]:
        """Symbols that have a book here, or will have."""
        return tuple(native for topic, native in self._syncs if topic == "book")

    def update_id(self, native: str, topic: Topic = "book") -> int | None:
        """Where the book or quote is; None while there is none to trust."""
        return self._syncs[topic, native].update_id

    def subscribe(self, natives: Sequence[str] | None = None) -> list[Request]:
        """The control messages that ask for every stream, each small enough for the exchange to read."""
        wanted = self._natives if natives is None else natives
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

    def open_line(self, line: int) -> None:
        """From now on this connection brings every update."""
        self._lines.add(line)

    def lose_line(self, line: int, reason: str) -> Sequence[Event]:
        """The connection is gone."""
        self._lines.discard(line)
        return [event for sync in self._syncs.values() for event in sync.lose_line(line, reason)]

    def receive(self, frame: bytes, line: int = 0) -> Sequence[Event]:
        """What one WebSocket message says. Raises WebSocketProtocolError if it makes no sense."""
        envelope: _Envelope = _decode_envelope(frame)
        stream = envelope.stream
        try:
            receiver = self._receivers[stream]
        except KeyError:
            receiver = self._receivers[stream] = self._receiver(stream)
        if receiver is not None:
            return receiver(envelope.data, line)
        return NOTHING if stream and not stream.startswith("!") else self._control(envelope)

    def receive_answer(self, native: str, limit: int, body: bytes) -> Sequence[Event]:
        """What a REST depth answer says."""
        whole: _Whole = _decode_whole(body)
        sync = self._syncs.get(("book", native))
        if not isinstance(sync, RangeSync):
            return NOTHING
        return [*self._check_precision(native, body), *sync.receive_snapshot(whole, limit)]

    def receive_recorded(self, url: str, body: bytes) -> Sequence[Event]:
        """What an HTTP answer of a recording says; only depth answers say anything."""
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        if not parts.path.endswith("/depth") or "symbol" not in query:
            return NOTHING
        return self.receive_answer(query["symbol"][0], int(query.get("limit", ["100"])[0]), body)

    def _streams(self, native: str) -> list[str]:
        topics, name = self._options.topics, native.lower()
        book = "depth" if self._options.mode == "diff" else f"depth{self._partial_depth()}"
        wanted = (("book", f"{book}@100ms"), ("quote", "bookTicker"), ("trades", "trade"))
        return [f"{name}@{stream}" for topic, stream in wanted if topic in topics]

    def _partial_depth(self) -> int:
        return next(depth for depth in PARTIAL_DEPTHS if depth >= self._options.depth)

    def _receiver(self, stream: str) -> Receiver | None:
        """Who takes a stream's data; None for a stream nobody asked for."""
        name, _, kind = stream.partition("@")
        native, kind = name.upper(), kind.partition("@")[0]
        if not (self._takes_all or native in self._natives):
            return None
        topics = self._options.topics
        if kind == "depth" and "book" in topics:
            return self._diff_receiver(native)
        if kind.startswith("depth") and "book" in topics:
            return self._replace_receiver("book", native, self._options.depth, _decode_whole)
        if kind == "bookTicker" and "quote" in topics:
            return self._replace_receiver("quote", native, 1, _decode_ticker)
        if kind == "trade" and "trades" in topics:
            return lambda data, _: [_trade(native, _decode_trade(data))]
        return None

    def _diff_receiver(self, native: str) -> Receiver:
        depth = self._options.depth
        first = min(max(FIRST_LIMIT, 2 * depth), MAX_LIMIT)
        deep = min(max(self._options.snapshot_limit or DEEP_LIMIT, first), MAX_LIMIT)
        sync = self._syncs["book", native] = RangeSync(native, depth, self._lines, first, deep)

        def receive(data: msgspec.Raw, line: int) -> Sequence[Event]:
            diff: _Diff = _decode_diff(data)
            if diff.first_id > diff.last_id:
                raise WebSocketProtocolError(f"{native}: first id {diff.first_id} above last id {diff.last_id}")
            return sync.receive_update(diff, line)

        return receive

    def _replace_receiver(self, topic: Topic, native: str, depth: int, decode: Callable[..., Any]) -> Receiver:
        sync = self._syncs[topic, native] = ReplaceSync(native, depth, self._lines, topic)
        return lambda data, line: sync.receive_update(decode(data), line)

    def _control(self, envelope: _Envelope) -> Sequence[Event]:
        if envelope.stream == "!serverShutdown" or envelope.e == "serverShutdown":
            return [ClosingSoon("the exchange announced a shutdown of this connection")]
        complaint = envelope.error or (_Complaint(envelope.code, envelope.msg) if envelope.code is not None else None)
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
        natives = tuple(dict.fromkeys(stream.partition("@")[0].upper() for stream in streams))
        self._requests[self._request_id] = natives
        message = {"method": "SUBSCRIBE", "params": streams, "id": self._request_id}
        return Request(self._request_id, msgspec.json.encode(message).decode())

    def _check_precision(self, native: str, body: bytes) -> Sequence[Event]:
        """Once a symbol: whether its numbers fit float64."""
        if native in self._checked:
            return NOTHING
        self._checked.add(native)
        text: _WholeText = _decode_whole_text(body)
        numbers = (number for level in (*text.bids, *text.asks) for number in level)
        lost = next((number for number in numbers if significant_digits(number) > EXACT_DIGITS), None)
        return NOTHING if lost is None else [PrecisionLost(native, lost)]


def _trade(native: str, trade: _Trade) -> Event:
    aggressor: Literal["buy", "sell"] = "sell" if trade.buyer_is_maker else "buy"
    return TradeHappened(native, trade.trade_id, trade.price, trade.quantity, aggressor, trade.trade_time_ms * 1000)
