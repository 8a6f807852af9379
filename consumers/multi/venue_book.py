"""One exchange's book of an asset, converted to the common quote currency, and whether two are comparable."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.reading import MAX_AGE, Observation, judge
from bookbus.schemas.instruments import NOT_MATCHING, TradingStatus
from bookbus.schemas.snapshot import BookStatus, Levels, OrderBookSnapshot

MAX_MID_DISTANCE = 0.10
"""Largest distance of two mid prices, as a fraction of the lower one, at which they can belong to the same asset."""

TAKER_FEES_BPS: Mapping[str, float] = MappingProxyType({"binance": 10.0, "upbit": 5.0, "bybit": 10.0})
"""Spot taker fees without discounts, in bps of the traded value; for Upbit, of its KRW markets."""


class Conversion(msgspec.Struct, frozen=True):
    """From one currency to another at the best prices of a book that trades the two.

    A buyer at an ask first has to buy the foreign currency, a seller at a bid then sells it: the two sides of the rate.
    Each price is rounded once, so that conversion never makes an uncrossed book cross.
    """

    bid: float
    """The rate for the proceeds of a sale."""
    ask: float
    """The rate for the cost of a purchase."""
    divides: bool
    """Whether prices are divided by the rate, because the rate is the price of the target currency."""
    bid_size: float
    """Proceeds of sales, in the target currency, that the rate's best level covers."""
    ask_size: float
    """Cost of purchases, in the target currency, that the rate's best level covers."""

    def bids(self, levels: Levels) -> Levels:
        """Bid levels in the target currency; sizes are in the base asset and do not change."""
        return self._converted(levels, self.bid)

    def asks(self, levels: Levels) -> Levels:
        return self._converted(levels, self.ask)

    def _converted(self, levels: Levels, rate: float) -> Levels:
        if self.divides:
            return tuple((price / rate, quantity) for price, quantity in levels)
        return tuple((price * rate, quantity) for price, quantity in levels)


class VenueBook(msgspec.Struct, frozen=True, kw_only=True):
    """`snapshot` is the exchange's own book; `bids` and `asks` are its levels in the common quote currency.

    `reason` says why the book cannot be compared with others; then it has no levels. `conversion` and `fx_age` are None
    if the exchange quotes in the common currency.
    """

    exchange: str
    symbol: str
    status: BookStatus
    fee_bps: float
    age: float | None = None
    reason: str = ""
    snapshot: OrderBookSnapshot | None = None
    conversion: Conversion | None = None
    fx_age: float | None = None
    bids: Levels = ()
    asks: Levels = ()
    depth: int = 0
    """Requested levels per side."""
    trading: TradingStatus = "unknown"
    """What the exchange says of the market; one in which no order is filled is not compared."""

    def mid(self) -> float | None:
        """Mid price in the common quote currency; None without levels."""
        if not self.bids or not self.asks:
            return None
        return (self.bids[0][0] + self.asks[0][0]) / 2


class FxReading(NamedTuple):
    """The current exchange rate; without a conversion `reason` says why."""

    conversion: Conversion | None
    age: float | None
    reason: str
    snapshot: OrderBookSnapshot | None


class VenueReading(NamedTuple):
    """One exchange's current book, as observed and in the common quote currency."""

    observation: Observation
    book: VenueBook


@dataclass(frozen=True, slots=True)
class FxSource:
    """The book that trades the two quote currencies, with its own limit of age in seconds."""

    provider: MarketDataProvider
    symbol: str = "USDT-KRW"
    max_age: float = MAX_AGE

    def read(self, target: str) -> FxReading:
        """The rate into `target`, if its book is live."""
        observation = observe(self.provider, self.symbol)
        snapshot = observation.snapshot
        status, reason = judge(observation, self.max_age)
        if status is not BookStatus.LIVE or snapshot is None:
            return FxReading(None, observation.age, f"FX {self.symbol} is {status}: {reason}", snapshot)
        if observation.trading in NOT_MATCHING:
            return FxReading(None, observation.age, f"FX {self.symbol} is {observation.trading}", snapshot)
        try:
            return FxReading(conversion(snapshot, target), observation.age, "", snapshot)
        except ValueError as error:
            return FxReading(None, observation.age, f"FX {error}", snapshot)


@dataclass(frozen=True, slots=True)
class ExchangeSource:
    """One exchange: the provider of its books, their quote currency and the taker fee."""

    exchange: str
    provider: MarketDataProvider
    quote: str
    fee_bps: float

    def symbol_of(self, base: str) -> str:
        """The standard symbol of `base` on this exchange."""
        return f"{base}-{self.quote}"

    def read(self, base: str, fx: FxReading | None, max_age: float) -> VenueReading:
        """The book of `base`; `fx` is None if the quote currency is the common one."""
        symbol = self.symbol_of(base)
        observation = observe(self.provider, symbol)
        status, why = judge(observation, max_age)
        snapshot = observation.snapshot
        reasons = [
            reason for reason in (self._reason(symbol, observation, status, why), fx.reason if fx else "") if reason
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
            trading=observation.trading,
        )
        return VenueReading(observation, book)

    def _reason(self, symbol: str, observation: Observation, status: BookStatus, why: str) -> str:
        snapshot = observation.snapshot
        if snapshot is None or status is not BookStatus.LIVE:
            return f"{self.exchange} {symbol} is {status}: {why}"
        if observation.trading in NOT_MATCHING:
            return f"{self.exchange} {symbol} is {observation.trading}"
        if not snapshot.bids or not snapshot.asks:
            return f"{self.exchange} {symbol} has no {'asks' if snapshot.bids else 'bids'}"
        return ""


def links(symbol: str, source: str, target: str) -> bool:
    """Whether a book of this standard symbol is the exchange rate between the two currencies."""
    base, _, quote = symbol.partition("-")
    return {base, quote} == {source, target}


def conversion(rate: OrderBookSnapshot, target: str) -> Conversion:
    """Conversion to `target` from the other currency of the book `rate`. Raises ValueError if a side is empty."""
    if not rate.bids or not rate.asks:
        raise ValueError(f"{rate.symbol} has no {'asks' if rate.bids else 'bids'}")
    (bid, bid_quantity), (ask, ask_quantity) = rate.bids[0], rate.asks[0]
    base, _, _ = rate.symbol.partition("-")
    if base == target:
        # The proceeds of a sale buy the target at its ask; a purchase is paid by selling the target at its bid.
        return Conversion(bid=ask, ask=bid, divides=True, bid_size=ask_quantity, ask_size=bid_quantity)
    return Conversion(bid=bid, ask=ask, divides=False, bid_size=bid_quantity * bid, ask_size=ask_quantity * ask)


def taker_fees(exchanges: Iterable[str], given: Mapping[str, float] | None = None) -> dict[str, float]:
    """The given fee of each exchange, else its default. Raises ValueError if there is neither, or for a wrong one."""
    exchanges, given = list(exchanges), given or {}
    if unexpected := sorted(set(given) - set(exchanges)):
        raise ValueError(f"a fee is given for {', '.join(unexpected)}, which is not among {', '.join(exchanges)}")
    fees = {**TAKER_FEES_BPS, **given}
    if unknown := [exchange for exchange in exchanges if exchange not in fees]:
        raise ValueError(f"the taker fee of {', '.join(unknown)} is unknown; give it in bps")
    if wrong := [f"{exchange}={fees[exchange]}" for exchange in exchanges if not -1e4 < fees[exchange] < 1e4]:
        raise ValueError(f"not a fee in bps: {', '.join(wrong)}")
    return {exchange: fees[exchange] for exchange in exchanges}


def observe(provider: MarketDataProvider, symbol: str) -> Observation:
    """Book and age of a standard symbol at the same moment, without the warnings of a read."""
    return provider._observe(symbol)  # noqa: SLF001 - a provider made of providers


def comparison_reason(one: VenueBook, other: VenueBook, max_skew: float) -> str:
    """Why the prices of the two cannot be compared; empty if they can."""
    if reasons := list(dict.fromkeys(book.reason for book in (one, other) if book.reason)):
        return "; ".join(reasons)
    return skew_reason(one, other, max_skew) or other_asset_reason(one, other)


def skew_reason(one: VenueBook, other: VenueBook, max_skew: float) -> str:
    """Why the two are not of the same moment; empty if they are."""
    skew = inf if one.age is None or other.age is None else abs(one.age - other.age)
    if skew <= max_skew:
        return ""
    return f"{one.exchange} and {other.exchange} were confirmed {skew:.1f} s apart (limit {max_skew:g} s)"


def other_asset_reason(one: VenueBook, other: VenueBook) -> str:
    """Why the two are not the same asset; empty if they may be."""
    mid, other_mid = one.mid(), other.mid()
    distance = inf if mid is None or other_mid is None else abs(mid - other_mid) / min(mid, other_mid)
    if distance <= MAX_MID_DISTANCE:
        return ""
    return f"mid prices of {one.exchange} and {other.exchange} are {distance:.1%} apart: different asset?"


def _levels(snapshot: OrderBookSnapshot, fx: FxReading | None) -> tuple[Levels, Levels]:
    if fx is None or fx.conversion is None:
        return snapshot.bids, snapshot.asks
    return fx.conversion.bids(snapshot.bids), fx.conversion.asks(snapshot.asks)
