"""The loop that opens a lost connection again, and replaces one before its end without a gap."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

from bookbus.feeders.errors import (
    GaveUpError,
    WebSocketConnectionError,
    WebSocketError,
    WebSocketTimeoutError,
    WebSocketUnavailableError,
)

logger = logging.getLogger(__name__)

HANDOVER_GRACE = 0.5
"""Seconds both connections run side by side once the new one is ready: more than one is later than the other."""

READY_LIMIT = 60.0
"""Seconds after which a new connection that is not ready is given up: more than subscribing takes anywhere."""

_POLL_INTERVAL = 0.1


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """Exponential backoff in seconds; `max_attempts` counts failures in a row, None retries forever.

    Up to `steady` outages (nothing listens, no refusal) since the last valid data do not lengthen the delay.
    """

    initial: float = 1.0
    multiplier: float = 2.0
    maximum: float = 30.0
    max_attempts: int | None = None
    steady: int = 0

    def delay(self, failures: int, chance: float) -> float:
        """Seconds to wait after this many failures in a row; `chance` in [0, 1) spreads it over 50 to 100 %."""
        # The exponent is bounded: after a night of failures the power would overflow.
        full = min(self.initial * self.multiplier ** min(failures - 1, 64), self.maximum)
        return full * (0.5 + chance / 2)


class Line(Protocol):
    """A connection that can be opened again and replaced."""

    replace_wanted: asyncio.Event
    ready: asyncio.Event

    @property
    def has_valid_data(self) -> bool:
        """Whether the exchange sent valid data since the connection was opened."""

    async def connect(self) -> None:
        """Open the connection. Raises WebSocketConnectionError."""

    async def subscribe(self) -> None:
        """Ask for everything the line is to carry."""

    async def receive_loop(self) -> None:
        """Drain until the connection is lost. Raises WebSocketConnectionError or WebSocketTimeoutError."""

    async def close(self) -> None:
        """Close the connection."""

    def successor(self) -> Self:
        """Another connection for the same symbols and books."""


LineT = TypeVar("LineT", bound=Line)


@dataclass(slots=True, eq=False)
class ReconnectingConnection(Generic[LineT]):
    """Keeps one line open. `sleep` and `chance` are parameters for tests."""

    line: LineT
    policy: ReconnectPolicy = ReconnectPolicy()
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    reconnects: int = 0
    handovers: int = 0
    failure: str = ""
    """Why the line was last lost, or could not be opened."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while replacing; connections that share it are replaced one after another."""
    _next: LineT | None = None

    @property
    def lines(self) -> Sequence[LineT]:
        """The line, and during a planned change also the one that is about to take over."""
        return (self.line,) if self._next is None else (self.line, self._next)

    async def run(self) -> None:
        """Until cancelled. Raises GaveUpError if the policy has a limit and it is reached."""
        failures = outages = 0
        while True:
            try:
                await self.line.connect()
                await self.line.subscribe()
                failures = await self._stay()
            except (WebSocketConnectionError, WebSocketTimeoutError) as error:
                self.failure = str(error)
                failures, outages = (1, 0) if self.line.has_valid_data else (failures + 1, outages)
                if isinstance(error, WebSocketUnavailableError) and outages < self.policy.steady:
                    outages += 1
                if self.policy.max_attempts is not None and failures > self.policy.max_attempts:
                    raise GaveUpError(f"gave up after {self.policy.max_attempts} attempts in a row: {error}") from error
                delay = self.policy.delay(max(failures - outages, 1), self.chance())
                self.reconnects += 1
                # Warn once; the heartbeat shows a longer outage.
                level = logging.WARNING if failures == 1 else logging.DEBUG
                logger.log(level, "reconnecting in %.1f s and until it works: %s", delay, error)
                await self.sleep(delay)

    async def _stay(self) -> int:
        """Read from the line and its successors until one is lost, which raises."""
        reading = asyncio.create_task(self.line.receive_loop())
        try:
            while True:
                await _until(reading, self.line.replace_wanted)
                if reading.done():
                    await reading
                    return 0
                reading = await self._replace(reading)
        finally:
            await _stop(reading)

    async def _replace(self, reading: "asyncio.Task[None]") -> "asyncio.Task[None]":
        """Hand over, or keep the current connection. Returns the task that reads from then on."""
        # Poll the lock: the connection may be lost while another one is replaced.
        while self.turn.locked() and not reading.done():
            await asyncio.wait((reading,), timeout=_POLL_INTERVAL)
        if reading.done():
            return reading
        try:
            async with self.turn:
                return await self._hand_over(reading)
        except (WebSocketConnectionError, WebSocketTimeoutError) as error:
            logger.warning("cannot replace the connection yet: %s", error)
        finally:
            self._next = None
        await asyncio.wait((reading,), timeout=self.policy.delay(1, self.chance()))
        if not reading.done():
            self.line.replace_wanted.set()
        return reading

    async def _hand_over(self, reading: "asyncio.Task[None]") -> "asyncio.Task[None]":
        """Open the next connection before leaving this one."""
        self.line.replace_wanted.clear()
        self._next = successor = self.line.successor()
        await successor.connect()
        await successor.subscribe()
        next_reading = asyncio.create_task(successor.receive_loop())
        try:
            await _until(next_reading, successor.ready, READY_LIMIT)
            if next_reading.done():
                await next_reading
            if not successor.ready.is_set():
                raise WebSocketTimeoutError(f"the new connection is not ready after {READY_LIMIT:g} s")
            # Both deliver every update now. What the old one still has in flight arrives within the grace.
            await asyncio.wait((reading,), timeout=HANDOVER_GRACE)
            self.line, self.handovers = successor, self.handovers + 1
            await _stop(reading)
        except (asyncio.CancelledError, WebSocketTimeoutError):
            await _stop(next_reading)
            raise
        logger.info("connection replaced without a gap")
        return next_reading


async def _until(task: "asyncio.Task[None]", event: asyncio.Event, limit: float | None = None) -> None:
    """Return once the task has ended or the event is set, or after so many seconds."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((task, waiting), timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    # Awaiting the task itself would not distinguish our own cancellation from the task's.
    await asyncio.wait((task,))
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, WebSocketError):
        raise error
