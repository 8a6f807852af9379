"""One side of a simulated book: sorted keys with the best at the end, and the quantity at each."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

Key = int
"""A price in ticks, negated for asks: on both sides the greater key is the better price."""

RawLevel = tuple[int, int]
"""`(ticks, steps)`."""


class Ladder:
    """Levels of one side. `originals` holds what each level changed since the last flush was before (0: absent)."""

    __slots__ = ("keys", "originals", "quantities", "sign")

    def __init__(self, sign: int, keys: Iterable[Key], quantities: Iterable[int]) -> None:
        self.sign = sign
        self.keys = array("q", keys)
        self.quantities = array("q", quantities)
        self.originals: dict[Key, int] = {}

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def best(self) -> Key:
        return self.keys[-1]

    def set(self, key: Key, quantity: int) -> None:
        """Put `quantity` at a price, whether or not a level is there."""
        keys = self.keys
        index = bisect_left(keys, key)
        if index < len(keys) and keys[index] == key:
            self.change(index, quantity)
        else:
            keys.insert(index, key)
            self.quantities.insert(index, quantity)
            self.originals.setdefault(key, 0)

    def change(self, index: int, quantity: int) -> None:
        """Give the level at `index` another quantity."""
        self.originals.setdefault(self.keys[index], self.quantities[index])
        self.quantities[index] = quantity

    def remove(self, index: int) -> None:
        """Take the level at `index` away."""
        self.originals.setdefault(self.keys.pop(index), self.quantities.pop(index))

    def quantity_at(self, key: Key) -> int:
        """Quantity at a price, 0 where no level is."""
        index = bisect_left(self.keys, key)
        return self.quantities[index] if index < len(self.keys) and self.keys[index] == key else 0

    def take_changes(self) -> list[tuple[Key, int, int]]:
        """`(key, quantity before, quantity now)` of every level touched since the last call, each once."""
        changes = [(key, before, self.quantity_at(key)) for key, before in self.originals.items()]
        self.originals.clear()
        return changes

    def packed(self, depth: int) -> bytes:
        """The best `depth` levels in few bytes; `unpack` reads them."""
        return b"".join((self.keys[-depth:], self.quantities[-depth:]))

    def top(self, depth: int) -> list[RawLevel]:
        """The best `depth` levels as they are now, best first."""
        return list(_best_first(self.sign, self.keys[-depth:], self.quantities[-depth:]))

    def top_at_flush(self, depth: int) -> list[RawLevel]:
        """The best `depth` levels as they were when changes were last taken, best first."""
        # Changes since then hide at most as many levels as there were changes.
        reach = depth + len(self.originals)
        levels = dict(zip(self.keys[-reach:], self.quantities[-reach:], strict=True)) | self.originals
        best = sorted((key for key, quantity in levels.items() if quantity), reverse=True)[:depth]
        return [(self.sign * key, levels[key]) for key in best]


def unpack(sign: int, packed: bytes) -> list[RawLevel]:
    """What `Ladder.packed` packed, best first."""
    values = array("q", packed)
    half = len(values) // 2
    return list(_best_first(sign, values[:half], values[half:]))


def _best_first(sign: int, keys: "array[int]", quantities: "array[int]") -> Iterator[RawLevel]:
    return ((sign * key, quantity) for key, quantity in zip(reversed(keys), reversed(quantities), strict=True))
