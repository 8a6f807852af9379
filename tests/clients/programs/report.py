"""What a client program finds, written as lines of JSON on standard output.

The first line names the package and its version; each book and each check is one line more.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

Level = Iterable[Any]


class Report:
    """Books and checks of one client. `package` is its name on the package index."""

    def __init__(self, package: str) -> None:
        parser = argparse.ArgumentParser()
        parser.add_argument("exchange")
        parser.add_argument("ws_url")
        parser.add_argument("rest_url")
        parser.add_argument("books", type=int)
        parser.add_argument("symbols", nargs="+")
        arguments = parser.parse_args()
        self.exchange: str = arguments.exchange
        self.ws_url: str = arguments.ws_url
        self.rest_url: str = arguments.rest_url
        self.symbols: list[str] = arguments.symbols
        self._wanted: int = arguments.books
        self._seen: Counter[str] = Counter()
        self._last: dict[str, int] = {}
        self._write(package=package, version=version(package))

    def book(self, symbol: str, update_id: int, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Report a book that the client keeps, best levels first, unless enough of this symbol were reported."""
        if self._seen[symbol] < self._wanted and self._last.get(symbol) != update_id:
            self._seen[symbol] += 1
            self._last[symbol] = update_id
            self.answer(symbol, update_id, bids, asks)

    def answer(self, symbol: str, update_id: int, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Report a book that answered a request."""
        self._write(symbol=symbol, update_id=update_id, bids=_side(bids), asks=_side(asks))

    @property
    def complete(self) -> bool:
        """Whether enough books of every symbol were reported."""
        return all(self._seen[symbol] >= self._wanted for symbol in self.symbols)

    def has_enough(self, symbol: str) -> bool:
        """Whether enough books of this symbol were reported."""
        return self._seen[symbol] >= self._wanted

    @contextmanager
    def check(self, name: str) -> Iterator[None]:
        """Report whether the block raised nothing."""
        try:
            yield
        except Exception as error:
            self._write(check=name, error=f"{type(error).__name__}: {error}"[:400])
        else:
            self._write(check=name, error=None)

    def _write(self, **line: Any) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def _side(levels: Iterable[Level]) -> list[list[float]]:
    return [[float(price), float(quantity)] for price, quantity, *_ in levels]
