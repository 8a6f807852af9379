"""Instruments: native symbol, standard symbol and alias, price tick, quantity step and trading status."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal, get_args


@dataclass(frozen=True, slots=True)
class Exchange:
    """How an exchange spells its symbols. Ids are permanent: another region or market type gets another id."""

    id: str
    home_quote: str
    separator: str = ""
    quote_first: bool = False

    def native(self, base: str, quote: str) -> str:
        return self.separator.join((quote, base) if self.quote_first else (base, quote))


EXCHANGES = MappingProxyType(
    {
        exchange.id: exchange
        for exchange in (
            Exchange("binance", "USDT"),
            Exchange("upbit", "KRW", separator="-", quote_first=True),
            Exchange("bybit", "USDT"),
        )
    }
)

_QUOTES = "FDUSD USDT USDC BUSD TUSD DAI BTC ETH BNB TRY EUR BRL AUD RUB GBP JPY USD KRW"
OFFLINE_QUOTES = tuple(_QUOTES.split())
"""Quote assets by which a concatenated symbol is split if the exchange's metadata is not available."""

EXACT_DIGITS = 15
"""Most significant digits that float64, the number type of the wire format, represents exactly for every decimal."""

_LONGEST_ASSET = 30

TradingStatus = Literal["unknown", "trading", "caution", "warning", "auction", "halted", "delisted"]
"""Whether orders of a market are matched, the gravest last.

`unknown` the exchange was not asked, does not say, or has a word for it that is not known here · `trading` ·
`caution` and `warning` it trades, but the exchange warns of it · `auction` orders are collected, not matched ·
`halted` nothing is matched · `delisted` the exchange's list of markets does not have it.
"""

TRADING_STATUSES: tuple[TradingStatus, ...] = get_args(TradingStatus)

NOT_MATCHING: frozenset[str] = frozenset({"auction", "halted", "delisted"})
"""Statuses in which no order is filled."""

WARNED_OF: frozenset[str] = frozenset({"caution", "warning"})
"""Statuses of a market that trades, but that the exchange warns of."""


class SymbolError(ValueError):
    """A name matches no instrument, or more than one."""


@dataclass(frozen=True, slots=True)
class Instrument:
    """One market. `tick`, `step` and `minimum_notional` are None if the exchange does not publish them."""

    exchange: str
    base: str
    quote: str
    native: str
    tick: float | None = None
    step: float | None = None
    minimum_notional: float | None = None
    status: TradingStatus = "unknown"

    @property
    def symbol(self) -> str:
        """Standard symbol, base first: `BTC-USDT`."""
        return f"{self.base}-{self.quote}"


def exchange_of(exchange_id: str) -> Exchange:
    """The exchange with this id. Raises SymbolError with the known ids."""
    try:
        return EXCHANGES[exchange_id]
    except KeyError:
        raise SymbolError(f"unknown exchange {exchange_id!r}; known: {', '.join(EXCHANGES)}") from None


def trading_status(word: object) -> TradingStatus:
    """The status that another process wrote; `unknown` for a word of a newer version, or for none."""
    text = word.decode(errors="replace") if isinstance(word, bytes) else word
    return next((status for status in TRADING_STATUSES if status == text), "unknown")


def gravest(statuses: Iterable[TradingStatus]) -> TradingStatus:
    """The last of these in the order of `TradingStatus`; `unknown` if there is none."""
    return max(statuses, key=TRADING_STATUSES.index, default="unknown")


def significant_digits(text: str) -> int:
    """Number of digits from the first to the last non-zero one, without the exponent: 4 in `0.00077720`, 0 in `0`."""
    mantissa, _, _ = text.lower().partition("e")
    return len(mantissa.lstrip("+-").replace(".", "").strip("0"))


def guess_instrument(exchange: Exchange, name: str) -> Instrument:
    """An instrument by the spelling of its name, for recordings and while the exchange's metadata is not available.

    A concatenated symbol is split at the longest known quote asset; a base alone gets the exchange's home quote.
    `BTC/USDT` is base and quote on every exchange. Raises SymbolError if the name is no symbol.
    """
    upper = name.strip().upper()
    base, quote = upper.split("/", 1) if "/" in upper else _split(exchange, upper)
    if base == quote or not (_is_asset(base) and _is_asset(quote)):
        raise SymbolError(f"{name!r} is no symbol of {exchange.id}; write it like {_example(exchange)}")
    return Instrument(exchange.id, base, quote, exchange.native(base, quote))


@dataclass(slots=True)
class InstrumentRegistry:
    """The instruments of one exchange, by standard symbol, native symbol or alias.

    With `offline`, a name that is not listed is resolved by its spelling instead of raising SymbolError.
    """

    exchange: Exchange
    instruments: Iterable[Instrument] = ()
    offline: bool = False
    _by_native: dict[str, Instrument] = field(init=False, default_factory=dict)
    _by_symbol: dict[str, Instrument] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.learn(self.instruments)

    def __len__(self) -> int:
        return len(self._by_symbol)

    def learn(self, instruments: Iterable[Instrument]) -> None:
        """Add or replace instruments. Raises SymbolError if two have the same name."""
        for instrument in instruments:
            known = self._by_native.get(instrument.native.upper())
            if known is not None and known.symbol == instrument.symbol:
                self._by_native[instrument.native.upper()] = self._by_symbol[instrument.symbol] = instrument
            else:
                self._add(instrument)

    def all(self) -> list[Instrument]:
        """Every listed instrument, sorted by standard symbol."""
        return [self._by_symbol[symbol] for symbol in sorted(self._by_symbol)]

    def resolve(self, name: str) -> Instrument:
        """The instrument called `name`. Raises SymbolError, with similar names, if there is none or more than one."""
        upper = name.strip().upper()
        pair = upper.replace("/", "-") if upper.count("/") == 1 else ""
        upper = pair or upper
        home = f"{upper}-{self.exchange.home_quote}"
        found = {
            instrument.symbol: instrument
            for instrument in (
                self._by_symbol.get(upper),
                None if pair else self._by_native.get(upper),
                self._by_symbol.get(home) if self._is_bare(upper) else None,
            )
            if instrument is not None
        }
        if len(found) > 1:
            raise SymbolError(f"{name!r} is ambiguous on {self.exchange.id}: {' or '.join(found)}")
        if found:
            return next(iter(found.values()))
        if self.offline:
            try:
                return guess_instrument(self.exchange, name)
            except SymbolError as error:
                raise SymbolError(f"{error}{self._near(upper, home)}") from None
        raise SymbolError(f"unknown symbol {name!r} on {self.exchange.id}{self._near(upper, home)}")

    def by_native(self, native: str) -> Instrument | None:
        return self._by_native.get(native.upper())

    def _add(self, instrument: Instrument) -> None:
        for table, key in (
            (self._by_symbol, instrument.symbol),
            (self._by_native, instrument.native.upper()),
        ):
            other = table.setdefault(key, instrument)
            if other != instrument:
                raise SymbolError(f"{key} is the name of both {other.native} and {instrument.native}")

    def _is_bare(self, upper: str) -> bool:
        return "-" not in upper

    def _near(self, *names: str) -> str:
        known = [*self._by_symbol, *self._by_native]
        near = dict.fromkeys(match for name in names for match in get_close_matches(name, known, n=3))
        return f"; did you mean {', '.join(near)}?" if near else ""


def _is_asset(text: str) -> bool:
    """Whether an exchange may call an asset so: letters and digits of any script, and dots between them."""
    return 0 < len(text) <= _LONGEST_ASSET and text.replace(".", "").isalnum() and text[0] != "." != text[-1]


def _split(exchange: Exchange, upper: str) -> tuple[str, str]:
    if exchange.separator and exchange.separator in upper:
        first, second = upper.split(exchange.separator, 1)
        return (second, first) if exchange.quote_first and _quotes(first, second) else (first, second)
    if "-" in upper:
        base, quote = upper.split("-", 1)
        return base, quote
    if exchange.separator or upper in OFFLINE_QUOTES:
        return upper, exchange.home_quote
    for quote in sorted(OFFLINE_QUOTES, key=len, reverse=True):
        if upper.endswith(quote):
            return upper.removesuffix(quote), quote
    return upper, exchange.home_quote


_QUOTE_RANK = {quote: rank for rank, quote in enumerate(("KRW", "USDT", "BTC"))}


def _quotes(first: str, second: str) -> bool:
    """Whether `first` is the quote asset of a pair of unknown order: the quote asset is the one that ranks higher."""
    unranked = len(_QUOTE_RANK)
    return _QUOTE_RANK.get(first, unranked) < _QUOTE_RANK.get(second, unranked)


def _example(exchange: Exchange) -> str:
    return f"BTC, BTC-{exchange.home_quote} or {exchange.native('BTC', exchange.home_quote)}"
