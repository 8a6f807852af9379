"""Faults: what each does to a message, which of them is played next, and how often each has been played."""

from collections import Counter
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from bookbus.feeders.simulator.core.connection import encode_frame
from bookbus.feeders.simulator.core.feed import MarketFeed

_REPLAY_AFTER = 3
_OVERSIZED_BYTES = 5_000_000
_DEEPEST = 5000
_NEAR = 50


@dataclass(slots=True)
class PendingFrame:
    """One message about to be sent. `memory` is kept between the messages of one symbol on one connection."""

    text: str
    feed: MarketFeed
    value: float | str | None = None
    memory: list[str] = field(default_factory=list)
    snapshots: int = 0
    """Snapshots of the symbol served since the fault was asked for."""
    binary: bool = False
    """Whether the exchange sends binary messages."""
    played: bool = True
    """Whether the fault was played; False while it waits for a later message."""

    def encoded(self, payload: bytes) -> bytes:
        """Any message as the exchange sends it."""
        return encode_frame(payload, binary=self.binary)

    def unchanged(self) -> bytes:
        return self.encoded(self.text.encode())

    def later(self) -> list[bytes]:
        """The message unchanged; the fault waits for a later one."""
        self.played = False
        return [self.unchanged()]

    def after(self, extra: bytes) -> list[bytes]:
        """The message unchanged, after an unsolicited one."""
        return [self.encoded(extra), self.unchanged()]


FrameFault = Callable[[PendingFrame], list[bytes]]
"""Returns the frames that go out instead of one message."""
FrameFaults = Mapping[str, FrameFault]

Payload = dict[str, Any]


def edited(
    change: Callable[[PendingFrame, Payload], None], payload_of: Callable[[Any], Payload | None] | None = None
) -> FrameFault:
    """A fault that changes the payload of a message. `payload_of` finds it in the message; None changes nothing.

    Without `payload_of` it is the message itself, or its field `data`.
    """

    def play(frame: PendingFrame) -> list[bytes]:
        message = msgspec.json.decode(frame.text)
        payload = payload_of(message) if payload_of else message.get("data", message)
        if payload is None:
            return frame.later()
        change(frame, payload)
        return [frame.encoded(msgspec.json.encode(message))]

    return play


def drop(_: PendingFrame) -> list[bytes]:
    """The message is lost."""
    return []


def duplicate(frame: PendingFrame) -> list[bytes]:
    """It comes twice."""
    return [frame.unchanged(), frame.unchanged()]


def reorder(frame: PendingFrame) -> list[bytes]:
    """It comes after the next one."""
    if not frame.memory:
        frame.memory.append(frame.text)
        frame.played = False
        return []
    return [frame.unchanged(), frame.encoded(frame.memory.pop().encode())]


def replay_old(frame: PendingFrame) -> list[bytes]:
    """An earlier one comes again."""
    frame.memory.append(frame.text)
    if len(frame.memory) <= _REPLAY_AFTER:
        return frame.later()
    old = frame.memory[0]
    frame.memory.clear()
    return [frame.unchanged(), frame.encoded(old.encode())]


def gap_at_bridge(frame: PendingFrame) -> list[bytes]:
    """The first message after a snapshot was served is lost."""
    if frame.snapshots <= len(frame.memory):
        return frame.later()
    frame.memory.extend("" for _ in range(frame.snapshots - len(frame.memory)))
    return []


def malformed_json(frame: PendingFrame) -> list[bytes]:
    """It ends in the middle."""
    return [frame.encoded(frame.text[: len(frame.text) // 2].encode())]


def invalid_utf8(frame: PendingFrame) -> list[bytes]:
    """It is not valid UTF-8."""
    return [frame.encoded(frame.text.encode()[:-1] + b"\xff}")]


def binary(frame: PendingFrame) -> list[bytes]:
    """It comes as a binary message."""
    return [encode_frame(frame.text.encode(), binary=True)]


def oversized(frame: PendingFrame) -> list[bytes]:
    """A message of 5 MB, or `value` bytes, of an unknown type comes first."""
    size = int(frame.value) if isinstance(frame.value, int | float) else _OVERSIZED_BYTES
    return frame.after(b'{"e":"padding","x":"' + b"x" * size + b'"}')


def unknown_type(frame: PendingFrame) -> list[bytes]:
    """A message of an unknown type comes first."""
    return frame.after(b'{"e":"somethingNew","E":1700000000000,"s":"BTCUSDT","x":[1,2]}')


def array_frame(frame: PendingFrame) -> list[bytes]:
    """A message that is an array comes first."""
    return frame.after(b'[{"e":"24hrMiniTicker","s":"BTCUSDT"}]')


def _crossed(frame: PendingFrame, payload: Payload) -> None:
    """A bid above the best ask is in it."""
    best_ask, _ = frame.feed.quote().ask
    price = frame.feed.instrument.price_text(best_ask + 1000)
    _side(payload, "b").insert(0, [price, "1.00000000"])


def _empty_side(frame: PendingFrame, payload: Payload) -> None:
    """It leaves no bids: a diff removes them all, a whole book has none."""
    if "bids" in payload:
        payload["bids"] = []
    else:
        bids = frame.feed.snapshot(_DEEPEST, "flushed").bids
        gone = {price for price, _ in payload["b"]} | {frame.feed.instrument.price_text(ticks) for ticks, _ in bids}
        payload["b"] = [[price, "0.00000000"] for price in gone]


def _wrong_types(_: PendingFrame, payload: Payload) -> None:
    """The ids are strings."""
    for name in ("U", "u", "lastUpdateId", "t", "a"):
        if isinstance(payload.get(name), int):
            payload[name] = f"no. {payload[name]}"


def _missing_field(_: PendingFrame, payload: Payload) -> None:
    """The last update id is missing."""
    for name in ("u", "lastUpdateId", "t"):
        payload.pop(name, None)


def _clock_skew(frame: PendingFrame, payload: Payload) -> None:
    """Its time is off by `value` seconds (3600 ahead by default)."""
    if "E" in payload:
        payload["E"] += int(float(3600 if frame.value is None else frame.value) * 1000)


def _wrong_number(position: int, text: str) -> FrameFault:
    """`text` stands for a price (position 0) or a quantity (1) of a trade, a quote, or the first level."""

    def corrupt(_: PendingFrame, payload: Payload) -> None:
        for name in ("pq"[position], "bB"[position]):
            if isinstance(payload.get(name), str):
                payload[name] = text
                return
        side = _side(payload, "b") or _side(payload, "a")
        if not side:
            side = _side(payload, "b")
            side.append(["1.00000000", "1.00000000"])
        side[0][position] = text

    return edited(corrupt)


def _side(payload: Payload, name: str) -> list[list[str]]:
    """One side of a diff or of a whole book; a quote has none."""
    side: object = payload.get({"b": "bids", "a": "asks"}[name], payload.get(name))
    return side if isinstance(side, list) else []


def corrupt_level(frame: PendingFrame) -> list[bytes]:
    """One changed bid of the best 50 is wrong: removed if it is there, and the reverse; only changes have this."""
    worst = float(frame.feed.instrument.price_text(frame.feed.snapshot(_NEAR, "flushed").bids[-1][0]))
    message = msgspec.json.decode(frame.text)
    payload = message.get("data", message)
    are_changes = "U" in payload or message.get("type") == "delta"
    near = [level for level in payload["b"] if float(level[0]) >= worst] if are_changes else []
    if not near:
        return frame.later()
    level = min(near, key=lambda level: float(level[0]))
    level[1] = "0.00000000" if float(level[1]) else "1.00000000"
    return [frame.encoded(msgspec.json.encode(message))]


_OF_ANY_TEXT = (drop, duplicate, reorder, replay_old, malformed_json, invalid_utf8, oversized)
TEXT_FAULTS: dict[str, FrameFault] = {play.__name__: play for play in _OF_ANY_TEXT}
"""Those that any message can have."""

FRAME_FAULTS = TEXT_FAULTS | {
    "array_frame": array_frame,
    "binary": binary,
    "clock_skew": edited(_clock_skew),
    "crossed": edited(_crossed),
    "empty_side": edited(_empty_side),
    "gap_at_bridge": gap_at_bridge,
    "missing_field": edited(_missing_field),
    "nan_price": _wrong_number(0, "NaN"),
    "negative_price": _wrong_number(0, "-1.00000000"),
    "negative_quantity": _wrong_number(1, "-1.00000000"),
    "unknown_type": unknown_type,
    "wrong_types": edited(_wrong_types),
    "zero_price": _wrong_number(0, "0.00000000"),
}
"""Those of text messages whose payload has levels in `b` and `a`, or `bids` and `asks`, and the last id in `u`."""

SILENT_FAULTS: dict[str, FrameFault] = {"corrupt_level": corrupt_level}
"""Those that no client can notice in the message: only a comparison with another answer shows them."""

ANY_FRAME_FAULTS = FRAME_FAULTS | SILENT_FAULTS

_EACH_SYMBOL = ("stale_snapshot", "empty_snapshot")
_CONTROL_KINDS = ("ack_lost", "ack_delayed", "ack_error", "subscribe_ignored")
_REST_KINDS = ("rest_timeout", "rest_status", "rest_truncated", "rest_delay", *_EACH_SYMBOL)
_CONNECTION_KINDS = ("silence", "half_open", "slow_drip", "late", "reset", "close", "server_shutdown")
HALT, MARKET_WARNING = "halt", "market_warning"
_IMMEDIATE_KINDS = (*_CONNECTION_KINDS, "unsubscribed", "refuse_connections", "cold_restart", HALT, MARKET_WARNING)
_OTHER_KINDS = (*_CONTROL_KINDS, *_REST_KINDS, *_IMMEDIATE_KINDS)
KINDS = (*sorted(ANY_FRAME_FAULTS), *_OTHER_KINDS)
"""Kinds that do not belong to one exchange alone."""


class FaultError(ValueError):
    """A fault that cannot be played."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What goes wrong, where, and how often.

    A waiting fault is played for the next `count` matches (one, unless `seconds` limits it). Messages and snapshots
    are counted per symbol and connection, other REST requests together unless `symbols` are named.
    Without `symbols` or `connection` it matches all of them.
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
        for name in ("count", "seconds", "every"):
            if (number := getattr(self, name)) is not None and number <= 0:
                raise FaultError(f"{name} must be above zero, not {number}")

    @property
    def acts_at_once(self) -> bool:
        """Whether it is played when asked for, instead of waiting for a message or request."""
        return self.kind in _IMMEDIATE_KINDS

    def number(self, default: float) -> float:
        """`value` as a number. Raises FaultError for a text."""
        if isinstance(self.value, str):
            raise FaultError(f"{self.kind} needs a number as value, not {self.value!r}")
        return default if self.value is None else self.value


@dataclass(slots=True)
class _Waiting:
    fault: Fault
    deadline: float | None
    matched: Counter[tuple[int, str]] = field(default_factory=Counter)
    memory: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    snapshots: Counter[str] = field(default_factory=Counter)

    def is_over(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline

    def matches(self, connection: int, symbol: str) -> bool:
        fault = self.fault
        return (fault.symbols is None or symbol in fault.symbols) and fault.connection in (None, connection)

    def is_used_up(self, target: tuple[int, str]) -> bool:
        limit = self.fault.count
        if limit is None and self.deadline is None:
            limit = 1
        return limit is not None and self.matched[target] >= limit


class FaultBoard:
    """The faults of one exchange that wait. `clock` is monotonic."""

    def __init__(
        self,
        clock: Callable[[], float],
        frame_faults: FrameFaults = ANY_FRAME_FAULTS,
        *,
        impossible: Set[str] = frozenset(),
        binary: bool = False,
    ) -> None:
        """`frame_faults` are those that its messages can have; `binary` is whether these are binary messages."""
        self._clock = clock
        self._frame_faults = frame_faults
        self._kinds = [kind for kind in (*sorted(frame_faults), *_OTHER_KINDS) if kind not in impossible]
        self._binary = binary
        self._waiting: list[_Waiting] = []
        self.played: Counter[str] = Counter()
        self.halted: dict[str, str] = {}
        """Symbols whose market is halted, with the status that the exchange gives; empty for its usual way."""
        self.warned: dict[str, str] = {}
        """Symbols that the exchange warns of, with its word."""
        self.alters_frames = False
        """Whether a fault may change market data: the fast path ends here."""

    def check(self, fault: Fault) -> None:
        """Raises FaultError for a kind that this exchange does not have."""
        if fault.kind in self._kinds:
            return
        if fault.kind in KINDS:
            raise FaultError(f"this exchange knows no {fault.kind!r}")
        known = ", ".join(self._kinds)
        raise FaultError(f"unknown fault {fault.kind!r}, this exchange knows no such kind; known: {known}")

    def add(self, fault: Fault) -> None:
        """Let a fault wait from now on. Raises FaultError for a kind that this exchange does not have."""
        self.check(fault)
        deadline = None if fault.seconds is None else self._clock() + fault.seconds
        self._waiting = [each for each in self._waiting if each.fault != fault]
        self._waiting.append(_Waiting(fault, deadline))
        self._refresh()

    def clear(self) -> None:
        self._waiting.clear()
        self.halted.clear()
        self.warned.clear()
        self._refresh()

    def waiting(self) -> list[Fault]:
        """Faults that may still be played."""
        return [each.fault for each in self._waiting]

    def match(self, kind: str, *, symbol: str = "", connection: int = 0) -> Fault | None:
        """The fault of this kind for this request or connection, if one waits; it counts as played."""
        for each in self._live():
            target = connection, symbol if each.fault.symbols or kind in _EACH_SYMBOL else ""
            if each.fault.kind == kind and each.matches(connection, symbol) and not each.is_used_up(target):
                each.matched[target] += 1
                self.played[kind] += 1
                return each.fault
        return None

    def remaining(self, fault: Fault) -> float | None:
        """Seconds that a fault with a time limit still lasts; None for any other."""
        for each in self._waiting:
            if each.fault is fault and each.deadline is not None:
                return max(0.0, each.deadline - self._clock())
        return None

    def snapshot_served(self, symbol: str) -> None:
        """Count a snapshot: `gap_at_bridge` waits for one."""
        for each in self._waiting:
            each.snapshots[symbol] += 1

    def alter(self, feed: MarketFeed, stream: str, connection: int, text: str) -> list[bytes]:
        """The frames that go out in place of one message."""
        symbol = feed.instrument.native
        target = connection, symbol
        for each in self._live():
            fault = each.fault
            play = self._frame_faults.get(fault.kind)
            if play is None or not _concerns(fault.stream, stream) or not each.matches(connection, symbol):
                continue
            if each.is_used_up(target):
                continue
            memory = each.memory.setdefault(target, [])
            pending = PendingFrame(text, feed, fault.value, memory, each.snapshots[symbol], binary=self._binary)
            frames = play(pending)
            if pending.played:
                each.matched[target] += 1
                self.played[fault.kind] += 1
            return frames
        return [encode_frame(text.encode(), binary=self._binary)]

    def _live(self) -> list[_Waiting]:
        now = self._clock()
        if any(each.is_over(now) for each in self._waiting):
            self._waiting = [each for each in self._waiting if not each.is_over(now)]
            self._refresh()
        return self._waiting

    def _refresh(self) -> None:
        self.alters_frames = any(each.fault.kind in self._frame_faults for each in self._waiting)


def _concerns(wanted: str, stream: str) -> bool:
    return stream.startswith("depth") if wanted == "depth" else stream == wanted
