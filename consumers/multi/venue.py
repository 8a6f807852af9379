"""Where an exchange's books and the exchange rate come from, and what they are worth in the common quote currency."""

from dataclasses import dataclass
from typing import NamedTuple

from bookbus.consumers.freshness import MAX_AGE, judge
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi.fx import Conversion, conversion
from bookbus.consumers.multi.venue_book import VenueBook
from bookbus.consumers.reading import Observation
from bookbus.schemas.snapshot import BookStatus, Levels, OrderBookSnapshot


class FxReading(NamedTuple):
    """The exchange rate at this moment; without a conversion `reason` says why."""

    conversion: Conversion | None
    age: float | None
    reason: str
    snapshot: OrderBookSnapshot | None


class VenueReading(NamedTuple):
    """One exchange's book at this moment, as it came and as the common quote currency sees it."""

    observation: Observation
    book: VenueBook


@dataclass(frozen=True, slots=True)
class FxSource:
    """The book that trades the quote currencies for each other, with a limit of age of its own."""

    provider: MarketDataProvider
    symbol: str = "USDT-KRW"
    max_age: float = MAX_AGE

    def read(self, target: str) -> FxReading:
        """The rate into `target` if it may be believed."""
        observation = observe(self.provider, self.symbol)
        snapshot = observation.snapshot
        status, reason = judge(observation, self.max_age)
        if status is not BookStatus.LIVE or snapshot is None:
            return FxReading(None, observation.age, f"FX {self.symbol} is {status}: {reason}", snapshot)
        try:
            return FxReading(conversion(snapshot, target), observation.age, "", snapshot)
        except ValueError as error:
            return FxReading(None, observation.age, f"FX {error}", snapshot)


@dataclass(frozen=True, slots=True)
class Venue:
    """One exchange: the provider of its books, the currency they are quoted in and what a taker pays there."""

    exchange: str
    provider: MarketDataProvider
    quote: str
    fee_bps: float

    def symbol_of(self, base: str) -> str:
        """The standard symbol of `base` here."""
        return f"{base}-{self.quote}"

    def read(self, base: str, fx: FxReading | None, max_age: float) -> VenueReading:
        """The book of `base`; `fx` is None where nothing has to be converted."""
        symbol = self.symbol_of(base)
        observation = observe(self.provider, symbol)
        status, why = judge(observation, max_age)
        snapshot = observation.snapshot
        reasons = [
            reason for reason in (self._why_out(symbol, snapshot, status, why), fx.reason if fx else "") if reason
        ]
        bids, asks = _levels(snapshot, fx) if snapshot is not None and not reasons else ((), ())
        book = VenueBook(
            exchange=self.exchange,
            symbol=symbol,
            status=status,
            fee_bps=self.fee_bps,
            age=observation.age,
            reason="; ".join(reasons),
            snapshot=snapshot,
            conversion=fx.conversion if fx is not None else None,
            fx_age=fx.age if fx is not None else None,
            bids=bids,
            asks=asks,
            depth=snapshot.depth if snapshot is not None else 0,
        )
        return VenueReading(observation, book)

    def _why_out(self, symbol: str, snapshot: OrderBookSnapshot | None, status: BookStatus, why: str) -> str:
        if snapshot is None or status is not BookStatus.LIVE:
            return f"{self.exchange} {symbol} is {status}: {why}"
        if not snapshot.bids or not snapshot.asks:
            return f"{self.exchange} {symbol} has no {'asks' if snapshot.bids else 'bids'}"
        return ""


def _levels(snapshot: OrderBookSnapshot, fx: FxReading | None) -> tuple[Levels, Levels]:
    if fx is None or fx.conversion is None:
        return snapshot.bids, snapshot.asks
    return fx.conversion.bids(snapshot.bids), fx.conversion.asks(snapshot.asks)


def observe(provider: MarketDataProvider, symbol: str) -> Observation:
    """What a provider knows of a standard symbol, book and age of one moment, without the warnings of a read."""
    return provider._observe(symbol)  # noqa: SLF001 - a provider made of providers
