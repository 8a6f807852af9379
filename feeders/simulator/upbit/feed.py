"""One Upbit market: the whole book that is shown, its time as its id, and the truth at each id."""

from collections import deque
from collections.abc import Iterator
from itertools import chain, cycle
from random import Random
from typing import Protocol

from bookbus.feeders.simulator.core.feed import STEPS_PER_FLUSH, BookAt, LiveFeed
from bookbus.feeders.simulator.core.market import Fill, RawLevel, SimulatedInstrument

DEPTH = 30
"""Levels a side that the exchange shows."""

_OLDEST = 300_000
"""A book that rests may have changed this many milliseconds ago."""

_SET_BACK = 3_600_000
"""Milliseconds by which the ids fall when the exchange starts anew."""


class ShownBook:
    """Both sides as clients see them. `texts` keeps what was written of it, by form."""

    __slots__ = ("asks", "bids", "market_id", "texts")

    def __init__(self, market_id: int, bids: list[RawLevel], asks: list[RawLevel]) -> None:
        self.market_id = market_id
        self.bids = bids
        self.asks = asks
        self.texts: dict[tuple[bool, int, int], str] = {}


class _Source(Protocol):
    live: LiveFeed

    def step(self) -> list[Fill]:
        """Move by a quarter of the way to the next flush."""

    def next(self) -> ShownBook | None:
        """The book at this flush; None if it is shown as before, which the first one never is."""

    def restart(self) -> None:
        """Begin anew with another book, if there is another."""


class UpbitFeed:
    """What the venue needs to know of one market. Times are milliseconds."""

    def __init__(self, source: _Source, now_ms: int, truth_flushes: int) -> None:
        self.instrument: SimulatedInstrument = source.live.instrument
        self.last_trade: tuple[Fill, int, int] | None = None
        """The last trade with its time and its id."""
        self._source = source
        self._truth_flushes = truth_flushes
        self._set_back = 0
        first = source.next()
        if first is None:
            raise ValueError(f"{self.instrument.native} shows no first book")
        age = Random(f"age:{self.instrument.native}").randrange(1000, _OLDEST)  # noqa: S311
        self._shown_at: dict[int, int] = {}
        self._times: deque[int] = deque()
        self._show(first, now_ms - age)

    @property
    def live(self) -> LiveFeed:
        """The market behind it."""
        return self._source.live

    def _show(self, book: ShownBook, time_ms: int) -> None:
        self.book = book
        self.time_ms = time_ms
        """When the book last changed: its id."""
        self._shown_at[time_ms] = book.market_id
        self._times.append(time_ms)
        if len(self._times) > self._truth_flushes:
            del self._shown_at[self._times.popleft()]

    def step(self, time_ms: int) -> list[tuple[Fill, int, int]]:
        """Trades with their times and ids."""
        at = time_ms - self._set_back
        fills = [(fill, at, at * 10_000 + number) for number, fill in enumerate(self._source.step())]
        if fills:
            self.last_trade = fills[-1]
        return fills

    def flush(self, time_ms: int) -> bool:
        """Whether another book is shown from now on."""
        book = self._source.next()
        if book is None:
            return False
        self._show(book, time_ms - self._set_back)
        return True

    def truth(self, time_ms: int) -> BookAt | None:
        """The book shown at this id."""
        market_id = self._shown_at.get(time_ms)
        book = None if market_id is None else self.live.truth(market_id)
        if book is None:
            return None
        shown = shown_book(self.instrument, book)
        return BookAt(time_ms, shown.bids, shown.asks)

    def truth_ids(self, since: int) -> list[int]:
        """Every id from this one on whose book is remembered."""
        return [known for known in self._times if known >= since]

    def restart(self, time_ms: int) -> None:
        """Begin anew with lower ids."""
        self._source.restart()
        self._set_back += _SET_BACK
        book = self._source.next() or self.book
        self._show(book, time_ms - self._set_back)


class LiveSource:
    """A market that is computed as it goes."""

    def __init__(self, live: LiveFeed) -> None:
        self.live = live
        self._shown: ShownBook | None = None

    def step(self) -> list[Fill]:
        return [event for event in self.live.step() if isinstance(event, Fill)]

    def next(self) -> ShownBook | None:
        self.live.flush()
        shown, before = shown_book(self.live.instrument, self.live.top(DEPTH)), self._shown
        if before is not None and (shown.bids, shown.asks) == (before.bids, before.asks):
            return None
        self._shown = shown
        return shown

    def restart(self) -> None:
        self.live.restart()
        self._shown = None


class PreparedSource:
    """A stretch of market forwards, then backwards, then again, without trades.

    `live` must remember the truth of all `slots`. What was written of a book is kept, so that the second round
    costs little.
    """

    def __init__(self, live: LiveFeed, slots: int) -> None:
        self.live = live
        source = LiveSource(live)
        shown = [source.next()]
        for _ in range(slots):
            for _ in range(STEPS_PER_FLUSH):
                source.step()
            shown.append(source.next())
        self._books = chain(shown[:1], cycle(_there_and_back(shown)))

    def step(self) -> list[Fill]:
        return []

    def next(self) -> ShownBook | None:
        return next(self._books)

    def restart(self) -> None:
        """There is no other market."""


def _there_and_back(shown: list[ShownBook | None]) -> Iterator[ShownBook | None]:
    """What is shown at each flush on the way, None where nothing changes; the first one is the start."""
    books = [book for book in shown if book is not None]
    yield from shown[1:]
    before = books[:-1]
    for book in reversed(shown[1:]):
        yield None if book is None else before.pop()


def shown_book(instrument: SimulatedInstrument, book: BookAt) -> ShownBook:
    """What the exchange shows of a book: in the bitcoin markets sides are often thin."""
    bids, asks = _shown_levels(instrument)
    return ShownBook(book.update_id, book.bids[:bids], book.asks[:asks])


def _shown_levels(instrument: SimulatedInstrument) -> tuple[int, int]:
    if instrument.quote != "BTC":
        return DEPTH, DEPTH
    rng = Random(f"thin:{instrument.native}")  # noqa: S311
    return min(DEPTH, rng.randrange(2, 45)), min(DEPTH, rng.randrange(2, 45))
