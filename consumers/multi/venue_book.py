"""One exchange's book of an asset in the common quote currency, and whether two of them may be compared."""

import msgspec

from bookbus.consumers.multi.fx import Conversion
from bookbus.schemas.snapshot import BookStatus, Levels, OrderBookSnapshot

MAX_MIDS_APART = 0.10
"""How far two mids may be apart, as a fraction of the lower, and still be prices of one asset."""


class VenueBook(msgspec.Struct, frozen=True, kw_only=True):
    """`snapshot` is the book as the exchange has it; `bids` and `asks` are its levels in the common quote currency.

    `reason` says why it may be compared with no other book; then it has no levels. `conversion` and `fx_age` are
    None where the exchange itself quotes in the common currency.
    """

    exchange: str
    symbol: str
    status: BookStatus
    fee_bps: float
    age: float | None = None
    reason: str = ""
    snapshot: OrderBookSnapshot | None = None
    conversion: Conversion | None = None
    fx_age: float | None = None
    bids: Levels = ()
    asks: Levels = ()
    depth: int = 0
    """Levels asked for a side."""

    def mid(self) -> float | None:
        """Middle of the best prices in the common quote currency; None without levels."""
        if not self.bids or not self.asks:
            return None
        return (self.bids[0][0] + self.asks[0][0]) / 2


def skew(one: VenueBook, other: VenueBook) -> float:
    """Seconds between the moments at which the two were last confirmed."""
    if one.age is None or other.age is None:
        return float("inf")
    return abs(one.age - other.age)


def mids_apart(one: VenueBook, other: VenueBook) -> float:
    """Distance of the mids as a fraction of the lower one."""
    mid, other_mid = one.mid(), other.mid()
    if mid is None or other_mid is None:
        return float("inf")
    return abs(mid - other_mid) / min(mid, other_mid)


def why_skewed(one: VenueBook, other: VenueBook, max_skew: float) -> str:
    """Why the two are not of one moment; empty if they are."""
    apart = skew(one, other)
    if apart <= max_skew:
        return ""
    return f"{one.exchange} and {other.exchange} were confirmed {apart:.1f} s apart (limit {max_skew:g} s)"


def why_unlike(one: VenueBook, other: VenueBook) -> str:
    """Why the two do not look like one asset; empty if they do."""
    apart = mids_apart(one, other)
    if apart <= MAX_MIDS_APART:
        return ""
    return f"mids of {one.exchange} and {other.exchange} are {apart:.1%} apart: different asset?"


def why_not_comparable(one: VenueBook, other: VenueBook, max_skew: float) -> str:
    """Why no price of one may be held against a price of the other; empty if it may."""
    if reasons := list(dict.fromkeys(book.reason for book in (one, other) if book.reason)):
        return "; ".join(reasons)
    return why_skewed(one, other, max_skew) or why_unlike(one, other)
