"""What a run sees of a market: one book for each exchange, and the events that waiting orders need."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from math import gcd
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from bookbus.consumers.bus.trades import TradeSource, TradeTail
from bookbus.consumers.captures import TapeFrame
from bookbus.consumers.latest_book import LocalBook
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi.venue_book import taker_fees
from bookbus.consumers.multi_provider import MultiExchangeProvider
from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.consumers.paper.fills.queue import time_of
from bookbus.consumers.reading import judge
from bookbus.schemas.instruments import InstrumentRegistry, exchange_of
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from bookbus.schemas.trade import Trade

DELAY = 0.25
"""Seconds that an event waits for one that happened before it and comes later."""


class EventMerger:
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


MADE_UP_FEES: Mapping[str, float] = {"mock": 10.0}
"""Bps of an exchange that there is not."""


class VenueQuote(NamedTuple):
    """One exchange's book at this moment, in the run's quote currency.

    `obstacle` is why it may not be traded on, in one word for counting, and `detail` for people; both empty if it may.
    """

    exchange: str
    fee_bps: float
    book: OrderBookSnapshot | None
    age: float | None
    status: str
    obstacle: str
    detail: str


class Health(NamedTuple):
    """What happened to the books on their way here."""

    reconnects: int
    missed: int
    conflated: int
    trouble: str


class Market(Protocol):
    """Where a run gets its prices."""

    @property
    def symbols(self) -> Sequence[str]:
        """Standard symbols, all of one quote currency."""

    @property
    def exchanges(self) -> Sequence[str]:
        """Where it can trade."""

    def quotes(self, symbol: str) -> list[VenueQuote]:
        """Every exchange's book; what is read together belongs together."""

    def events(self, symbol: str, now: float) -> list[TapeEvent]:
        """Books and trades that happened since the last call, in order."""

    def health(self) -> Health:
        """What happened so far."""


def judged(
    exchange: str, fee_bps: float, book: OrderBookSnapshot | None, status: BookStatus, age: float | None, reason: str
) -> VenueQuote:
    """A book with what stands against trading on it."""
    if book is None or status is not BookStatus.LIVE:
        return VenueQuote(exchange, fee_bps, book, age, status, str(status), reason)
    if not book.bids or not book.asks:
        return VenueQuote(exchange, fee_bps, book, age, status, "one_sided", "one side of the book is empty")
    return VenueQuote(exchange, fee_bps, book, age, status, "", "")


class ProviderMarket:
    """One exchange's books from a provider, with its trades where they are wanted and to be had."""

    def __init__(
        self,
        provider: MarketDataProvider,
        exchange: str,
        fees: Mapping[str, float],
        with_trades: bool = False,
    ) -> None:
        """Raises ValueError for a fee that is not known, or trades that are not there."""
        self._provider = provider
        self.exchanges = (exchange,)
        self.symbols = tuple(provider.symbols)
        self._exchange = exchange
        self._fee = taker_fees([exchange], {**_made_up([exchange]), **fees})[exchange]
        self._mergers = {symbol: EventMerger(DELAY if with_trades else 0.0) for symbol in self.symbols}
        self._tails: dict[str, TradeTail] = {}
        if with_trades:
            if not isinstance(provider, TradeSource):
                raise ValueError("this source has no trades: use redis with `--topics book,trades`, or capture:FILE")
            self._tails = {symbol: provider.trades(symbol) for symbol in self.symbols}

    def quotes(self, symbol: str) -> list[VenueQuote]:
        """Its book."""
        reading = self._provider.read(symbol)
        return [judged(self._exchange, self._fee, reading.snapshot, reading.status, reading.age, reading.reason)]

    def events(self, symbol: str, now: float) -> list[TapeEvent]:
        """The newest book and the trades, by the exchange's time."""
        tail, merger = self._tails.get(symbol), self._mergers[symbol]
        merger.add(now, self._provider.read(symbol).snapshot, tail.take() if tail is not None else ())
        return merger.ready(now)

    def health(self) -> Health:
        """As the provider tells it, and what is known of trades that did not come."""
        health = _health(self._provider)
        troubles = (health.trouble, *(tail.error for tail in self._tails.values()))
        return health._replace(trouble="; ".join(dict.fromkeys(filter(None, troubles))))


class MultiMarket:
    """Every exchange's book of an asset in one quote currency."""

    def __init__(self, provider: MultiExchangeProvider, exchanges: Sequence[str]) -> None:
        self._provider = provider
        self.exchanges = tuple(exchanges)
        self.symbols = tuple(provider.symbols)

    def quotes(self, symbol: str) -> list[VenueQuote]:
        """The books of one moment; one that cannot be compared with the others is not to be traded on."""
        merged = self._provider.consolidated(symbol)
        found = []
        for venue in merged.venues:
            book = venue.snapshot and replace(venue.snapshot, symbol=symbol, bids=venue.bids, asks=venue.asks)
            quote = judged(venue.exchange, venue.fee_bps, book, venue.status, venue.age, venue.reason)
            if not venue.reason and (reason := merged.out.get(venue.exchange, "")):
                quote = quote._replace(obstacle="not_comparable", detail=reason)
            elif venue.reason and quote.status == BookStatus.LIVE:
                whole = venue.snapshot and venue.snapshot.bids and venue.snapshot.asks
                quote = quote._replace(obstacle="no_rate" if whole else "one_sided", detail=venue.reason)
            found.append(quote)
        return found

    def events(self, symbol: str, now: float) -> list[TapeEvent]:
        """None: orders do not wait on several exchanges."""
        return []

    def health(self) -> Health:
        """Of all exchanges together."""
        return _health(self._provider)


def _made_up(exchanges: Sequence[str]) -> dict[str, float]:
    return {exchange: MADE_UP_FEES[exchange] for exchange in exchanges if exchange in MADE_UP_FEES}


def _health(provider: MarketDataProvider) -> Health:
    status = provider.get_connection_status()
    books = status.symbols.values()
    return Health(
        status.reconnect_count,
        sum(book.missed for book in books),
        sum(book.conflated for book in books),
        status.error,
    )


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


_DECIMALS = 12
_LEVELS = 5


class PriceUnit:
    """The largest number that divides every price seen near the touch; it can only become smaller."""

    def __init__(self) -> None:
        self._unit = 0
        self._seen: OrderBookSnapshot | None = None

    @property
    def tick(self) -> float | None:
        """The tick so far; None before the first book."""
        return float(Decimal(self._unit).scaleb(-_DECIMALS)) if self._unit else None

    def observe(self, book: OrderBookSnapshot) -> None:
        """Learn from one more book."""
        if book is self._seen:
            return
        self._seen = book
        for price, _ in (*book.bids[:_LEVELS], *book.asks[:_LEVELS]):
            self._unit = gcd(self._unit, int(Decimal(repr(price)).scaleb(_DECIMALS)))
