"""A book held against the exchange's own answer at the same update id."""

from collections.abc import Iterable, Sequence

from bookbus.feeders.books.history import Quantities, RecordedBook
from bookbus.feeders.books.order_book import DepthChange, DepthSnapshot
from bookbus.schemas.heartbeat import SymbolAudit

UNMATCHED = SymbolAudit(unmatched=1)
"""Our book never stood at the answer's id: nothing can be said."""


def compare(ours: RecordedBook, theirs: DepthSnapshot, limit: int) -> SymbolAudit:
    """What differs at the prices that both know. `limit` is the levels a side that were asked for."""
    bids = _compare_side(ours.bids, ours.bid_edge, theirs.bids, limit, sign=1)
    asks = _compare_side(ours.asks, ours.ask_edge, theirs.asks, limit, sign=-1)
    levels, ghosts, missing, wrong = (sum(pair) for pair in zip(bids, asks, strict=True))
    equal = ghosts == missing == wrong == 0
    return SymbolAudit(
        matched=int(equal), mismatched=int(not equal), levels=levels, ghosts=ghosts, missing=missing, wrong=wrong
    )


def _compare_side(
    ours: Quantities, edge: float, theirs: Sequence[DepthChange], limit: int, *, sign: int
) -> tuple[int, int, int, int]:
    """Levels looked at, and those of them that are ours alone, theirs alone, and of another quantity."""
    end = sign * edge
    if len(theirs) >= limit:  # an answer that is not full has all there is
        end = max(end, sign * theirs[-1][0])
    known, true = _up_to(end, ours.items(), sign), _up_to(end, theirs, sign)
    common = known.keys() & true.keys()
    wrong = sum(known[price] != true[price] for price in common)
    ghosts, missing = len(known) - len(common), len(true) - len(common)
    return len(common) + ghosts + missing, ghosts, missing, wrong


def _up_to(end: float, levels: Iterable[DepthChange], sign: int) -> Quantities:
    return {price: quantity for price, quantity in levels if sign * price >= end}
