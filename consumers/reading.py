"""The values that providers return: a book with its status, and the rules for that status."""

from collections.abc import Mapping
from typing import NamedTuple, Self

import msgspec

from bookbus.schemas.instruments import TradingStatus
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot

MAX_AGE = 5.0
"""Default limit in seconds: a book that was not confirmed for longer is stale."""


class BookNotLiveError(RuntimeError):
    """A required book is not live; the message says why."""


class Reading(msgspec.Struct, frozen=True):
    """A book and its status. `age` is in seconds since the last confirmation; `reason` is empty if the book is live.

    `trading` is what the exchange says of the market (`TradingStatus`), `unknown` if nobody says it. A book of a halted
    market can be live: its levels are the exchange's, but no order is filled.
    """

    snapshot: OrderBookSnapshot | None
    status: BookStatus
    age: float | None
    reason: str
    trading: TradingStatus = "unknown"

    @property
    def tradable(self) -> bool:
        """Whether the book is live and nothing is known that speaks against trading on it."""
        return self.status is BookStatus.LIVE and self.trading in ("unknown", "trading")

    def require_live(self) -> OrderBookSnapshot:
        """The book. Raises BookNotLiveError with the reason unless it is live."""
        if self.snapshot is None or self.status is not BookStatus.LIVE:
            raise BookNotLiveError(self.reason)
        return self.snapshot


class SymbolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Status, ages (seconds) and counts of one symbol."""

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
    trading: TradingStatus = "unknown"


class ConnectionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """State of a provider's connection and of all its symbols. `error` is empty while it is connected."""

    is_running: bool
    connected: bool
    thread_alive: bool
    reconnect_count: int
    error: str
    symbols: Mapping[str, SymbolStatus]
    feeder_reconnects: int = 0
    """How often the feeders of these books lost a connection to the exchange, since their first heartbeats here."""
    clock_jumps: int = 0
    """How often the clock of the server, or of this machine, was set while this provider was connected."""

    @property
    def trouble(self) -> str:
        """The earlier name of `error`."""
        return self.error


class _Pair(NamedTuple):
    snapshot: OrderBookSnapshot
    conflated: int


class Update(_Pair):
    """The newest book of a symbol, and how many earlier updates it replaced unread since the previous Update.

    A pair, with the book's status at that moment beside: where only the status or the trading status changed, the book
    is the same as before and `conflated` is 0. `reason` says why the book is not live.
    """

    status: BookStatus
    reason: str
    trading: TradingStatus

    def __new__(
        cls,
        snapshot: OrderBookSnapshot,
        conflated: int,
        status: BookStatus = BookStatus.LIVE,
        reason: str = "",
        trading: TradingStatus = "unknown",
    ) -> Self:
        update = super().__new__(cls, snapshot, conflated)
        update.status, update.reason, update.trading = status, reason, trading
        return update


class Observation(msgspec.Struct, frozen=True):
    """The state of one symbol's book, from which `judge` derives its status.

    `age` is the time in seconds since the last confirmation, `update_age` since the last change; None before the first
    book. `feeder_alive` is None if it is unknown. `error` is the failure of the connection or source, or empty.
    `trading` is what the exchange says of the market, `unknown` if nobody says it.
    `confirmation_seen` is False while only the clock of another machine says how old the book is.
    """

    snapshot: OrderBookSnapshot | None = None
    age: float | None = None
    update_age: float | None = None
    feeder_alive: bool | None = None
    error: str = ""
    trading: TradingStatus = "unknown"
    confirmation_seen: bool = True
    gone: bool = False
    """Whether nothing confirms the book any more: the process was forked, and its reader is in the other one."""

    @property
    def trouble(self) -> str:
        """The earlier name of `error`."""
        return self.error


FORKED = "this process was forked after the provider was started: start it again here"
"""`error` of an observation that is `gone`."""


class Counts(msgspec.Struct, frozen=True):
    """Counts of one book's updates since the provider was created."""

    received: int = 0
    """Updates received."""
    conflated: int = 0
    """Updates that a newer one replaced unread."""
    missed: int = 0
    """Updates never received, counted by the gaps in `seq`."""
    resets: int = 0
    """How often the sequence restarted: `seq` went back, or the server lost its data."""
    skipped: int = 0
    """Messages that could not be decoded as a book of this symbol."""


def judge(observation: Observation, max_age: float) -> tuple[BookStatus, str]:
    """The status of a book, and the reason why it is not live (empty if it is)."""
    snapshot, age, error = observation.snapshot, observation.age, observation.error
    if observation.gone and snapshot is not None:
        return BookStatus.STALE, error
    if snapshot is None:
        return BookStatus.MISSING, error or "no book was received yet"
    if snapshot.state == "closed":
        return BookStatus.CLOSED, "the feeder was stopped; these are its last levels"
    if snapshot.state == "suspect":
        lost = "it is out of sync; these are the last known levels"
        if observation.feeder_alive is False:
            # No feeder is left to restore it.
            return BookStatus.FEEDER_DOWN, f"{lost}; {error or 'no feeder that serves it is alive'}"
        return BookStatus.SUSPECT, f"{lost}; {error}" if error else lost
    if age is not None and age <= max_age:
        if observation.confirmation_seen:
            return BookStatus.LIVE, ""
        unconfirmed = "no confirmation was seen yet"
    else:
        unconfirmed = "never confirmed" if age is None else f"not confirmed for {age:.1f} s (limit {max_age:g} s)"
    cause = f"; {error}" if error else ""
    if observation.feeder_alive is False:
        return BookStatus.FEEDER_DOWN, f"{unconfirmed}, and no feeder that serves it is alive{cause}"
    return BookStatus.STALE, unconfirmed + cause
