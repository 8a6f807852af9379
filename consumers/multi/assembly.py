"""A MultiExchangeProvider from the names of exchanges and assets, over whatever kind of provider."""

from collections.abc import Callable, Iterable, Mapping

from bookbus.consumers.freshness import MAX_AGE
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi_provider import DEFAULT_QUOTE, MAX_SKEW, FxSource, MultiExchangeProvider, base_assets
from bookbus.schemas.instruments import exchange_of

DEFAULT_FX = "upbit:USDT-KRW"

MakeProvider = Callable[[str, list[str]], MarketDataProvider]
"""A provider of these standard symbols of an exchange."""


def assemble(
    make: MakeProvider,
    exchanges: Iterable[str],
    symbols: Iterable[str],
    *,
    fx: str = DEFAULT_FX,
    fx_max_age: float = MAX_AGE,
    fees: Mapping[str, float] | None = None,
    quote: str = DEFAULT_QUOTE,
    max_skew: float = MAX_SKEW,
    max_age: float = MAX_AGE,
) -> MultiExchangeProvider:
    """One provider for each exchange, asked for just the books that are needed, and all of them as one.

    `fx` is written `exchange:symbol`; its book is asked for only where something has to be converted. Raises
    ValueError for what makes no sense.
    """
    bases = base_assets(symbols, quote)
    needed = {exchange: [f"{base}-{exchange_of(exchange).home_quote}" for base in bases] for exchange in exchanges}
    wanted = list(needed)
    fx_exchange, colon, fx_symbol = fx.partition(":")
    converts = any(exchange_of(exchange).home_quote != quote for exchange in wanted)
    if converts:
        if not (fx_exchange and colon and fx_symbol):
            raise ValueError(f"{fx!r} names no exchange rate: write exchange:symbol, like {DEFAULT_FX}")
        needed.setdefault(fx_exchange, []).append(fx_symbol)
    made = {exchange: make(exchange, names) for exchange, names in needed.items()}
    return MultiExchangeProvider(
        {exchange: made[exchange] for exchange in wanted},
        bases,
        FxSource(made[fx_exchange], fx_symbol, fx_max_age) if converts else None,
        fees,
        quote,
        max_skew,
        max_age,
    )
