"""Faults asked for, which of them strikes next, and how often each has been played."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import msgspec

from bookbus.feeders.simulator.core.feed import Feed
from bookbus.feeders.simulator.frame_faults import FRAME_FAULTS, SILENT_FAULTS, FrameFault, FrameInHand
from bookbus.feeders.simulator.upbit.faults import UPBIT_FRAME_FAULTS

ControlFaultKind = Literal["ack_lost", "ack_delayed", "ack_error", "subscribe_ignored"]
RestFaultKind = Literal[
    "rest_timeout", "rest_status", "rest_truncated", "rest_delay", "stale_snapshot", "empty_snapshot"
]
ConnectionFaultKind = Literal["silence", "half_open", "slow_drip", "reset", "close", "server_shutdown"]
VenueFaultKind = Literal["refuse_connections", "cold_restart"]

IMMEDIATE = (*get_args(ConnectionFaultKind), *get_args(VenueFaultKind))
"""Kinds that act once, when they are asked for; the others wait for something to strike."""
_EACH_SYMBOL = ("stale_snapshot", "empty_snapshot")
_FRAME_KINDS = FRAME_FAULTS.keys() | SILENT_FAULTS.keys() | UPBIT_FRAME_FAULTS.keys()
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

    def strike(self, kind: str, *, symbol: str = "", connection: int = 0) -> Fault | None:
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
            in_hand = FrameInHand(text, feed, fault.value, memory, each.snapshots[symbol], binary=self._binary)
            frames = play(in_hand)
            if in_hand.played:
                each.struck[target] += 1
                self.played[fault.kind] += 1
            return frames
        return [FrameInHand(text, feed, binary=self._binary).as_is()]

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
