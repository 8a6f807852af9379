"""Whether the best prices that the exchange names stood in our books about the time it was asked."""

from collections.abc import Iterable, Mapping

from bookbus.feeders.venue import BestPrices
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot


class PriceWatch:
    """From shortly before the request to shortly after the answer; costs nothing at other times.

    A price that lived for less than the exchange waits between two updates never reaches a book. So a miss proves
    nothing by itself.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[set[float | None], set[float | None]]] = {}
        self._wanted: Mapping[str, BestPrices] = {}

    @property
    def is_on(self) -> bool:
        """Whether `see` wants to be called."""
        return bool(self._seen)

    def start(self, books: Iterable[OrderBookSnapshot]) -> None:
        """The request leaves now, with the books like this."""
        self._wanted = {}
        self._seen = {book.native: ({_best(book.bids)}, {_best(book.asks)}) for book in books if book.state == "live"}

    def see(self, book: OrderBookSnapshot) -> None:
        """A book changed; one that is lost is not looked at any further."""
        if book.state != "live":
            self._seen.pop(book.native, None)
        elif seen := self._seen.get(book.native):
            seen[0].add(_best(book.bids))
            seen[1].add(_best(book.asks))
            self._let_go_if_right(book.native)

    def answer(self, best: Mapping[str, BestPrices]) -> int:
        """What the exchange said. From here on only those that differ are looked at. Returns how many it spoke of."""
        self._seen = {native: seen for native, seen in self._seen.items() if native in best}
        self._wanted = best
        count = len(self._seen)
        for native in list(self._seen):
            self._let_go_if_right(native)
        return count

    def end(self) -> list[str]:
        """Time is up: the symbols whose best prices never stood in our book."""
        missed = list(self._seen)
        self._seen = {}
        return missed

    def _let_go_if_right(self, native: str) -> None:
        wanted, seen = self._wanted.get(native), self._seen[native]
        if wanted is not None and wanted.bid in seen[0] and wanted.ask in seen[1]:
            del self._seen[native]


def _best(levels: Levels) -> float | None:
    return levels[0][0] if levels else None
