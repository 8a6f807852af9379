"""A market, feeders and a server in simulated time, around the real publish script: what can go wrong does.

Times are in seconds from the start. One book. Nothing here decides what is right: the test judges the record.
"""

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from lupa import lua51  # type: ignore[import-untyped]

from bookbus.feeders.bus.outbox import Conflator
from bookbus.feeders.bus.publish_script import ACCEPTED, REFUSED, Submission, SubmissionKind, script_text
from bookbus.schemas.snapshot import StoredState
from bookbus.schemas.wire import decode, encode_body
from tests.support.builders import book

STEP = 0.05
REPEAT_AFTER = 2.0
SILENCE_LIMIT = 10.0
STALL_LIMIT = 5.0
EPOCH_US = 1_700_000_000_000_000
KEY = "md:book:binance:BTC-USDT"

FaultKind = Literal["kill", "disconnect", "pause", "silence"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to one feeder; `gap` seconds after the end of its fault before."""

    kind: FaultKind
    gap: float
    duration: float


@dataclass(frozen=True, slots=True)
class Line:
    """One feeder: how late it sees the exchange, how long it collects before it writes, how long it synchronises."""

    latency: float
    batching: float
    resync: float
    faults: Sequence[Fault]


@dataclass(frozen=True, slots=True)
class Event:
    """What the server did with a submission. `update_id` is that of the stored book."""

    time: float
    reply: int
    state: str
    update_id: int
    seq: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The stored state at one moment, and since when some line has been healthy without a break (None: none is)."""

    time: float
    state: str | None
    healthy_since: float | None


class Market:
    """The exchange's true update id over time."""

    def __init__(self, update_times: Sequence[float]) -> None:
        self._times = list(update_times)

    def id_at(self, time: float) -> int:
        return 1000 + bisect.bisect_right(self._times, time)

    def replaced_at(self, update_id: int) -> float:
        """When this book stopped being the true one."""
        index = update_id - 1000
        return self._times[index] if index < len(self._times) else float("inf")


class ScriptServer:
    """The commands the script uses, over one dict, with a clock that the world sets."""

    def __init__(self, script: bytes | None = None) -> None:
        self.time = 0.0
        self.hashes: dict[bytes, dict[bytes, bytes]] = {}
        self.published: list[bytes] = []
        self._lua = lua51.LuaRuntime(encoding=None)
        run = self._lua.eval(b"function(text, call) redis = {call = call}; return loadstring(text) end")
        self._script = run(script or script_text(), self._call)
        self._set_arguments = self._lua.eval(b"function(keys, arguments) KEYS, ARGV = keys, arguments end")

    def submit(self, submission: Submission, feeder: str) -> int:
        submitted = submission.book
        bid, ask = submitted.bids[0], submitted.asks[0]
        texts = (submission.kind, feeder, submitted.update_id, submitted.state, 1, *bid, *ask)
        arguments = [str(text).encode() for text in texts] + [encode_body(submitted, feeder, 1)]
        self._set_arguments(self._lua.table_from([KEY.encode()]), self._lua.table_from(arguments))
        return int(self._script())

    def stored(self) -> dict[bytes, bytes]:
        return self.hashes.get(KEY.encode(), {})

    def _call(self, command: bytes, *arguments: Any) -> Any:
        match command, arguments:
            case b"TIME", ():
                now = EPOCH_US + round(self.time * 1e6)
                return self._lua.table_from([b"%d" % (now // 1_000_000), b"%d" % (now % 1_000_000)])
            case b"HMGET", (key, *fields):
                stored = self.hashes.get(key, {})
                return self._lua.table_from([stored.get(name, False) for name in fields])
            case b"HSET", (key, *pairs):
                self.hashes.setdefault(key, {}).update(zip(pairs[::2], pairs[1::2], strict=True))
            case b"PUBLISH", (_, message):
                self.published.append(message)
            case _:
                raise AssertionError(f"the script called {command!r}")
        return 0


class Feeder:
    """One line's processes, one after another."""

    def __init__(self, name: str, line: Line, market: Market, server: ScriptServer) -> None:
        self.healthy_since: float | None = None
        self._name, self._line, self._market, self._server = name, line, market, server
        self._windows = list(_windows(line.faults))
        self._fault: FaultKind | None = None
        self._runs = 0
        self._unsent: Conflator[str] = Conflator()
        self._start(0.0)

    def step(self, now: float) -> Iterator[int]:
        """One turn of this feeder's loop. Yields the server's replies."""
        self._follow_faults(now)
        if self._fault in ("kill", "pause"):
            self.healthy_since = None
            return
        # Writing comes first: what waited while the process stood still goes out before anything is received.
        if self._unsent and now >= self._write_at:
            for _, submission in self._unsent.take(1):
                yield self._server.submit(submission, f"{self._name}{self._runs}")
        if self._fault is None and now >= self._ready_at:
            self._receive(now)
        else:
            self.healthy_since = None
            if self._state == "live" and now - self._last_sign > SILENCE_LIMIT:
                self._lose(now)
        self._repeat(now)

    def _follow_faults(self, now: float) -> None:
        while self._windows and now >= self._windows[0][1]:
            start, _, kind = self._windows.pop(0)
            if kind == "kill":
                self._start(now)
            elif kind == "pause" and now - start > STALL_LIMIT:
                self._unsent.clear()
                self._synchronise(now)
                self._state = "syncing"
            elif kind in ("disconnect", "silence"):
                self._synchronise(now)
        before, self._fault = self._fault, None
        if self._windows and now >= self._windows[0][0]:
            self._fault = self._windows[0][2]
            if self._fault == "disconnect" and before is None:
                self._lose(now)

    def _start(self, now: float) -> None:
        """A new process, with an id of its own."""
        self._runs += 1
        self._unsent.clear()
        self._known = 0
        self._state = "syncing"
        self._write_at = self._last_submitted = self._last_sign = now
        self._synchronise(now)

    def _synchronise(self, now: float) -> None:
        self._ready_at = now + self._line.resync

    def _receive(self, now: float) -> None:
        if self.healthy_since is None:
            self.healthy_since = now
        self._last_sign = now
        update_id = self._market.id_at(now - self._line.latency)
        if update_id != self._known or self._state != "live":
            self._known, self._state = update_id, "live"
            self._submit("new", now)

    def _lose(self, now: float) -> None:
        if self._state == "live":
            self._state = "suspect"
            self._submit("state", now)

    def _repeat(self, now: float) -> None:
        """What a feeder does a few times a second for its quiet books."""
        if now - self._last_submitted < REPEAT_AFTER:
            return
        if self._state == "suspect":
            self._submit("state", now)
        elif self._state == "live" and self._last_sign > self._last_submitted:
            self._submit("again", now)

    def _submit(self, kind: SubmissionKind, now: float) -> None:
        state: StoredState = "suspect" if kind == "state" else "live"
        if not self._unsent:
            self._write_at = now + self._line.batching
        self._unsent.put("", Submission(kind, "book", book(update_id=self._known, state=state)))
        self._last_submitted = now


@dataclass(slots=True)
class World:
    """Runs everything and keeps the record."""

    market: Market
    lines: Sequence[Line]
    data_losses: Sequence[float] = ()
    script: bytes | None = None
    events: list[Event] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    lost_before: list[int] = field(default_factory=list)
    """How many events had happened when the data was lost."""

    def run(self, duration: float) -> None:
        """Fill the record."""
        server = ScriptServer(self.script)
        feeders = [Feeder("ABC"[place], line, self.market, server) for place, line in enumerate(self.lines)]
        losses = sorted(self.data_losses)
        for turn in range(round(duration / STEP)):
            now = server.time = turn * STEP
            if losses and now >= losses[0]:
                losses.pop(0)
                server.hashes.clear()
                self.lost_before.append(len(self.events))
            # Nobody is always first.
            for place in range(len(feeders)):
                for reply in feeders[(turn + place) % len(feeders)].step(now):
                    self._note(server, now, reply)
            since = min((feeder.healthy_since for feeder in feeders if feeder.healthy_since is not None), default=None)
            state = server.stored().get(b"state")
            self.samples.append(Sample(now, state.decode() if state else None, since))

    def _note(self, server: ScriptServer, now: float, reply: int) -> None:
        if reply == REFUSED:
            return
        stored = server.stored()
        if reply == ACCEPTED:
            assert server.published[-1] == stored[b"book"], "what is announced is what is stored"
        message = decode(stored[b"book"])
        self.events.append(Event(now, reply, message.state, message.update_id, message.seq))


def _windows(faults: Sequence[Fault]) -> Iterator[tuple[float, float, FaultKind]]:
    end = 0.0
    for fault in faults:
        start = end + fault.gap
        end = start + fault.duration
        yield start, end, fault.kind
