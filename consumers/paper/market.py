"""Where a run gets its prices: quotes and events of providers and of recordings."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
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
from bookbus.schemas.instruments import NOT_MATCHING, WARNED_OF, InstrumentRegistry, TradingStatus, exchange_of
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from bookbus.schemas.trade import Trade

_MOCK_FEE_BPS = 10.0
DELAY = 0.25
"""Seconds that an event is held back, so that an earlier one that arrives later still precedes it."""


class VenueQuote(NamedTuple):
    """One exchange's book at this moment, in the run's quote currency.

    `reject_reason` is the code of why it may not be traded on, empty if it may; `detail` is for people.
    """

    exchange: str
    fee_bps: float
    book: OrderBookSnapshot | None
    age: float | None
    status: str
    reject_reason: str
    detail: str
    trading: TradingStatus = "unknown"
    """What the exchange says of the market, `unknown` if nobody says it."""

    @property
    def entry_reason(self) -> str:
        """The code of why no position may be opened here: `reject_reason`, or that the exchange warns of the market."""
        return self.reject_reason or (_code(self.trading) if self.trading in WARNED_OF else "")

    @property
    def ask_after_fee(self) -> float:
        """Price of a unit with the fee; infinity without an ask."""
        ask = self.book.best_ask() if self.book is not None else None
        return math.inf if ask is None else ask * (1 + self.fee_bps / 1e4)

    @property
    def bid_after_fee(self) -> float:
        """Proceeds of a unit after the fee; minus infinity without a bid."""
        bid = self.book.best_bid() if self.book is not None else None
        return -math.inf if bid is None else bid * (1 - self.fee_bps / 1e4)


class Health(NamedTuple):
    """Counts of the connection, on the bus with those of its feeders, and the current error."""

    reconnects: int
    missed: int
    conflated: int
    error: str


class Market(Protocol):
    """Quotes and events of every symbol of a run."""

    @property
    def symbols(self) -> Sequence[str]:
        """Standard symbols, all of one quote currency."""

    @property
    def exchanges(self) -> Sequence[str]:
        """Exchange ids."""

    def quotes(self, symbol: str) -> list[VenueQuote]:
        """Every exchange's book at this moment."""

    def events(self, symbol: str, now: float) -> list[TapeEvent]:
        """Books and trades since the last call, in order."""

    def health(self) -> Health:
        """Counts so far, and the current error."""


class ProviderMarket:
    """One exchange's books from a provider, with its trades if `with_trades`."""

    def __init__(
        self,
        provider: MarketDataProvider,
        exchange: str,
        fees: Mapping[str, float],
        with_trades: bool = False,
    ) -> None:
        """Raises ValueError for an unknown fee, or for a provider without trades where they are needed."""
        self._provider = provider
        self.exchanges = (exchange,)
        self.symbols = tuple(provider.symbols)
        self._exchange = exchange
        usual = {"mock": _MOCK_FEE_BPS} if exchange == "mock" else {}
        self._fee = taker_fees([exchange], {**usual, **fees})[exchange]
        self._mergers = {symbol: EventMerger(DELAY if with_trades else 0.0) for symbol in self.symbols}
        self._tails: dict[str, TradeTail] = {}
        if with_trades:
            if not isinstance(provider, TradeSource):
                raise ValueError("this source has no trades: use redis with `--topics book,trades`, or capture:FILE")
            self._tails = {symbol: provider.trades(symbol) for symbol in self.symbols}

    def quotes(self, symbol: str) -> list[VenueQuote]:
        reading = self._provider.read(symbol)
        return [
            venue_quote(
                self._exchange,
                self._fee,
                reading.snapshot,
                reading.status,
                reading.age,
                reading.reason,
                reading.trading,
            )
        ]

    def events(self, symbol: str, now: float) -> list[TapeEvent]:
        """The newest book and the trades, ordered by the exchange's time."""
        tail, merger = self._tails.get(symbol), self._mergers[symbol]
        merger.add(now, self._provider.read(symbol).snapshot, tail.take() if tail is not None else ())
        return merger.ready(now)

    def health(self) -> Health:
        """The provider's, with the errors of its trades."""
        health = _health(self._provider)
        errors = (health.error, *(tail.error for tail in self._tails.values()))
        return health._replace(error="; ".join(dict.fromkeys(filter(None, errors))))


class MultiMarket:
    """Every exchange's book of an asset in one quote currency."""

    def __init__(self, provider: MultiExchangeProvider, exchanges: Sequence[str]) -> None:
        self._provider = provider
        self.exchanges = tuple(exchanges)
        self.symbols = tuple(provider.symbols)

    def quotes(self, symbol: str) -> list[VenueQuote]:
        """The books of one moment; a book that is not comparable with the others is rejected."""
        merged = self._provider.consolidated(symbol)
        found = []
        for venue in merged.venues:
            book = venue.snapshot and replace(venue.snapshot, symbol=symbol, bids=venue.bids, asks=venue.asks)
            quote = venue_quote(
                venue.exchange, venue.fee_bps, book, venue.status, venue.age, venue.reason, venue.trading
            )
            if not venue.reason and (reason := merged.out.get(venue.exchange, "")):
                quote = quote._replace(reject_reason="not_comparable", detail=reason)
            elif venue.reason and quote.status == BookStatus.LIVE and quote.trading not in NOT_MATCHING:
                whole = venue.snapshot and venue.snapshot.bids and venue.snapshot.asks
                quote = quote._replace(reject_reason="no_rate" if whole else "one_sided", detail=venue.reason)
            found.append(quote)
        return found

    def events(self, symbol: str, now: float) -> list[TapeEvent]:
        """Empty: orders do not wait on several exchanges."""
        return []

    def health(self) -> Health:
        return _health(self._provider)


class CaptureMarket:
    """Books of a recording at the time `now`, which only `apply` and `advance_to` move. Every frame confirms all books,
    because it proves that the connection was up. Ages are by the recorder's clock.
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
        """Symbols without a book that may be traded on now."""
        return [symbol for symbol in self.symbols if self.quotes(symbol)[0].reject_reason]

    def apply(self, frame: TapeFrame) -> None:
        """Move the time to the frame and apply its books and trades."""
        # The recorder's clock may have been set back; a session's time must not go back.
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

    def advance_to(self, now: float) -> None:
        """Move the time without a frame."""
        self.now = max(self.now, now)

    def quotes(self, symbol: str) -> list[VenueQuote]:
        observation = self._books[symbol].observe(self.now, None, "")
        status, reason = judge(observation, self._max_age)
        return [venue_quote(self._exchange, self._fee, observation.snapshot, status, observation.age, reason)]

    def events(self, symbol: str, now: float) -> list[TapeEvent]:
        """Books and trades since the last call, in the order received."""
        events, self._events[symbol] = self._events[symbol], []
        return events

    def health(self) -> Health:
        """All zero: a recording neither connects nor conflates."""
        return Health(0, 0, 0, "")


class EventMerger:
    """Merges books and trades by the exchange's time. Each event is held back for `delay` seconds; one that arrives
    later than that follows the events already returned."""

    def __init__(self, delay: float = DELAY) -> None:
        self._delay = delay
        self._waiting: list[tuple[int, float, TapeEvent]] = []
        self._book: OrderBookSnapshot | None = None

    def add(self, now: float, book: OrderBookSnapshot | None, trades: Iterable[Trade]) -> None:
        """Add the newest book, which may be the same as before, and new trades."""
        if book is not None and book is not self._book and book != self._book:
            self._waiting.append((time_of(book, "exchange"), now, book))
        self._book = book
        self._waiting.extend((time_of(trade, "exchange"), now, trade) for trade in trades)

    def ready(self, now: float) -> list[TapeEvent]:
        """The events that were held back long enough, and all earlier ones."""
        until = max((at for at, came, _ in self._waiting if came <= now - self._delay), default=None)
        if until is None:
            return []
        # At the same time, trades come before the book that reflects them.
        self._waiting.sort(key=lambda waiting: (waiting[0], isinstance(waiting[2], OrderBookSnapshot)))
        ready = [event for at, _, event in self._waiting if at <= until]
        self._waiting = [waiting for waiting in self._waiting if waiting[0] > until]
        return ready


def venue_quote(
    exchange: str,
    fee_bps: float,
    book: OrderBookSnapshot | None,
    status: BookStatus,
    age: float | None,
    reason: str,
    trading: TradingStatus = "unknown",
) -> VenueQuote:
    """The quote of a book, with the reason if it may not be traded on."""
    code = detail = ""
    if book is None or status is not BookStatus.LIVE:
        code, detail = str(status), reason
    elif trading in NOT_MATCHING:
        code = _code(trading)
    elif not book.bids or not book.asks:
        code, detail = "one_sided", "one side of the book is empty"
    if not detail and trading not in ("unknown", "trading"):
        detail = f"{exchange} says of the market: {trading}"
    return VenueQuote(exchange, fee_bps, book, age, status, code, detail, trading)


def _code(trading: TradingStatus) -> str:
    return f"market_{trading}"


def mid_on(quotes: Iterable[VenueQuote], exchange: str) -> float | None:
    """The mid price on an exchange; None if its book may not be traded on."""
    for quote in quotes:
        if quote.exchange == exchange and not quote.reject_reason and quote.book is not None:
            return quote.book.mid()
    return None


def _health(provider: MarketDataProvider) -> Health:
    status = provider.get_connection_status()
    books = status.symbols.values()
    return Health(
        status.reconnect_count + status.feeder_reconnects,
        sum(book.missed for book in books),
        sum(book.conflated for book in books),
        status.error,
    )
