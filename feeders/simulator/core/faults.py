"""Faults asked for, which of them strikes next, and how often each has been played."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import msgspec

from bookbus.feeders.simulator.core.connection import encode_frame
from bookbus.feeders.simulator.core.feed import Feed

_REPLAY_AFTER = 3
_OVERSIZED_BYTES = 5_000_000
_DEEPEST = 5000
_NEAR = 50


@dataclass(slots=True)
class PendingFrame:
    """One message about to be sent. `memory` is kept between the messages of one symbol on one connection."""

    text: str
    feed: Feed
    value: float | str | None = None
    memory: list[str] = field(default_factory=list)
    snapshots: int = 0
    """Snapshots of the symbol served since the fault was asked for."""
    played: bool = False
    binary: bool = False
    """Whether the venue sends binary messages."""

    def as_is(self) -> bytes:
        return self.encoded(self.text.encode())

    def encoded(self, payload: bytes) -> bytes:
        """Any message as the venue sends it."""
        return encode_frame(payload, binary=self.binary)

    def edited(self, change: Callable[[dict[str, Any]], None]) -> list[bytes]:
        """The message with its payload changed, in a wrapper or not."""
        self.played = True
        message = msgspec.json.decode(self.text)
        change(message.get("data", message))
        return [self.encoded(msgspec.json.encode(message))]

    def with_extra(self, extra: bytes) -> list[bytes]:
        """The message unharmed, after one that nobody asked for."""
        self.played = True
        return [self.encoded(extra), self.as_is()]


def drop(frame: PendingFrame) -> list[bytes]:
    """The message is lost."""
    frame.played = True
    return []


def duplicate(frame: PendingFrame) -> list[bytes]:
    """It comes twice."""
    frame.played = True
    return [frame.as_is(), frame.as_is()]


def reorder(frame: PendingFrame) -> list[bytes]:
    """It comes after the next one."""
    if not frame.memory:
        frame.memory.append(frame.text)
        return []
    frame.played = True
    return [frame.as_is(), frame.encoded(frame.memory.pop().encode())]


def replay_old(frame: PendingFrame) -> list[bytes]:
    """One of a while ago comes again."""
    frame.memory.append(frame.text)
    if len(frame.memory) <= _REPLAY_AFTER:
        return [frame.as_is()]
    old = frame.memory[0]
    frame.memory.clear()
    frame.played = True
    return [frame.as_is(), frame.encoded(old.encode())]


def gap_at_bridge(frame: PendingFrame) -> list[bytes]:
    """The first message after a snapshot was served is lost."""
    if frame.snapshots <= len(frame.memory):
        return [frame.as_is()]
    frame.memory.extend("" for _ in range(frame.snapshots - len(frame.memory)))
    frame.played = True
    return []


def malformed_json(frame: PendingFrame) -> list[bytes]:
    """It ends in the middle."""
    frame.played = True
    return [frame.encoded(frame.text[: len(frame.text) // 2].encode())]


def invalid_utf8(frame: PendingFrame) -> list[bytes]:
    """Its text is no text."""
    frame.played = True
    return [frame.encoded(frame.text.encode()[:-1] + b"\xff}")]


def binary(frame: PendingFrame) -> list[bytes]:
    """It comes as a binary message."""
    frame.played = True
    return [encode_frame(frame.text.encode(), binary=True)]


def oversized(frame: PendingFrame) -> list[bytes]:
    """A message of 5 MB, or `value` bytes, of an unknown type comes first."""
    size = int(frame.value) if isinstance(frame.value, int | float) else _OVERSIZED_BYTES
    return frame.with_extra(b'{"e":"padding","x":"' + b"x" * size + b'"}')


def unknown_type(frame: PendingFrame) -> list[bytes]:
    """A message of an unknown type comes first."""
    return frame.with_extra(b'{"e":"somethingNew","E":1700000000000,"s":"BTCUSDT","x":[1,2]}')


def array_frame(frame: PendingFrame) -> list[bytes]:
    """A message that is an array comes first."""
    return frame.with_extra(b'[{"e":"24hrMiniTicker","s":"BTCUSDT"}]')


def crossed(frame: PendingFrame) -> list[bytes]:
    """A bid above the best ask is in it."""

    def cross(payload: dict[str, Any]) -> None:
        best_ask, _ = frame.feed.quote().ask
        price = frame.feed.instrument.price_text(best_ask + 1000)
        _side(payload, "b").insert(0, [price, "1.00000000"])

    return frame.edited(cross)


def empty_side(frame: PendingFrame) -> list[bytes]:
    """It leaves no bids: a diff removes them all, a whole book has none."""
    instrument = frame.feed.instrument

    def empty(payload: dict[str, Any]) -> None:
        if "bids" in payload:
            payload["bids"] = []
        else:
            bids = frame.feed.snapshot(_DEEPEST, "flushed").bids
            gone = {price for price, _ in payload["b"]} | {instrument.price_text(ticks) for ticks, _ in bids}
            payload["b"] = [[price, "0.00000000"] for price in gone]

    return frame.edited(empty)


def nan_price(frame: PendingFrame) -> list[bytes]:
    return frame.edited(lambda payload: _spoil(payload, 0, "NaN"))


def negative_price(frame: PendingFrame) -> list[bytes]:
    return frame.edited(lambda payload: _spoil(payload, 0, "-1.00000000"))


def zero_price(frame: PendingFrame) -> list[bytes]:
    return frame.edited(lambda payload: _spoil(payload, 0, "0.00000000"))


def negative_quantity(frame: PendingFrame) -> list[bytes]:
    return frame.edited(lambda payload: _spoil(payload, 1, "-1.00000000"))


def wrong_types(frame: PendingFrame) -> list[bytes]:
    """The ids are texts."""

    def spoil(payload: dict[str, Any]) -> None:
        for name in ("U", "u", "lastUpdateId", "t", "a"):
            if isinstance(payload.get(name), int):
                payload[name] = f"no. {payload[name]}"

    return frame.edited(spoil)


def missing_field(frame: PendingFrame) -> list[bytes]:
    """The last update id is not there."""

    def spoil(payload: dict[str, Any]) -> None:
        for name in ("u", "lastUpdateId", "t"):
            payload.pop(name, None)

    return frame.edited(spoil)


def clock_skew(frame: PendingFrame) -> list[bytes]:
    """Its time is off by `value` seconds (3600 ahead by default)."""
    skew = float(3600 if frame.value is None else frame.value)

    def shift(payload: dict[str, Any]) -> None:
        if "E" in payload:
            payload["E"] += int(skew * 1000)

    return frame.edited(shift)


def corrupt_level(frame: PendingFrame) -> list[bytes]:
    """One changed bid of the best 50 is told wrongly, as gone if it is there and the reverse; only diffs have this."""
    worst = float(frame.feed.instrument.price_text(frame.feed.snapshot(_NEAR, "flushed").bids[-1][0]))
    message = msgspec.json.decode(frame.text)
    payload = message.get("data", message)
    near = [level for level in payload["b"] if float(level[0]) >= worst] if "U" in payload else []
    if not near:
        return [frame.as_is()]
    level = min(near, key=lambda level: float(level[0]))
    level[1] = "0.00000000" if float(level[1]) else "1.00000000"
    frame.played = True
    return [frame.encoded(msgspec.json.encode(message))]


FrameFault = Callable[[PendingFrame], list[bytes]]

FRAME_FAULTS: dict[str, FrameFault] = {
    play.__name__: play
    for play in (
        *(drop, duplicate, reorder, replay_old, gap_at_bridge),
        *(malformed_json, invalid_utf8, binary, oversized, unknown_type, array_frame),
        *(crossed, empty_side, nan_price, negative_price, zero_price, negative_quantity),
        *(wrong_types, missing_field, clock_skew),
    )
}

SILENT_FAULTS: dict[str, FrameFault] = {corrupt_level.__name__: corrupt_level}
"""Those that no client can notice in the message: only a comparison with another answer shows them."""


def _side(payload: dict[str, Any], name: str) -> list[list[str]]:
    """One side of a diff or of a whole book; a quote has none."""
    side: object = payload.get({"b": "bids", "a": "asks"}[name], payload.get(name))
    return side if isinstance(side, list) else []


def _spoil(payload: dict[str, Any], position: int, text: str) -> None:
    """Put `text` for a price (position 0) or a quantity (1)."""
    for name in ("pq", "bB"):  # a trade, a quote
        if isinstance(payload.get(name[position]), str):
            payload[name[position]] = text
            return
    side = _side(payload, "b") or _side(payload, "a")
    if not side:
        side = _side(payload, "b")
        side.append(["1.00000000", "1.00000000"])
    side[0][position] = text


ControlFaultKind = Literal["ack_lost", "ack_delayed", "ack_error", "subscribe_ignored"]
RestFaultKind = Literal[
    "rest_timeout", "rest_status", "rest_truncated", "rest_delay", "stale_snapshot", "empty_snapshot"
]
ConnectionFaultKind = Literal["silence", "half_open", "slow_drip", "reset", "close", "server_shutdown"]
VenueFaultKind = Literal["refuse_connections", "cold_restart"]

IMMEDIATE = (*get_args(ConnectionFaultKind), *get_args(VenueFaultKind))
"""Kinds that act once, when they are asked for; the others wait for something to strike."""
_EACH_SYMBOL = ("stale_snapshot", "empty_snapshot")
_OF_ONE_VENUE = {"out_of_order", "same_time", "text"}
_FRAME_KINDS = FRAME_FAULTS.keys() | SILENT_FAULTS.keys() | _OF_ONE_VENUE
KINDS = (*sorted(_FRAME_KINDS), *get_args(ControlFaultKind), *get_args(RestFaultKind), *IMMEDIATE)


class FaultError(ValueError):
    """A fault that cannot be played."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What goes wrong, where, and how often.

    A waiting fault strikes the next `count` times (once, unless `seconds` says how long it lasts). Messages and
    snapshots are counted for each symbol and connection on their own, other REST requests all together unless
    `symbols` are named. Without `symbols` or `connection` it addresses all of them.
    `value` is what the kind needs: an HTTP status, a close code, seconds of delay, a text.
    """

    kind: str
    symbols: tuple[str, ...] | None = None
    connection: int | None = None
    stream: Literal["depth", "bookTicker", "trade", "aggTrade"] = "depth"
    count: int | None = None
    seconds: float | None = None
    every: float | None = None
    """Play it again each time so many seconds have passed."""
    value: float | str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise FaultError(f"unknown fault {self.kind!r}; known: {', '.join(KINDS)}")
        for name in ("count", "seconds", "every"):
            if (number := getattr(self, name)) is not None and number <= 0:
                raise FaultError(f"{name} must be above zero, not {number}")

    def number(self, default: float) -> float:
        """`value` as a number. Raises FaultError for a text."""
        if isinstance(self.value, str):
            raise FaultError(f"{self.kind} needs a number as value, not {self.value!r}")
        return default if self.value is None else self.value


@dataclass(slots=True)
class _Waiting:
    fault: Fault
    deadline: float | None
    struck: Counter[tuple[int, str]] = field(default_factory=Counter)
    memory: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    snapshots: Counter[str] = field(default_factory=Counter)

    def is_over(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline

    def addresses(self, connection: int, symbol: str) -> bool:
        fault = self.fault
        return (fault.symbols is None or symbol in fault.symbols) and fault.connection in (None, connection)

    def is_used_up(self, target: tuple[int, str]) -> bool:
        limit = self.fault.count
        if limit is None and self.deadline is None:
            limit = 1
        return limit is not None and self.struck[target] >= limit


class FaultBoard:
    """The waiting faults of one venue. `clock` is monotonic; `binary` says what its messages are."""

    def __init__(
        self,
        clock: Callable[[], float],
        frame_faults: Mapping[str, FrameFault] = FRAME_FAULTS | SILENT_FAULTS,
        *,
        binary: bool = False,
    ) -> None:
        self._clock = clock
        self._frame_faults = frame_faults
        self._binary = binary
        self._waiting: list[_Waiting] = []
        self.played: Counter[str] = Counter()
        self.alters_frames = False
        """Whether a fault may strike market data: the fast path ends here."""

    def add(self, fault: Fault) -> None:
        """Let a waiting fault strike from now on. Raises FaultError for one that no message of the venue can have."""
        if fault.kind in _FRAME_KINDS - self._frame_faults.keys():
            raise FaultError(f"this exchange knows no {fault.kind!r}")
        deadline = None if fault.seconds is None else self._clock() + fault.seconds
        self._waiting = [each for each in self._waiting if each.fault != fault]
        self._waiting.append(_Waiting(fault, deadline))
        self._refresh()

    def clear(self) -> None:
        """No fault waits any more."""
        self._waiting.clear()
        self._refresh()

    def waiting(self) -> list[Fault]:
        """What may still strike."""
        return [each.fault for each in self._waiting]

    def match(self, kind: str, *, symbol: str = "", connection: int = 0) -> Fault | None:
        """The fault of this kind that hits this request or connection now, if any."""
        for each in self._live():
            target = connection, symbol if each.fault.symbols or kind in _EACH_SYMBOL else ""
            if each.fault.kind == kind and each.addresses(connection, symbol) and not each.is_used_up(target):
                each.struck[target] += 1
                self.played[kind] += 1
                return each.fault
        return None

    def remaining(self, fault: Fault) -> float | None:
        """Seconds that a fault with a time limit still lasts."""
        for each in self._waiting:
            if each.fault is fault and each.deadline is not None:
                return max(0.0, each.deadline - self._clock())
        return None

    def snapshot_served(self, symbol: str) -> None:
        """Faults at bridging time begin with this."""
        for each in self._waiting:
            each.snapshots[symbol] += 1

    def alter(self, feed: Feed, stream: str, connection: int, text: str) -> list[bytes]:
        """The frames that really go out in place of one message."""
        symbol = feed.instrument.native
        target = connection, symbol
        for each in self._live():
            fault = each.fault
            play = self._frame_faults.get(fault.kind)
            if play is None or not _concerns(fault.stream, stream) or not each.addresses(connection, symbol):
                continue
            if each.is_used_up(target):
                continue
            memory = each.memory.setdefault(target, [])
            in_hand = PendingFrame(text, feed, fault.value, memory, each.snapshots[symbol], binary=self._binary)
            frames = play(in_hand)
            if in_hand.played:
                each.struck[target] += 1
                self.played[fault.kind] += 1
            return frames
        return [PendingFrame(text, feed, binary=self._binary).as_is()]

    def _live(self) -> list[_Waiting]:
        now = self._clock()
        if any(each.is_over(now) for each in self._waiting):
            self._waiting = [each for each in self._waiting if not each.is_over(now)]
            self._refresh()
        return self._waiting

    def _refresh(self) -> None:
        self.alters_frames = any(each.fault.kind in _FRAME_KINDS for each in self._waiting)


def _concerns(wanted: str, stream: str) -> bool:
    return stream.startswith("depth") if wanted == "depth" else stream == wanted
