"""A recording as a market whose clock is that of its frames."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path

from consumers.direct_provider import TapeFrame, read_capture
from consumers.fees import taker_fees
from consumers.freshness import judge
from consumers.local_books import LocalBook
from consumers.paper.fill_model import TapeEvent
from consumers.paper.market import Health, VenueQuote, judged
from schemas.capture import CaptureError
from schemas.instruments import InstrumentRegistry, exchange_of
from schemas.snapshot import OrderBookSnapshot


class CaptureMarket:
    """Books as they were at `now`, which only moves with `frames` and `wait_until`; its books are confirmed by any
    frame, for that is when the connection was known to live. Ages are by the clock of the recorder.
    """

    def __init__(
        self, path: Path, symbols: Sequence[str], fees: Mapping[str, float], depth: int, max_age: float
    ) -> None:
        """Reads the first frame. Raises OSError, CaptureError, SymbolError, ValueError."""
        frames = read_capture(path, symbols, depth)
        first = next(frames, None)
        if first is None:
            raise CaptureError(f"{path} holds no frame")
        self.exchange = first.exchange
        self.now = first.time
        resolve = lru_cache(10_000)(InstrumentRegistry(exchange_of(first.exchange), offline=True).resolve)
        self.symbols = tuple(dict.fromkeys(resolve(name).symbol for name in symbols))
        self.exchanges = (first.exchange,)
        self._fee = taker_fees([first.exchange], fees)[first.exchange]
        self._max_age = max_age
        self._books = {symbol: LocalBook() for symbol in self.symbols}
        self._events: dict[str, list[TapeEvent]] = {symbol: [] for symbol in self.symbols}
        self._frames: Iterator[TapeFrame] = chain([first], frames)

    def play_until_live(self) -> float:
        """Let frames happen until every symbol has a book to trade on. Returns when that was.

        Raises CaptureError if the recording ends before.
        """
        for frame in self._frames:
            self.take(frame)
            missing = [symbol for symbol in self.symbols if self.quotes(symbol)[0].obstacle]
            if not missing:
                for waiting in self._events.values():
                    waiting.clear()
                return self.now
        raise CaptureError(f"the recording never has a live book of {', '.join(missing)}")

    def frames(self) -> Iterator[TapeFrame]:
        """The rest of the recording. Time stands at the frame before until `take`."""
        return self._frames

    def take(self, frame: TapeFrame) -> None:
        """Let the frame happen."""
        # A recorder's clock may have been set back; ours never is.
        self.now = max(self.now, frame.time)
        for book in self._books.values():
            book.confirm(self.now)
        for event in frame.events:
            if event.symbol not in self._books:
                continue
            if isinstance(event, OrderBookSnapshot):
                self._books[event.symbol].take(event, self.now)
            self._events[event.symbol].append(event)

    def wait_until(self, now: float) -> None:
        """Let time pass without a frame."""
        self.now = max(self.now, now)

    def quotes(self, symbol: str) -> list[VenueQuote]:
        """The book as it is at this moment of the recording."""
        observation = self._books[symbol].observe(self.now, None, "")
        status, reason = judge(observation, self._max_age)
        return [judged(self.exchange, self._fee, observation.snapshot, status, observation.age, reason)]

    def events(self, symbol: str, now: float) -> list[TapeEvent]:
        """What happened since the last call, in the order received."""
        events, self._events[symbol] = self._events[symbol], []
        return events

    def health(self) -> Health:
        """A recording neither connects nor conflates."""
        return Health(0, 0, 0, "")
