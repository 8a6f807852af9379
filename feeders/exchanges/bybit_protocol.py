"""Bybit spot: frames in, events out. The snapshot comes in band, changes carry a counter."""

import re
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, TypeVar

import msgspec

from bookbus.feeders.books.arbitration import LineArbiter
from bookbus.feeders.books.events import (
    Acknowledged,
    Event,
    Refused,
    Topic,
    TradeHappened,
)
from bookbus.feeders.books.synchronizer import NOTHING, CounterSync
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.venue import FeedOptions, Request, require_symbol
from bookbus.schemas.decoding import DECODE_ERRORS
from bookbus.schemas.snapshot import PositiveNumber, Side, UpdateId

DEPTHS = (50, 200, 1000)
TOPICS: tuple[Topic, ...] = ("book", "trades")
MAX_ARGUMENTS = 10
"""Topics a request may name on spot."""


MAX_FRAME_BYTES = 1 << 20
_OUR_REQUEST = re.compile(r"[0-9]{1,18}")

Quantity = Annotated[float, msgspec.Meta(ge=0, le=1.7e308)]
TradeId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class _Changes(msgspec.Struct):
    update_id: UpdateId = msgspec.field(name="u")
    bids: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="b")
    asks: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="a")


class _BookMessage(msgspec.Struct):
    type: Literal["snapshot", "delta"]
    time_ms: Milliseconds = msgspec.field(name="ts")
    data: _Changes


class _Trade(msgspec.Struct):
    trade_id: TradeId = msgspec.field(name="i")
    time_ms: Milliseconds = msgspec.field(name="T")
    price: PositiveNumber = msgspec.field(name="p")
    quantity: PositiveNumber = msgspec.field(name="v")
    taker: Literal["Buy", "Sell"] = msgspec.field(name="S")


class _TradeMessage(msgspec.Struct):
    data: list[_Trade]


class _Envelope(msgspec.Struct):
    """A message of a topic, or the reply to a control message."""

    topic: str = ""
    op: str = ""
    success: bool | None = None
    message: str = msgspec.field(name="ret_msg", default="")
    request_id: str = msgspec.field(name="req_id", default="")


MessageT = TypeVar("MessageT")


def _decode(decoder: "msgspec.json.Decoder[MessageT]", frame: bytes) -> MessageT:
    try:
        return decoder.decode(frame)
    except DECODE_ERRORS as error:
        raise WebSocketProtocolError(f"not a message of this exchange: {error}") from error


_envelope = msgspec.json.Decoder(_Envelope)
_book_message = msgspec.json.Decoder(_BookMessage, strict=False)
_trade_message = msgspec.json.Decoder(_TradeMessage, strict=False)


class BybitProtocol:
    """Every symbol of one connection, or of several that carry the same symbols."""

    def __init__(self, natives: Iterable[str] | None, options: FeedOptions) -> None:
        """`natives` None takes whatever symbol arrives. Raises ValueError for a depth the exchange does not have."""
        if options.depth > DEPTHS[-1]:
            raise ValueError(f"at most {DEPTHS[-1]} levels can be had, not {options.depth}")
        self._options = options
        self._stream_depth = next(depth for depth in DEPTHS if depth >= options.depth)
        self._takes_all = natives is None
        self.race: LineArbiter | None = None
        self._lines: set[int] = set()
        self._syncs: dict[str, CounterSync] = {}
        self._last_request = 0
        for native in natives or ():
            self._sync(native)

    @property
    def natives(self) -> Sequence[str]:
        """Symbols that have a book here, or will have."""
        return tuple(self._syncs)

    def update_id(self, native: str, topic: Topic = "book") -> int | None:
        """Where the book is; None while there is none to trust."""
        return self._syncs[native].update_id

    def is_behind(self, native: str, topic: Topic = "book") -> bool:
        """Whether a later update came by one line, and the one before it may still come by another."""
        return self._syncs[native].is_behind

    def subscribe(self, natives: Sequence[str] | None = None) -> list[Request]:
        """Ask for everything; for named symbols anew, since only a new subscription brings a snapshot."""
        topics = [topic for native in natives or self._syncs for topic in self._topics(native)]
        operations = ("subscribe",) if natives is None else ("unsubscribe", "subscribe")
        return [
            self._request(operation, topics[start : start + MAX_ARGUMENTS])
            for start in range(0, len(topics), MAX_ARGUMENTS)
            for operation in operations
        ]

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
        envelope = _decode(_envelope, frame)
        if not envelope.topic:
            return _control(envelope)
        channel, _, native = envelope.topic.rpartition(".")
        if native not in self._syncs:
            if not self._takes_all:
                return NOTHING
            require_symbol("bybit", native)
        if channel == "publicTrade" and "trades" in self._options.topics:
            return _trades(native, _decode(_trade_message, frame))
        if channel.startswith("orderbook.") and "book" in self._options.topics:
            return self._receive_book(native, _decode(_book_message, frame), line)
        return NOTHING

    def snapshot_requested(self, native: str) -> None:
        """No snapshot is ever asked for."""

    def apply_snapshot(self, native: str, limit: int, body: bytes) -> Sequence[Event]:
        """Never asked for: snapshots come in band."""
        return NOTHING

    def record(self, native: str) -> None:
        """There is no answer to hold a book against."""

    def invalidate(self, native: str, reason: str) -> Sequence[Event]:
        """Nothing is ever recorded."""
        return NOTHING

    def receive_recorded(self, url: str, body: bytes) -> Sequence[Event]:
        """No HTTP answer says anything of a book."""
        return NOTHING

    def _receive_book(self, native: str, message: _BookMessage, line: int) -> Sequence[Event]:
        if self.race is not None:
            self.race.note(native, message.data.update_id)
        sync, exchange_us = self._sync(native), message.time_ms * 1000
        take = sync.receive_snapshot if message.type == "snapshot" else sync.receive_changes
        return take(message.data, exchange_us, line)

    def _sync(self, native: str) -> CounterSync:
        sync = self._syncs.get(native)
        if sync is None:
            sync = self._syncs[native] = CounterSync(native, self._options.depth, self._lines)
        return sync

    def _topics(self, native: str) -> list[str]:
        book, trades = f"orderbook.{self._stream_depth}.{native}", f"publicTrade.{native}"
        wanted = self._options.topics
        return [topic for topic, name in ((book, "book"), (trades, "trades")) if name in wanted]

    def _request(self, operation: str, topics: Sequence[str]) -> Request:
        self._last_request += 1
        message = {"req_id": str(self._last_request), "op": operation, "args": topics}
        return Request(self._last_request, msgspec.json.encode(message).decode())


def _control(envelope: _Envelope) -> Sequence[Event]:
    """The reply to a control message; the one to a keepalive says nothing."""
    request_id = int(envelope.request_id) if _OUR_REQUEST.fullmatch(envelope.request_id) else None
    if envelope.op in ("ping", "pong") or envelope.message == "pong":
        return NOTHING
    if envelope.success is None:
        raise WebSocketProtocolError("neither a topic nor a control reply")
    if not envelope.success:
        return [Refused(request_id, envelope.message)]
    return NOTHING if request_id is None else [Acknowledged(request_id)]


def _trades(native: str, message: _TradeMessage) -> Sequence[Event]:
    sides: dict[str, Side] = {"Buy": "buy", "Sell": "sell"}
    return [
        TradeHappened(native, trade.trade_id, trade.price, trade.quantity, sides[trade.taker], trade.time_ms * 1000)
        for trade in message.data
    ]
