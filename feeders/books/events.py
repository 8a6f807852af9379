"""Events of an exchange's feed: the pure core returns them, the shell acts on them."""

from typing import Literal

import msgspec

from bookbus.schemas.snapshot import Levels, Side

Topic = Literal["book", "quote", "trades"]
"""A kind of data of a symbol. A quote is a book of one level that the exchange sends in real time."""


class Event(msgspec.Struct, frozen=True):
    """Base of all events; `native` is the exchange's own symbol."""


class BookUpdated(Event, frozen=True):
    """The published levels changed. `exchange_us` is None where the exchange gives no time."""

    native: str
    update_id: int
    exchange_us: int | None
    bids: Levels
    asks: Levels
    topic: Topic = "book"


class BookUnchanged(Event, frozen=True):
    """The book moved on to `update_id`; its published levels did not change."""

    native: str
    update_id: int
    topic: Topic = "book"


class BookLost(Event, frozen=True):
    """From now on the book may differ from the exchange's; the last published levels are the last known."""

    native: str
    reason: str
    topic: Topic = "book"


class SnapshotNeeded(Event, frozen=True):
    """The book needs a snapshot by request to go on, or to become deep enough."""

    native: str
    limit: int
    urgent: bool
    """Whether the book is unusable until then, or soon will be."""


class TradeHappened(Event, frozen=True):
    """One trade. `aggressor` is the side that took."""

    native: str
    trade_id: int
    price: float
    quantity: float
    aggressor: Side
    exchange_us: int


class Acknowledged(Event, frozen=True):
    """The exchange accepted the control message `request_id`."""

    request_id: int


class Refused(Event, frozen=True):
    """The exchange refused the control message `request_id` (None if it does not say which).

    `native` is the symbol that it does not have, where it says so.
    """

    request_id: int | None
    message: str
    native: str = ""


class ClosingSoon(Event, frozen=True):
    """The exchange is about to close this connection: open another one now."""

    reason: str


class ResubscribeNeeded(Event, frozen=True):
    """The book needs a new subscription, on which the exchange sends it whole."""

    native: str


class KnownWindowLeft(Event, frozen=True):
    """Published levels lie beyond what the last snapshot covered: levels between them may be missing.

    The book is not live then if the snapshot was `shallow`.
    """

    native: str
    shallow: bool = False


class Ignored(Event, frozen=True):
    """The exchange sent something, `count` times, that is not used: a kind of data, or a part of messages.

    `native` is empty where it belongs to no symbol.
    """

    native: str
    name: str
    count: int = 1


class PrecisionLost(Event, frozen=True):
    """The exchange writes numbers of this book with more digits than float64 keeps."""

    native: str
    text: str
