"""What the true book was at each update id, for as far back as memory is allowed."""

from collections import deque
from typing import NamedTuple

from feeders.simulator.ladder import Ladder, RawLevel, unpack


class BookAt(NamedTuple):
    """A book at one update id, best levels first."""

    update_id: int
    bids: list[RawLevel]
    asks: list[RawLevel]


class TruthHistory:
    """The best `depth` levels at each of the last `limit` recorded ids; older ones are forgotten."""

    def __init__(self, depth: int, limit: int) -> None:
        self._depth = depth
        self._limit = limit
        self._books: dict[int, tuple[bytes, bytes]] = {}
        self._ids: deque[int] = deque()

    def record(self, update_id: int, bids: Ladder, asks: Ladder) -> None:
        """Remember the book as it is now."""
        if update_id not in self._books:
            self._ids.append(update_id)
        self._books[update_id] = (bids.packed(self._depth), asks.packed(self._depth))
        if len(self._ids) > self._limit:
            del self._books[self._ids.popleft()]

    def at(self, update_id: int) -> BookAt | None:
        """The book at this id; None if it was never recorded or is forgotten."""
        packed = self._books.get(update_id)
        return None if packed is None else BookAt(update_id, unpack(1, packed[0]), unpack(-1, packed[1]))

    def ids_since(self, update_id: int) -> list[int]:
        """Every id still known from this one on, in the order recorded."""
        return [known for known in self._ids if known >= update_id]
