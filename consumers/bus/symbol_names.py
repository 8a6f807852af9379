"""The symbol of a name on one exchange: by its spelling, and exactly once the bus has listed its books."""

from collections.abc import Iterable
from difflib import get_close_matches

from bookbus.schemas.instruments import Instrument, InstrumentRegistry, UncertainSymbolError, exchange_of

_CACHE_LIMIT = 10_000


class SymbolNames:
    """Standard symbols of one exchange. Raises SymbolError for an unknown exchange."""

    def __init__(self, exchange: str) -> None:
        self._exchange = exchange_of(exchange)
        self.listed: frozenset[str] = frozenset()
        """The symbols that the bus has listed so far."""
        self._registry = InstrumentRegistry(self._exchange, offline=True)
        self._cache: dict[str, str] = {}

    def learn(self, symbols: Iterable[str]) -> None:
        """The bus lists these standard symbols."""
        listed = self.listed.union(symbols)
        if listed == self.listed:
            return
        by_native: dict[str, list[Instrument]] = {}
        for symbol in listed:
            base, separator, quote = symbol.partition("-")
            if base and separator and quote:
                native = self._exchange.native(base, quote)
                by_native.setdefault(native.upper(), []).append(Instrument(self._exchange.id, base, quote, native))
        # A native name that two symbols share is ambiguous.
        certain = [instruments[0] for instruments in by_native.values() if len(instruments) == 1]
        self._registry = InstrumentRegistry(self._exchange, certain, offline=True)
        self.listed, self._cache = listed, {}

    def standard(self, name: str) -> str:
        """The standard symbol; of a name that may be several, the one in the home quote until the bus lists another.

        Raises SymbolError for a name that cannot be a symbol.
        """
        cache = self._cache
        symbol = cache.get(name)
        if symbol is None:
            try:
                symbol = self._registry.resolve(name).symbol
            except UncertainSymbolError:
                # The bus lists no book that it could be. One that it lists later replaces this name.
                symbol = f"{name.strip().upper()}-{self._exchange.home_quote}"
            if len(cache) < _CACHE_LIMIT:
                cache[name] = symbol
        return symbol

    def near(self, name: str) -> list[str]:
        return get_close_matches(name.strip().upper(), sorted(self.listed), n=3)
