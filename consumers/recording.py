"""A recording, opened for questions: the book at a time, and tables of books, best prices and trades."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from bookbus.consumers.captures import TapeFrame, read_capture
from bookbus.consumers.tables import Columns, pandas_frame, polars_frame
from bookbus.schemas.instruments import InstrumentRegistry, SymbolError, exchange_of
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade

TableKind = Literal["books", "quotes", "trades"]


class Recording:
    """The recording at `path`, through the same books as a live feed; `depth` is their levels a side.

    Errors are those of `read_capture`: OSError, CaptureError, SymbolError.
    """

    def __init__(self, path: Path | str, depth: int = 20) -> None:
        self.path = Path(path)
        self.depth = depth
        self._frames: Iterator[TapeFrame] = iter(())
        self._next: TapeFrame | None = None
        self._books: dict[str, OrderBookSnapshot] = {}
        self._at = float("inf")
        self._exchange = ""

    def frames(self) -> Iterator[TapeFrame]:
        """Every frame in the order received."""
        return read_capture(self.path, depth=self.depth)

    def book_at(self, symbol: str, time: float) -> OrderBookSnapshot | None:
        """The book after everything received until `time` (seconds since 1970); None if there was none yet.

        Its `state` says whether it was the exchange's then. Questions in the order of time cost one pass over the
        recording together; one about an earlier time begins it again.
        """
        if time < self._at:
            self._frames, self._books = self.frames(), {}
            self._next = next(self._frames, None)
        self._at = time
        while self._next is not None and self._next.time <= time:
            self._exchange = self._next.exchange
            self._books |= {one.symbol: one for one in self._next.events if isinstance(one, OrderBookSnapshot)}
            self._next = next(self._frames, None)
        return self._books.get(self._standard(symbol))

    def columns(self, kind: TableKind, symbol: str | None = None) -> Columns:
        """One table: `quotes`, the best prices after each change of a book; `books`, one row a level of each; `trades`.

        Times are in microseconds since 1970. Only of one symbol if it is named.
        """
        rows = {"books": _book_rows, "quotes": _quote_rows, "trades": _trade_rows}[kind]
        columns: Columns = {name: [] for name in COLUMNS[kind]}
        lists = list(columns.values())
        wanted = None
        for frame in self.frames():
            if symbol is not None and wanted is None:
                self._exchange = frame.exchange
                wanted = self._standard(symbol)
            received_us = round(frame.time * 1e6)
            for event in frame.events:
                if wanted is None or event.symbol == wanted:
                    for row in rows(received_us, event):
                        for values, value in zip(lists, row, strict=True):
                            values.append(value)
        return columns

    def to_polars(self, kind: TableKind = "quotes", symbol: str | None = None) -> Any:
        """`columns` as a DataFrame of polars. Raises ImportError, which names the extra, without it."""
        return polars_frame(self.columns(kind, symbol))

    def to_pandas(self, kind: TableKind = "quotes", symbol: str | None = None) -> Any:
        """`columns` as a DataFrame of pandas. Raises ImportError, which names the extra, without it."""
        return pandas_frame(self.columns(kind, symbol))

    def _standard(self, name: str) -> str:
        if name in self._books or not self._exchange:
            return name
        try:
            return InstrumentRegistry(exchange_of(self._exchange), offline=True).resolve(name).symbol
        except SymbolError:
            return name


COLUMNS = {
    "quotes": (
        *("received_us", "exchange_us", "exchange", "symbol", "state", "update_id"),
        *("bid", "bid_quantity", "ask", "ask_quantity"),
    ),
    "books": (
        *("received_us", "exchange_us", "exchange", "symbol", "state", "update_id"),
        *("side", "level", "price", "quantity"),
    ),
    "trades": ("received_us", "exchange_us", "exchange", "symbol", "trade_id", "price", "quantity", "aggressor"),
}
"""The columns of each table."""


def _head(received_us: int, book: OrderBookSnapshot) -> tuple[Any, ...]:
    return received_us, book.exchange_us, book.exchange, book.symbol, book.state, book.update_id


def _quote_rows(received_us: int, event: OrderBookSnapshot | Trade) -> Iterator[tuple[Any, ...]]:
    if isinstance(event, OrderBookSnapshot):
        bid = event.bids[0] if event.bids else (None, None)
        ask = event.asks[0] if event.asks else (None, None)
        yield (*_head(received_us, event), *bid, *ask)


def _book_rows(received_us: int, event: OrderBookSnapshot | Trade) -> Iterator[tuple[Any, ...]]:
    if isinstance(event, OrderBookSnapshot):
        head = _head(received_us, event)
        for side, levels in (("bid", event.bids), ("ask", event.asks)):
            for number, (price, quantity) in enumerate(levels):
                yield (*head, side, number, price, quantity)


def _trade_rows(received_us: int, event: OrderBookSnapshot | Trade) -> Iterator[tuple[Any, ...]]:
    if isinstance(event, Trade):
        yield (
            *(received_us, event.exchange_us, event.exchange, event.symbol),
            *(event.trade_id, event.price, event.quantity, event.aggressor),
        )
