"""A local order book as Binance's documentation describes it, for packages that only deliver its parts."""

from collections.abc import Iterable
from typing import Any

Levels = Iterable[Any]


class LocalBook:
    """Buffers updates until the snapshot is there. Raises ValueError at a gap."""

    def __init__(self) -> None:
        self.update_id = 0
        self._sides: tuple[dict[float, float], dict[float, float]] = ({}, {})
        self._buffered: list[tuple[int, int, Levels, Levels]] = []

    def load(self, last_update_id: int, bids: Levels, asks: Levels) -> None:
        """Take a snapshot and apply what was buffered."""
        self.update_id = last_update_id
        self._apply(bids, asks)
        buffered, self._buffered = self._buffered, []
        for update in buffered:
            self.update(*update)

    def update(self, first_id: int, last_id: int, bids: Levels, asks: Levels) -> bool:
        """Apply one update. Returns whether the book is now that of `last_id`."""
        if not self.update_id:
            self._buffered.append((first_id, last_id, bids, asks))
            return False
        if last_id <= self.update_id:
            return False
        if first_id > self.update_id + 1:
            raise ValueError(f"gap: expected {self.update_id + 1}, received {first_id}")
        self.update_id = last_id
        self._apply(bids, asks)
        return True

    @property
    def bids(self) -> list[tuple[float, float]]:
        return sorted(self._sides[0].items(), reverse=True)

    @property
    def asks(self) -> list[tuple[float, float]]:
        return sorted(self._sides[1].items())

    def _apply(self, bids: Levels, asks: Levels) -> None:
        for side, levels in zip(self._sides, (bids, asks), strict=True):
            for price, quantity in levels:
                if float(quantity):
                    side[float(price)] = float(quantity)
                else:
                    side.pop(float(price), None)
