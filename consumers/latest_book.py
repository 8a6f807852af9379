"""The newest book of each symbol, for providers that get or make them in this process."""

from typing import NamedTuple

from msgspec.structs import replace

from bookbus.consumers.reading import Counts, Observation
from bookbus.schemas.instruments import TradingStatus
from bookbus.schemas.snapshot import OrderBookSnapshot


class _Entry(NamedTuple):
    snapshot: OrderBookSnapshot
    updated_at: float


class LocalBook:
    """One book and when it was last confirmed; one thread writes, any reads. Times are of the caller's clock."""

    __slots__ = ("_confirmed_at", "_conflated", "_entry", "_losses", "_received", "_unread")

    def __init__(self) -> None:
        self._entry: _Entry | None = None
        self._confirmed_at = 0.0
        self._received = 0
        self._conflated = 0
        self._losses = 0
        self._unread = False

    def take(self, snapshot: OrderBookSnapshot, now: float, count: int = 1) -> None:
        """This is the book now, the last of `count` updates."""
        self._received += count
        self._conflated += count if self._unread else count - 1
        self._losses += snapshot.state == "suspect"
        # One assignment, so that no reader sees one update's levels with another's time.
        self._entry = _Entry(snapshot, now)
        self._confirmed_at = now
        self._unread = True

    def confirm(self, at: float) -> None:
        """Its source was alive at this time, and no change before it is missing."""
        if self._entry is not None and self._entry.snapshot.state == "live" and at > self._confirmed_at:
            self._confirmed_at = at

    def lose(self, now: float) -> bool:
        """Mark it as suspect. Returns whether it was live until now."""
        entry = self._entry
        if entry is None or entry.snapshot.state != "live":
            return False
        self.take(replace(entry.snapshot, state="suspect"), now)
        return True

    def observe(
        self,
        now: float,
        feeder_alive: bool | None,
        error: str,
        trading: TradingStatus = "unknown",
        *,
        gone: bool = False,
    ) -> Observation:
        """The observation at `now`; the other arguments are those of Observation."""
        entry = self._entry
        if entry is None:
            return Observation(feeder_alive=feeder_alive, error=error, trading=trading)
        self._unread = False
        return Observation(
            entry.snapshot,
            max(now - self._confirmed_at, 0.0),
            max(now - entry.updated_at, 0.0),
            feeder_alive,
            error,
            trading,
            gone=gone,
        )

    def counts(self) -> Counts:
        """Counts of its updates."""
        return Counts(received=self._received, conflated=self._conflated, resets=self._losses)
