"""A recording as a market whose clock is that of its frames."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

from bookbus.consumers.captures import TapeFrame
from bookbus.consumers.freshness import judge
from bookbus.consumers.latest_book import LocalBook
from bookbus.consumers.multi.fees import taker_fees
from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.consumers.paper.market import Health, VenueQuote, judged
from bookbus.schemas.instruments import InstrumentRegistry, exchange_of
from bookbus.schemas.snapshot import OrderBookSnapshot


class CaptureMarket:
    """Books as they were at `now`, which only moves with frames and `wait_until`; its books are confirmed by any
    frame, for that is when the connection was known to live. Ages are by the clock of the recorder.
    """

    def __init__(self, exchange: str, symbols: Sequence[str], fees: Mapping[str, float], max_age: float) -> None:
        """Raises SymbolError, ValueError."""
        resolve = lru_cache(10_000)(InstrumentRegistry(exchange_of(exchange), offline=True).resolve)
        self.now = 0.0
        self.trades = 0
        self.symbols = tuple(dict.fromkeys(resolve(name).symbol for name in symbols))
        self.exchanges = (exchange,)
        self._exchange = exchange
        self._fee = taker_fees([exchange], fees)[exchange]
        self._max_age = max_age
        self._books = {symbol: LocalBook() for symbol in self.symbols}
        self._events: dict[str, list[TapeEvent]] = {symbol: [] for symbol in self.symbols}

    @property
    def without_book(self) -> list[str]:
        """Symbols that may not be traded on now."""
        return [symbol for symbol in self.symbols if self.quotes(symbol)[0].obstacle]

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
            else:
                self.trades += 1
            self._events[event.symbol].append(event)

    def wait_until(self, now: float) -> None:
        """Let time pass without a frame."""
        self.now = max(self.now, now)

    def quotes(self, symbol: str) -> list[VenueQuote]:
        """The book as it is at this moment of the recording."""
        observation = self._books[symbol].observe(self.now, None, "")
        status, reason = judge(observation, self._max_age)
        return [judged(self._exchange, self._fee, observation.snapshot, status, observation.age, reason)]

    def events(self, symbol: str, now: float) -> list[TapeEvent]:
        """What happened since the last call, in the order received."""
        events, self._events[symbol] = self._events[symbol], []
        return events

    def health(self) -> Health:
        """A recording neither connects nor conflates."""
        return Health(0, 0, 0, "")
