"""What a run sees of a market: one book for each exchange, and the events that waiting orders need."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from bookbus.consumers.bus.trade_tail import TradeSource, TradeTail
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi.fees import taker_fees
from bookbus.consumers.multi_provider import MultiExchangeProvider
from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.consumers.paper.tape_merger import DELAY, TapeMerger
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot

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
        self._mergers = {symbol: TapeMerger(DELAY if with_trades else 0.0) for symbol in self.symbols}
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
        troubles = (health.trouble, *(tail.trouble for tail in self._tails.values()))
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
        status.trouble,
    )
