"""What a reader learns of one book: the values that providers hand out."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot


class BookNotLiveError(RuntimeError):
    """A book that was needed live is not; the message says why."""


class Observation(msgspec.Struct, frozen=True):
    """What a provider knows of one symbol at this moment, before it is judged.

    `age` is the time since the book was last confirmed, `update_age` the time since it last changed; None while
    nothing was ever received. `feeder_alive` is None where nobody can tell. `error` says what stands between
    the provider and a better answer.
    """

    snapshot: OrderBookSnapshot | None = None
    age: float | None = None
    update_age: float | None = None
    feeder_alive: bool | None = None
    error: str = ""

    @property
    def trouble(self) -> str:
        """The former name of `error`."""
        return self.error


class Counts(msgspec.Struct, frozen=True):
    """What happened to one book's updates since the provider was made."""

    received: int = 0
    """Updates that came."""
    conflated: int = 0
    """Updates that a newer one replaced before anybody read them."""
    missed: int = 0
    """Updates that never came, told by the gaps in `seq`."""
    resets: int = 0
    """How often the source began anew: an order that goes back, or a server that lost its data."""
    skipped: int = 0
    """Messages that were no book of this symbol."""


class Reading(msgspec.Struct, frozen=True):
    """A book with what may be believed of it; `reason` is empty when it is live."""

    snapshot: OrderBookSnapshot | None
    status: BookStatus
    age: float | None
    reason: str

    def require_live(self) -> OrderBookSnapshot:
        """The book. Raises BookNotLiveError with the reason unless it is live."""
        if self.snapshot is None or self.status is not BookStatus.LIVE:
            raise BookNotLiveError(self.reason)
        return self.snapshot


class SymbolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one symbol but its levels."""

    symbol: str
    state: BookStatus
    reason: str
    age: float | None
    update_age: float | None
    seq: int
    update_id: int | None
    feeder: str
    feeder_alive: bool | None
    received: int
    conflated: int
    missed: int
    resets: int
    skipped: int


class ConnectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider is connected, and all its symbols. `error` is empty while it is connected."""

    is_running: bool
    connected: bool
    thread_alive: bool
    reconnect_count: int
    error: str
    symbols: Mapping[str, SymbolStatus]

    @property
    def trouble(self) -> str:
        """The former name of `error`."""
        return self.error


class Update(NamedTuple):
    """The newest book of a symbol; `conflated` earlier updates were merged into it since the one before."""

    snapshot: OrderBookSnapshot
    conflated: int


MAX_AGE = 5.0
"""Seconds without confirmation after which a book counts as stale, unless asked otherwise."""


def judge(observation: Observation, max_age: float) -> tuple[BookStatus, str]:
    """The status of a book, and why it is not live (empty if it is)."""
    snapshot, age, error = observation.snapshot, observation.age, observation.error
    if snapshot is None:
        return BookStatus.MISSING, error or "no book was received yet"
    if snapshot.state == "closed":
        return BookStatus.CLOSED, "the feeder was stopped; these are its last levels"
    if snapshot.state == "suspect":
        lost = "its truth is unknown; these are the last known levels"
        if observation.feeder_alive is False:
            # Nobody works on it any more.
            return BookStatus.FEEDER_DOWN, f"{lost}; {error or 'no feeder that serves it is alive'}"
        return BookStatus.SUSPECT, f"{lost}; {error}" if error else lost
    if age is not None and age <= max_age:
        return BookStatus.LIVE, ""
    unconfirmed = "never confirmed" if age is None else f"not confirmed for {age:.1f} s (limit {max_age:g} s)"
    if observation.feeder_alive is False:
        return BookStatus.FEEDER_DOWN, f"{unconfirmed}, and no feeder that serves it is alive"
    return BookStatus.STALE, f"{unconfirmed}; {error}" if error else unconfirmed
