"""Bybit spot: its messages. The snapshot comes in band, changes carry a counter."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal

import msgspec

from bookbus.feeders.books.events import Acknowledged, Refused, Topic, TradeHappened
from bookbus.feeders.books.order_book import DepthChange
from bookbus.feeders.books.synchronizer import BookSync, CounterSync
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.venue import ControlMessage, DepthMessage, FeedOptions, Message, require_symbol
from bookbus.schemas.decoding import json_decoder
from bookbus.schemas.snapshot import PositiveNumber, Side, UpdateId

DEPTHS = (50, 200, 1000)
TOPICS: tuple[Topic, ...] = ("book", "trades")
MAX_ARGUMENTS = 10
"""Topics a request may name on spot."""

_UNKNOWN_TOPIC = re.compile(r"handler not found,topic:(\S+)")
_OUR_REQUEST = re.compile(r"[0-9]{1,18}")

Quantity = Annotated[float, msgspec.Meta(ge=0, le=1.7e308)]
TradeId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class _Changes(msgspec.Struct):
    update_id: UpdateId = msgspec.field(name="u")
    bids: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="b")
    asks: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="a")


class _BookMessage(msgspec.Struct):
    """Changes of a book, or a whole one: one id, since every message is counted."""

    type: Literal["snapshot", "delta"]
    time_ms: Milliseconds = msgspec.field(name="ts")
    data: _Changes

    @property
    def first_id(self) -> int:
        return self.data.update_id

    @property
    def last_id(self) -> int:
        return self.data.update_id

    @property
    def bids(self) -> Sequence[DepthChange]:
        return self.data.bids

    @property
    def asks(self) -> Sequence[DepthChange]:
        return self.data.asks

    @property
    def exchange_us(self) -> int:
        return self.time_ms * 1000

    @property
    def is_whole(self) -> bool:
        return self.type == "snapshot"


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


_SIDES: Mapping[str, Side] = {"Buy": "buy", "Sell": "sell"}


class BybitProtocol:
    """Topics of some symbols."""

    numbers: ClassVar[None] = None

    def __init__(self, natives: Iterable[str] | None, options: FeedOptions, *, recorded: bool = False) -> None:
        """Raises ValueError for a depth that the exchange does not have; `recorded` is not used."""
        if options.depth > DEPTHS[-1]:
            raise ValueError(f"at most {DEPTHS[-1]} levels are offered, not {options.depth}")
        self._options = options
        self._stream_depth = next(depth for depth in DEPTHS if depth >= options.depth)
        self.natives: Sequence[str] = tuple(dict.fromkeys(natives or ()))
        self._wanted = None if natives is None else frozenset(self.natives)

    def streams(self, native: str) -> Mapping[Topic, str]:
        names: dict[Topic, str] = {
            "book": f"orderbook.{self._stream_depth}.{native}",
            "trades": f"publicTrade.{native}",
        }
        return {topic: name for topic, name in names.items() if topic in self._options.topics}

    def subscribe(
        self, natives: Sequence[str], ids: Iterator[int], *, again: Sequence[str] = ()
    ) -> list[ControlMessage]:
        """Ask for everything; for some symbols again, because only a new subscription gets a snapshot."""
        topics = [topic for native in again or natives for topic in self.streams(native).values()]
        operations = ("unsubscribe", "subscribe") if again else ("subscribe",)
        return [
            _control_message(next(ids), operation, topics[start : start + MAX_ARGUMENTS])
            for start in range(0, len(topics), MAX_ARGUMENTS)
            for operation in operations
        ]

    def decode(self, frame: bytes) -> Sequence[Message]:
        envelope: _Envelope = _decode_envelope(frame)
        if not envelope.topic:
            return _control(envelope)
        channel, _, native = envelope.topic.rpartition(".")
        if self._wanted is None:
            require_symbol("bybit", native)
        elif native not in self._wanted:
            return ()
        if channel == "publicTrade" and "trades" in self._options.topics:
            return [_trade(native, trade) for trade in _decode_trades(frame).data]
        if channel.startswith("orderbook.") and "book" in self._options.topics:
            return (DepthMessage(native, "book", envelope.topic, _decode_book(frame)),)
        return ()

    def synchronizer(self, native: str, topic: Topic, stream: str | None, lines: set[int]) -> BookSync:
        """Snapshots in band, then counted changes."""
        return CounterSync(native, self._options.depth, lines)


def _control_message(request_id: int, operation: str, topics: Sequence[str]) -> ControlMessage:
    message = {"req_id": str(request_id), "op": operation, "args": topics}
    natives = tuple(dict.fromkeys(topic.rpartition(".")[2] for topic in topics))
    return ControlMessage(request_id, msgspec.json.encode(message).decode(), natives)


def _control(envelope: _Envelope) -> Sequence[Message]:
    """The reply to a control message; the reply to a keepalive is ignored."""
    request_id = int(envelope.request_id) if _OUR_REQUEST.fullmatch(envelope.request_id) else None
    if envelope.op in ("ping", "pong") or envelope.message == "pong":
        return ()
    if envelope.success is None:
        raise WebSocketProtocolError("neither a topic nor a control reply")
    if not envelope.success:
        unknown = _UNKNOWN_TOPIC.search(envelope.message)
        return (Refused(request_id, envelope.message, unknown[1].rpartition(".")[2] if unknown else ""),)
    return () if request_id is None else (Acknowledged(request_id),)


def _trade(native: str, trade: _Trade) -> TradeHappened:
    aggressor, exchange_us = _SIDES[trade.taker], trade.time_ms * 1000
    return TradeHappened(native, trade.trade_id, trade.price, trade.quantity, aggressor, exchange_us)


_decode_envelope = json_decoder(_Envelope, "a message", WebSocketProtocolError)
_decode_book = json_decoder(_BookMessage, "a book message", WebSocketProtocolError)
_decode_trades = json_decoder(_TradeMessage, "a trade message", WebSocketProtocolError)
