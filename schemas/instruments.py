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
"""Quote assets by which a concatenated symbol is split if no list of instruments is available: the last resort."""

_BASES = "SOL XRP DOGE ADA DOT LTC BCH TRX LINK AVAX"
_KNOWN_BASES = frozenset((*OFFLINE_QUOTES, *_BASES.split()))
"""Assets that are certain where the end of a name is not."""

_DOUBTFUL = MappingProxyType({"USD": "USD", "EUR": "AEUR", "KRW": "BKRW", "BUSD": "BUSD", "TUSD": "TUSD"})
"""Quote assets and the ends of names where they may be another one: XRP-RLUSD, BTC-AEUR, and AB-USD or A-BUSD."""

_WRAPPED = "WBTC CBBTC TBTC HBTC RENBTC SOLVBTC WETH STETH WSTETH WBETH BETH METH CMETH RETH CBETH EZETH WEETH RSETH"
_LIKE_PAIRS = frozenset(_WRAPPED.split())
"""Assets whose own name ends like a pair."""

_FURTHER = "PLN AED UAH NGN ZAR IDRT BIDR BVND VAI UST ARS MXN COP CZK RON CHF INR IDR MNT"
_FURTHER_QUOTES = tuple(_FURTHER.split())
"""Quote assets by which a name is not split, because assets may end so too, but which make a name doubtful."""

_PAIR_TAIL = 3
"""Characters after a known asset that may be a quote asset."""

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


class UnknownSymbolError(SymbolError):
    """A list of instruments does not have this name, which may have been delisted."""


class UncertainSymbolError(SymbolError):
    """A name is a symbol, but only a list of instruments can tell which of its characters are the quote asset."""


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


def is_symbol(exchange: Exchange, name: str) -> bool:
    """Whether the exchange may call a symbol so; which part of it is the quote asset may be unknown."""
    upper = name.strip().upper()
    separator = "/" if "/" in upper else exchange.separator if exchange.separator in upper else "-"
    first, found, second = upper.partition(separator or "-")
    return first != second and _is_asset(first) and (_is_asset(second) or not found)


def guess_instrument(exchange: Exchange, name: str) -> Instrument:
    """An instrument by the spelling of the name that a user gave, for while no list of instruments is available.

    A name with a separator is kept as it is. A concatenated symbol is split at a known quote asset; a base alone gets
    the exchange's home quote. `BTC/USDT` is base and quote on every exchange. Raises SymbolError if the name is no
    symbol, UncertainSymbolError if its parts cannot be told.
    """
    upper = name.strip().upper()
    base, quote = upper.split("/", 1) if "/" in upper else _split(exchange, upper)
    if base == quote or not (_is_asset(base) and _is_asset(quote)):
        raise SymbolError(f"{name!r} is no symbol of {exchange.id}; write it like {_example(exchange)}")
    return Instrument(exchange.id, base, quote, exchange.native(base, quote))


def split_native(exchange: Exchange, native: str) -> Instrument:
    """The instrument of a symbol that the exchange itself sent, by its spelling: never a base alone.

    Raises SymbolError if it is no symbol, UncertainSymbolError if no known quote asset ends it or several may.
    """
    upper = native.upper()
    if exchange.separator:
        first, _, second = upper.partition(exchange.separator)
        base, quote = (second, first) if exchange.quote_first else (first, second)
    else:
        pair = _at_known_quote(exchange, upper)
        if pair is None:
            raise _uncertain(exchange, native)
        base, quote = pair
    if base == quote or not (_is_asset(base) and _is_asset(quote)):
        raise SymbolError(f"{native!r} is no symbol of {exchange.id}")
    return Instrument(exchange.id, base, quote, native)


@dataclass(slots=True)
class InstrumentRegistry:
    """The instruments of one exchange, by standard symbol, native symbol or alias.

    With `offline`, a name that is not listed is resolved by its spelling instead of raising SymbolError. Raises
    SymbolError if two instruments have the same name.
    """

    exchange: Exchange
    instruments: Iterable[Instrument] = ()
    offline: bool = False
    _by_native: dict[str, Instrument] = field(init=False, default_factory=dict)
    _by_symbol: dict[str, Instrument] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        for reason in self.learn(self.instruments).values():
            raise SymbolError(reason)

    def __len__(self) -> int:
        return len(self._by_symbol)

    def learn(self, instruments: Iterable[Instrument]) -> dict[str, str]:
        """Add or update instruments: ticks, steps and statuses change, names never do.

        Returns those that were not taken because an earlier one has one of their names: native symbol and reason.
        """
        rejected: dict[str, str] = {}
        for instrument in instruments:
            symbol, native = instrument.symbol.upper(), instrument.native.upper()
            known = self._by_native.get(native) or instrument
            other = self._by_symbol.get(symbol) or instrument
            if known.symbol != instrument.symbol:
                rejected[instrument.native] = f"{native} is the name of both {known.symbol} and {instrument.symbol}"
            elif other.native.upper() != native:
                rejected[instrument.native] = f"{symbol} is the name of both {other.native} and {instrument.native}"
            else:
                self._by_native[native] = self._by_symbol[symbol] = instrument
        return rejected

    def all(self) -> list[Instrument]:
        """Every listed instrument, sorted by standard symbol."""
        return sorted(self._by_symbol.values(), key=lambda instrument: instrument.symbol)

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
                raise type(error)(f"{error}{self._near(upper, home)}") from None
        raise UnknownSymbolError(f"unknown symbol {name!r} on {self.exchange.id}{self._near(upper, home)}")

    def by_native(self, native: str) -> Instrument | None:
        return self._by_native.get(native.upper())

    def named(self, native: str) -> Instrument:
        """The instrument that the exchange calls `native`; with `offline` also by its spelling. Raises SymbolError."""
        known = self._by_native.get(native.upper())
        if known is not None:
            return known
        if not self.offline:
            raise UnknownSymbolError(f"unknown symbol {native!r} on {self.exchange.id}")
        return split_native(self.exchange, native)

    def _is_bare(self, upper: str) -> bool:
        return "-" not in upper

    def _near(self, *names: str) -> str:
        listed = self._by_symbol.values()
        known = [*(each.symbol for each in listed), *(each.native for each in listed)]
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
    if exchange.separator or upper in OFFLINE_QUOTES or not _is_asset(upper):
        return upper, exchange.home_quote
    if upper in _LIKE_PAIRS:
        raise _uncertain(exchange, upper)
    pair = _at_known_quote(exchange, upper)
    if pair is None and _may_be_pair(upper):
        raise _uncertain(exchange, upper)
    return pair or (upper, exchange.home_quote)


def _at_known_quote(exchange: Exchange, upper: str) -> tuple[str, str] | None:
    """Base and quote of a concatenated symbol; None if no known quote asset ends it.

    Raises UncertainSymbolError if another quote asset, or another base, is as likely.
    """
    quotes = sorted({*OFFLINE_QUOTES, exchange.home_quote}, key=len, reverse=True)
    pairs = [(upper.removesuffix(quote), quote) for quote in quotes if upper.endswith(quote) and upper != quote]
    if not pairs:
        return None
    base, quote = pairs[0]
    others = any(other in _KNOWN_BASES for other, _ in pairs[1:])
    if others or (base not in _KNOWN_BASES and quote in _DOUBTFUL and upper.endswith(_DOUBTFUL[quote])):
        raise _uncertain(exchange, upper)
    return pairs[0]


def _may_be_pair(upper: str) -> bool:
    """Whether a name that no known quote asset ends may be a pair nevertheless, as BTCUSD1 and USDTPLN are."""
    return (
        any(currency in upper[1:] for currency in ("USD", "EUR"))
        or any(upper.endswith(quote) and upper != quote for quote in _FURTHER_QUOTES)
        or any(upper.startswith(base) and len(upper) - len(base) >= _PAIR_TAIL for base in _KNOWN_BASES)
    )


def _uncertain(exchange: Exchange, name: str) -> UncertainSymbolError:
    return UncertainSymbolError(
        f"{name!r}: without the list of instruments of {exchange.id} it is not known which part of it is the quote "
        f"asset; write it like BTC-{exchange.home_quote}"
    )


_QUOTE_RANK = {quote: rank for rank, quote in enumerate(("KRW", "USDT", "BTC"))}


def _quotes(first: str, second: str) -> bool:
    """Whether `first` is the quote asset of a pair of unknown order: the quote asset is the one that ranks higher."""
    unranked = len(_QUOTE_RANK)
    return _QUOTE_RANK.get(first, unranked) < _QUOTE_RANK.get(second, unranked)


def _example(exchange: Exchange) -> str:
    return f"BTC, BTC-{exchange.home_quote} or {exchange.native('BTC', exchange.home_quote)}"
