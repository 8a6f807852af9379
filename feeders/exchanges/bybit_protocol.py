"""Bybit spot: its messages. The snapshot comes in band, changes carry a counter."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from bookbus.feeders.books.events import Acknowledged, Ignored, Refused, Topic, TradeHappened
from bookbus.feeders.books.order_book import DepthChange, DepthSnapshot, DepthUpdate
from bookbus.feeders.books.synchronizer import BookSync, CounterSync
from bookbus.feeders.errors import WebSocketProtocolError
from bookbus.feeders.exchanges.drift import (
    OTHER_FORMAT,
    Timestamp,
    cut_levels,
    microseconds,
    repaired,
    trade_number,
    usable_time,
)
from bookbus.feeders.venue import ControlMessage, DepthMessage, FeedOptions, Message, require_symbol
from bookbus.schemas.decoding import json_decoder
from bookbus.schemas.snapshot import PositiveNumber, Side, UpdateId

DEPTHS = (50, 200, 1000)
TOPICS: tuple[Topic, ...] = ("book", "trades")
MAX_ARGUMENTS = 10
"""Topics a request may name on spot."""

_BOOK_CHANNEL = re.compile(r"orderbook\.[0-9]{1,4}")
"""Those that hold the whole visible book; `orderbook.full` has changes only, `orderbook.rpi` other levels."""

_BOOK_CHANNELS = frozenset(f"orderbook.{depth}" for depth in (1, *DEPTHS))
"""Those of today."""

_UNKNOWN_TOPIC = re.compile(r"handler not found,topic:(\S+)")
_OUR_REQUEST = re.compile(r"[0-9]{1,18}")

Quantity = Annotated[float, msgspec.Meta(ge=0, le=1.7e308)]
TradeId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Changes(msgspec.Struct):
    update_id: UpdateId = msgspec.field(name="u")
    bids: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="b")
    asks: list[tuple[PositiveNumber, Quantity]] = msgspec.field(name="a")
    sequence: int = msgspec.field(name="seq", default=0)


class _BookMessage(msgspec.Struct):
    """Changes of a book, or a whole one: one id, since every message is counted.

    `matched_at` is the time of the matching engine; `pushed_at`, that of the message, is later.
    """

    type: Literal["snapshot", "delta"]
    data: _Changes
    pushed_at: Timestamp = msgspec.field(name="ts", default=0)
    matched_at: Timestamp = msgspec.field(name="cts", default=0)

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
        return microseconds(self.matched_at or self.pushed_at)

    @property
    def is_whole(self) -> bool:
        return self.type == "snapshot"


class _Trade(msgspec.Struct):
    trade_id: TradeId = msgspec.field(name="i")
    time: Timestamp = msgspec.field(name="T")
    price: PositiveNumber = msgspec.field(name="p")
    quantity: PositiveNumber = msgspec.field(name="v")
    taker: Literal["Buy", "Sell"] = msgspec.field(name="S")
    is_block: bool = msgspec.field(name="BT", default=False)
    is_rpi: bool = msgspec.field(name="RPI", default=False)


class _FullBook(msgspec.Struct):
    last_id: UpdateId = msgspec.field(name="seq")
    bids: list[tuple[PositiveNumber, PositiveNumber]] = msgspec.field(name="b")
    asks: list[tuple[PositiveNumber, PositiveNumber]] = msgspec.field(name="a")


class _FullBookAnswer(msgspec.Struct):
    code: int = msgspec.field(name="retCode", default=0)
    message: str = msgspec.field(name="retMsg", default="")
    result: _FullBook | None = None


class _RawTrades(msgspec.Struct):
    data: list[Any]


class _TradeMessage(msgspec.Struct):
    """Trades of one moment; more than 1,024 come in several messages."""

    data: list[_Trade]


class _Envelope(msgspec.Struct):
    """A message of a topic, or the reply to a control message."""

    topic: str = ""
    op: str = ""
    success: bool | None = None
    message: str | None = msgspec.field(name="ret_msg", default="")
    request_id: str | int | None = msgspec.field(name="req_id", default="")


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
        if channel == "publicTrade":
            return _trades(native, frame) if "trades" in self._options.topics else ()
        if channel not in _BOOK_CHANNELS and not _BOOK_CHANNEL.fullmatch(channel):
            return (Ignored(native, channel),)
        if "book" not in self._options.topics:
            return ()
        try:
            return (DepthMessage(native, "book", envelope.topic, _decode_book(frame)),)
        except WebSocketProtocolError as error:
            update, ignored = repaired(frame, _BookMessage, _repair_book, error)
            return (DepthMessage(native, "book", envelope.topic, update), Ignored(native, ignored))

    def synchronizer(self, native: str, topic: Topic, stream: str | None, lines: set[int]) -> BookSync:
        """Snapshots in band, then counted changes."""
        return CounterSync(native, self._options.depth, lines, _sequence)


def _control_message(request_id: int, operation: str, topics: Sequence[str]) -> ControlMessage:
    message = {"req_id": str(request_id), "op": operation, "args": topics}
    natives = tuple(dict.fromkeys(topic.rpartition(".")[2] for topic in topics))
    return ControlMessage(request_id, msgspec.json.encode(message).decode(), natives)


def _control(envelope: _Envelope) -> Sequence[Message]:
    """The reply to a control message; the reply to a keepalive is ignored."""
    text = str(envelope.request_id)
    request_id = int(text) if _OUR_REQUEST.fullmatch(text) else None
    if envelope.op in ("ping", "pong") or envelope.message == "pong":
        return ()
    if envelope.success is None and envelope.op:
        return (Ignored("", f"op {envelope.op}"),)
    if envelope.success is None:
        raise WebSocketProtocolError("neither a topic nor a control reply")
    if not envelope.success:
        text = envelope.message or "without a reason"
        unknown = _UNKNOWN_TOPIC.search(text)
        return (Refused(request_id, text, unknown[1].rpartition(".")[2] if unknown else ""),)
    return () if request_id is None else (Acknowledged(request_id),)


def _trades(native: str, frame: bytes) -> Sequence[Message]:
    """The trades of a message that took from the book.

    Block trades are agreed outside the book, and RPI trades fill orders that no book of the exchange shows.
    """
    ignored: list[Message] = []
    try:
        trades: list[_Trade] = _decode_trades(frame).data
    except WebSocketProtocolError as error:
        # One entry that cannot be read takes no other with it.
        trades, unreadable = _repaired_trades(frame, error)
        ignored.append(Ignored(native, OTHER_FORMAT))
        if unreadable:
            ignored.append(Ignored(native, "unreadable trade", unreadable))
    messages: list[Message] = [_trade(native, trade) for trade in trades if not (trade.is_block or trade.is_rpi)]
    if len(messages) < len(trades):
        ignored += [
            Ignored(native, "block trade" if trade.is_block else "RPI trade")
            for trade in trades
            if trade.is_block or trade.is_rpi
        ]
    return messages + ignored if ignored else messages


def _trade(native: str, trade: _Trade) -> TradeHappened:
    aggressor, exchange_us = _SIDES[trade.taker], microseconds(trade.time)
    return TradeHappened(native, trade.trade_id, trade.price, trade.quantity, aggressor, exchange_us)


def _repaired_trades(frame: bytes, error: WebSocketProtocolError) -> tuple[list[_Trade], int]:
    """The trades of a message that the strict decoder refused with `error`, and the number of unreadable ones."""
    message, _ = repaired(frame, _RawTrades, lambda _: OTHER_FORMAT, error)
    trades: list[_Trade] = []
    for fields in message.data:
        with suppress(msgspec.ValidationError, AttributeError, KeyError, TypeError):
            fields |= {
                "i": trade_number(fields["i"]),
                "T": usable_time(fields.get("T")),
                "S": str(fields.get("S")).capitalize(),
            }
            trades.append(msgspec.convert(fields, _Trade, strict=False))
    if not trades:
        raise error
    return trades, len(message.data) - len(trades)


def _repair_book(message: dict[str, Any]) -> str:
    message |= {name: usable_time(message[name]) for name in ("ts", "cts") if name in message}
    return cut_levels(message["data"], "b", "a")


def decode_full_book(body: bytes) -> DepthSnapshot:
    """The book in a full-book answer, with the engine's counter as its id. Raises WebSocketProtocolError."""
    try:
        answer: _FullBookAnswer = _decode_full_book(body)
    except WebSocketProtocolError as error:
        answer, _ = repaired(body, _FullBookAnswer, lambda fields: cut_levels(fields["result"], "b", "a"), error)
    if answer.result is None:
        raise WebSocketProtocolError(f"no book in the answer: {answer.message} (code {answer.code})")
    return answer.result


def _sequence(update: DepthUpdate) -> int:
    """The engine's counter, which every topic and request of a symbol shares."""
    return update.data.sequence if isinstance(update, _BookMessage) else update.last_id


_decode_envelope = json_decoder(_Envelope, "a message", WebSocketProtocolError)
_decode_book = json_decoder(_BookMessage, "a book message", WebSocketProtocolError)
_decode_full_book = json_decoder(_FullBookAnswer, "a full book", WebSocketProtocolError)
_decode_trades = json_decoder(_TradeMessage, "a trade message", WebSocketProtocolError)
