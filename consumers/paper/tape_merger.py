"""Books and trades of one symbol, which come separately, in the order in which the exchange says they happened."""

from collections.abc import Iterable

from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.consumers.paper.fills.queue import time_of
from bookbus.schemas.snapshot import OrderBookSnapshot
from bookbus.schemas.trade import Trade

DELAY = 0.25
"""Seconds that an event waits for one that happened before it and comes later."""


class TapeMerger:
    """Holds each event back for a moment. What comes later than that goes behind what was handed out before."""

    def __init__(self, delay: float = DELAY) -> None:
        self._delay = delay
        self._waiting: list[tuple[int, float, TapeEvent]] = []
        self._book: OrderBookSnapshot | None = None

    def add(self, now: float, book: OrderBookSnapshot | None, trades: Iterable[Trade]) -> None:
        """What came by now: the newest book, whether or not it is new, and new trades."""
        if book is not None and book is not self._book and book != self._book:
            self._waiting.append((time_of(book, "exchange"), now, book))
        self._book = book
        self._waiting.extend((time_of(trade, "exchange"), now, trade) for trade in trades)

    def ready(self, now: float) -> list[TapeEvent]:
        """What waited long enough, and what happened before that."""
        until = max((at for at, came, _ in self._waiting if came <= now - self._delay), default=None)
        if until is None:
            return []
        # Trades of one moment before the book that shows what they left.
        self._waiting.sort(key=lambda waiting: (waiting[0], isinstance(waiting[2], OrderBookSnapshot)))
        ready = [event for at, _, event in self._waiting if at <= until]
        self._waiting = [waiting for waiting in self._waiting if waiting[0] > until]
        return ready
