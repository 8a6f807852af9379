"""One exchange's book of an asset in the common quote currency, and whether two of them may be compared."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import msgspec

from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi.fx import Conversion, conversion
from bookbus.consumers.reading import MAX_AGE, Observation, judge
from bookbus.schemas.snapshot import BookStatus, Levels, OrderBookSnapshot

MAX_MIDS_APART = 0.10
"""How far two mids may be apart, as a fraction of the lower, and still be prices of one asset."""

TAKER_FEES_BPS: Mapping[str, float] = MappingProxyType({"binance": 10.0, "upbit": 5.0, "bybit": 10.0})
"""Spot taker fee without any discount, in hundredths of a percent of the traded value; on Upbit of its KRW markets."""


class VenueBook(msgspec.Struct, frozen=True, kw_only=True):
    """`snapshot` is the book as the exchange has it; `bids` and `asks` are its levels in the common quote currency.

    `reason` says why it may be compared with no other book; then it has no levels. `conversion` and `fx_age` are
    None where the exchange itself quotes in the common currency.
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
    """Levels asked for a side."""

    def mid(self) -> float | None:
        """Middle of the best prices in the common quote currency; None without levels."""
        if not self.bids or not self.asks:
            return None
        return (self.bids[0][0] + self.asks[0][0]) / 2


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


def taker_fees(exchanges: Iterable[str], given: Mapping[str, float] | None = None) -> dict[str, float]:
    """Fee of each exchange: as given, else the usual one. Raises ValueError where there is neither."""
    exchanges, given = list(exchanges), given or {}
    if strangers := sorted(set(given) - set(exchanges)):
        raise ValueError(f"a fee is given for {', '.join(strangers)}, which is not among {', '.join(exchanges)}")
    fees = {**TAKER_FEES_BPS, **given}
    if unknown := [exchange for exchange in exchanges if exchange not in fees]:
        raise ValueError(f"the taker fee of {', '.join(unknown)} is not known; give it in bps")
    if wrong := [f"{exchange}={fees[exchange]}" for exchange in exchanges if not -1e4 < fees[exchange] < 1e4]:
        raise ValueError(f"no fee in bps: {', '.join(wrong)}")
    return {exchange: fees[exchange] for exchange in exchanges}


def observe(provider: MarketDataProvider, symbol: str) -> Observation:
    """What a provider knows of a standard symbol, book and age of one moment, without the warnings of a read."""
    return provider._observe(symbol)  # noqa: SLF001 - a provider made of providers


def why_not_comparable(one: VenueBook, other: VenueBook, max_skew: float) -> str:
    """Why no price of one may be held against a price of the other; empty if it may."""
    if reasons := list(dict.fromkeys(book.reason for book in (one, other) if book.reason)):
        return "; ".join(reasons)
    return why_skewed(one, other, max_skew) or why_unlike(one, other)


def why_skewed(one: VenueBook, other: VenueBook, max_skew: float) -> str:
    """Why the two are not of one moment; empty if they are."""
    apart = skew(one, other)
    if apart <= max_skew:
        return ""
    return f"{one.exchange} and {other.exchange} were confirmed {apart:.1f} s apart (limit {max_skew:g} s)"


def why_unlike(one: VenueBook, other: VenueBook) -> str:
    """Why the two do not look like one asset; empty if they do."""
    apart = mids_apart(one, other)
    if apart <= MAX_MIDS_APART:
        return ""
    return f"mids of {one.exchange} and {other.exchange} are {apart:.1%} apart: different asset?"


def skew(one: VenueBook, other: VenueBook) -> float:
    """Seconds between the moments at which the two were last confirmed."""
    if one.age is None or other.age is None:
        return float("inf")
    return abs(one.age - other.age)


def mids_apart(one: VenueBook, other: VenueBook) -> float:
    """Distance of the mids as a fraction of the lower one."""
    mid, other_mid = one.mid(), other.mid()
    if mid is None or other_mid is None:
        return float("inf")
    return abs(mid - other_mid) / min(mid, other_mid)


def _levels(snapshot: OrderBookSnapshot, fx: FxReading | None) -> tuple[Levels, Levels]:
    if fx is None or fx.conversion is None:
        return snapshot.bids, snapshot.asks
    return fx.conversion.bids(snapshot.bids), fx.conversion.asks(snapshot.asks)
