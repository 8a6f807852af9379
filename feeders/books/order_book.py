"""Price levels of one symbol, kept current by absolute quantities."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from bookbus.schemas.snapshot import Levels

DepthChange = tuple[float, float]
"""`(price, quantity)` as exchanges send it: the quantity replaces the level's, zero removes the level."""

MAX_LEVELS = 5_000
"""Levels kept a side. Diff streams add levels far from the touch that are never removed."""

_PRUNE_SLACK = 250
"""Levels above the maximum at which pruning happens, so that it does not happen at each update."""

DEEP = 1_000
"""Levels of a snapshot whose edge the published levels do not reach for minutes, and then it is counted alone."""

_NEAR_EDGE = 0.25
"""Share of a snapshot's levels beyond the published ones that, when only they are left, are few."""

_NEAR_TOUCH = 32
"""Levels searched first: most changes are there, and they are in the CPU cache."""

_WORST = float("-inf")


class DepthSnapshot(Protocol):
    """A whole book, or the best part of it, at one id."""

    @property
    def last_id(self) -> int:
        """The id the book was at."""

    @property
    def bids(self) -> Sequence[DepthChange]:
        """Best first in a snapshot."""

    @property
    def asks(self) -> Sequence[DepthChange]:
        """Best first in a snapshot."""


class DepthUpdate(DepthSnapshot, Protocol):
    """Changes of one book, ids first to last, both included; a venue without ranges gives one id twice."""

    @property
    def first_id(self) -> int:
        """The first id these changes cover."""

    @property
    def exchange_us(self) -> int | None:
        """The exchange's time of the update, microseconds since 1970."""

    @property
    def is_whole(self) -> bool:
        """Whether these are all levels of the stream's depth, best first, and not changes."""


class BookSide:
    """One side of a book: two parallel lists, sorted keys and their levels.

    The key is the price times `sign` (bids +1, asks -1), so that on both sides the best level has the greatest
    key and stands at the end, where insertion is cheap. Keys are never computed otherwise: the same decimal text
    always gives the same float.

    A side is known up to an edge: beyond it there may be levels that no update has contained since.
    """

    __slots__ = ("_bound", "_depth", "_edge", "_keys", "_levels", "_near", "_shallow", "_sign", "top")

    def __init__(self, sign: int, depth: int) -> None:
        self._sign = float(sign)
        self._depth = depth
        self._keys: list[float] = []
        self._levels: list[DepthChange] = []
        self._bound = self._near = self._edge = _WORST
        self._shallow = False
        self.top: Levels = ()
        """The best `depth` levels."""

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def nears_edge(self) -> bool:
        """Whether the published levels are near the edge, or beyond it."""
        return self._bound < self._near

    @property
    def beyond_edge(self) -> bool:
        """Whether levels may be missing among the published ones."""
        return self._bound < self._edge

    @property
    def is_uncovered(self) -> bool:
        """Whether levels may be missing among the published ones because the snapshot was too small."""
        return self._shallow and self._bound < self._edge

    @property
    def edge(self) -> float:
        """The price up to which the side is known; infinite where it is complete."""
        return self._sign * self._edge

    def levels(self) -> Levels:
        return tuple(self._levels[::-1])

    def replace(self, levels: Sequence[DepthChange], limit: int) -> None:
        """Forget everything and take these best `limit` levels; if they are fewer, the side has no more."""
        sign = self._sign
        known = {sign * level[0]: level for level in levels if level[1]}
        self._keys = keys = sorted(known)
        self._levels = [known[key] for key in keys]
        self._near = self._edge = _WORST
        self._shallow = False
        if keys and len(levels) >= limit:
            self._shallow = len(levels) < max(DEEP, self._depth)
            spare = max(len(keys) - self._depth, 0)
            self._near, self._edge = keys[int(spare * _NEAR_EDGE)], keys[0]
        self._refresh_top()

    def apply(self, changes: Sequence[DepthChange]) -> bool:
        """Take the changes; True if they touched the best `depth` levels. Removing an unknown level is routine."""
        sign, keys, levels, bound = self._sign, self._keys, self._levels, self._bound
        touched = False
        for change in changes:
            key, count = sign * change[0], len(keys)
            near = count > _NEAR_TOUCH and key >= keys[-_NEAR_TOUCH]
            place = bisect_left(keys, key, count - _NEAR_TOUCH if near else 0)
            known = place < count and keys[place] == key
            if change[1]:
                if known:
                    levels[place] = change
                else:
                    keys.insert(place, key)
                    levels.insert(place, change)
            elif known:
                del keys[place], levels[place]
            else:
                continue
            if key >= bound:
                touched = True
        if touched:
            self._refresh_top()
        if len(keys) > MAX_LEVELS + _PRUNE_SLACK:
            self._prune()
        return touched

    def _refresh_top(self) -> None:
        depth, keys = self._depth, self._keys
        self.top = tuple(self._levels[: -depth - 1 : -1])
        self._bound = keys[-depth] if len(keys) >= depth else _WORST

    def _prune(self) -> None:
        del self._keys[:-MAX_LEVELS], self._levels[:-MAX_LEVELS]
        self._edge = max(self._edge, self._keys[0])
        self._near = max(self._near, self._edge)


class OrderBook:
    """Both sides, with the best `depth` levels of each ready to publish."""

    __slots__ = ("asks", "bids")

    def __init__(self, depth: int) -> None:
        self.bids = BookSide(1, depth)
        self.asks = BookSide(-1, depth)

    def replace(self, bids: Sequence[DepthChange], asks: Sequence[DepthChange], limit: int) -> None:
        """Forget everything and take these best `limit` levels; a side with fewer has no more."""
        self.bids.replace(bids, limit)
        self.asks.replace(asks, limit)

    def apply(self, bids: Sequence[DepthChange], asks: Sequence[DepthChange]) -> bool:
        """Take the changes; True if they touched the published levels."""
        bids_touched = self.bids.apply(bids)
        return self.asks.apply(asks) or bids_touched

    @property
    def crossed(self) -> bool:
        """Whether the best bid is at or above the best ask, which no exchange's book ever is."""
        bids, asks = self.bids.top, self.asks.top
        return bool(bids and asks and bids[0][0] >= asks[0][0])
