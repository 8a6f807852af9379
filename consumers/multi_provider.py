"""The books of several exchanges as one, in one quote currency."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from bookbus.consumers.change_feed import OnSnapshot, OnStatus
from bookbus.consumers.market_data_provider import MarketDataProvider
from bookbus.consumers.multi.arbitrage import Opportunity, find_opportunities
from bookbus.consumers.multi.consolidation import ConsolidatedAsset, ConsolidatedBook
from bookbus.consumers.multi.venue_book import ExchangeSource, links, taker_fees
from bookbus.consumers.multi.venue_book import FxSource as FxSource
from bookbus.consumers.reading import MAX_AGE, ConnectionStatus, Counts, Observation, Update
from bookbus.schemas.instruments import (
    Exchange,
    Instrument,
    InstrumentRegistry,
    SymbolError,
    UncertainSymbolError,
    exchange_of,
    guess_instrument,
)
from bookbus.schemas.snapshot import OrderBookSnapshot

EXCHANGE = "multi"
"""Exchange id of a consolidated snapshot."""

MAX_SKEW = 3.0
"""Most seconds between the confirmations of two compared books. Feeders confirm an unchanged book every 2 s and readers
poll confirmations every second, so a smaller limit would exclude quiet books now and then.
"""

DEFAULT_QUOTE = "USDT"
DEFAULT_FX = "upbit:USDT-KRW"
MakeProvider = Callable[[str, list[str]], MarketDataProvider]
"""Creates a provider of these standard symbols of an exchange."""


class MultiExchangeProvider(MarketDataProvider):
    """The books of `symbols` (base assets) on all exchanges of `providers`, which are given by exchange id.

    Each exchange is read in its home quote; other quotes than `quote` are converted with the book of `fx`. `fees` are
    taker fees in bps by exchange. A book that is not live, or cannot be compared with the others, is excluded, with the
    reason in `consolidated(symbol).out`. Snapshots have the exchange id `multi` and ids of this provider, and may be
    crossed.

    `start()` and `stop()` start and stop its providers.
    """

    def __init__(
        self,
        providers: Mapping[str, MarketDataProvider],
        symbols: Iterable[str],
        fx: FxSource | None = None,
        fees: Mapping[str, float] | None = None,
        quote: str = DEFAULT_QUOTE,
        max_skew: float = MAX_SKEW,
        max_age: float = MAX_AGE,
    ) -> None:
        super().__init__(max_age)
        if not providers:
            raise ValueError("no exchange given")
        if not max_skew > 0:
            raise ValueError(f"max_skew must be above zero, got {max_skew}")
        if fx is not None and not fx.max_age > 0:
            raise ValueError(f"the max_age of the exchange rate must be above zero, got {fx.max_age}")
        self.max_skew = max_skew
        self._fx = fx and replace(fx, symbol=fx.provider.standard_symbol(fx.symbol))
        self._venues = _venues(providers, taker_fees(providers, fees), quote, self._fx)
        self._names = _registry(base_assets(symbols, quote), quote)
        self._assets = {
            instrument.symbol: ConsolidatedAsset(instrument, self._venues, self._fx, max_age, max_skew)
            for instrument in self._names.all()
        }
        self._affected = _affected(self._assets.values(), self._venues, self._fx)
        sources = [*providers.values(), *([self._fx.provider] if self._fx else [])]
        self._sources = list({id(source): source for source in sources}.values())
        self.blocking_reads = any(source.blocking_reads for source in self._sources)
        self._not_listening = [self._sources]
        """The providers, until one call has registered for their changes."""
        self._running = False

    @property
    def symbols(self) -> Sequence[str]:
        """Standard names: each base asset in the common quote currency."""
        return list(self._assets)

    def consolidated(self, symbol: str) -> ConsolidatedBook:
        """Every exchange's book of a symbol, and the comparable ones as one book. Raises SymbolError."""
        return self._asset(symbol).consolidated()

    def opportunities(self, symbol: str) -> list[Opportunity]:
        """One opportunity, or the reason why there is none, per pair of exchanges. Raises SymbolError."""
        book = self.consolidated(symbol)
        return find_opportunities(book.symbol, book.venues, self.max_skew)

    def start(self) -> None:
        """Start every provider. If one raises, stops all and raises the same."""
        self._running = True
        self._changes.open()
        try:
            for source in self._sources:
                if self._running:
                    source.start()
        except BaseException:
            self.stop()
            raise
        if not self._running:
            # Another thread stopped it, perhaps before the last provider was started.
            self.stop()

    def stop(self) -> None:
        """Stop every provider, also while they start. The last books stay readable."""
        self._running = False
        for source in self._sources:
            source.stop()
        self._changes.close()

    def standard_symbol(self, name: str) -> str:
        """The standard name of a base asset (`BTC`) or a pair in the common quote (`BTCUSDT`, `BTC-USDT`)."""
        return self._names.resolve(name).symbol

    def on_snapshot(self, callback: OnSnapshot) -> None:
        """Call `callback` with the newest book of each symbol that changed on an exchange."""
        super().on_snapshot(callback)
        self._listen()

    def on_status(self, callback: OnStatus) -> None:
        super().on_status(callback)
        self._listen()

    def updates(self, *symbols: str) -> AsyncIterator[Update]:
        self._listen()
        return super().updates(*symbols)

    def get_connection_status(self) -> ConnectionStatus:
        """`connected` and `thread_alive` if all providers are; the errors of all, and the status of every symbol."""
        found = [source.get_connection_status() for source in self._sources]
        return ConnectionStatus(
            is_running=self._running and any(status.is_running for status in found),
            connected=all(status.connected for status in found),
            thread_alive=all(status.thread_alive for status in found),
            reconnect_count=sum(status.reconnect_count for status in found),
            feeder_reconnects=sum(status.feeder_reconnects for status in found),
            # Several providers see the same clock.
            clock_jumps=max((status.clock_jumps for status in found), default=0),
            error="; ".join(dict.fromkeys(status.error for status in found if status.error)),
            symbols=self._statuses(),
        )

    def _observe(self, symbol: str) -> Observation:
        asset = self._assets.get(symbol)
        if asset is None:
            return Observation(error=f"{symbol} is not among the symbols this provider follows")
        return asset.observe()

    def _counts(self, symbol: str) -> Counts:
        asset = self._assets.get(symbol)
        if asset is None:
            return Counts()
        found = [venue.provider.status(venue.symbol_of(asset.instrument.base)) for venue in self._venues]
        return Counts(*(sum(getattr(status, name) for status in found) for name in Counts.__struct_fields__))

    def _asset(self, name: str) -> ConsolidatedAsset:
        symbol = self.standard_symbol(name)
        try:
            return self._assets[symbol]
        except KeyError:
            raise SymbolError(f"{symbol} is not among the symbols this provider follows") from None

    def _listen(self) -> None:
        """Register for changes of the providers when the first listener is added."""
        try:
            sources = self._not_listening.pop()
        except IndexError:
            return
        try:
            for source in sources:
                source.on_snapshot(self._on_snapshot)
                source.on_status(self._on_status)
        except BaseException:
            self._not_listening.append(sources)
            raise

    def _on_snapshot(self, snapshot: OrderBookSnapshot) -> None:
        for symbol in self._affected.get(snapshot.symbol, ()):
            self._changes.publish(symbol)

    def _on_status(self, update: Update) -> None:
        for symbol in self._affected.get(update.snapshot.symbol, ()):
            self._changes.publish(symbol, 0)


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
    """A MultiExchangeProvider over one new provider per exchange, each with only the books that are needed.

    `fx` is written `exchange:symbol`; its book is read only if a quote has to be converted. Raises ValueError for
    invalid arguments.
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


def base_assets(names: Iterable[str], quote: str) -> list[str]:
    """The named base assets, each written alone (`BTC`) or as a pair in `quote`. Raises SymbolError."""
    bases = list(dict.fromkeys(_base_asset(name.strip().upper(), Exchange(EXCHANGE, quote)) for name in names))
    if not bases:
        raise ValueError("no symbols asked for")
    return bases


def _base_asset(name: str, exchange: Exchange) -> str:
    try:
        instrument = guess_instrument(exchange, name)
    except UncertainSymbolError:
        if name.endswith(exchange.home_quote):
            raise
        return name  # an asset whose name looks like a pair: WBTC, RLUSD
    if instrument.quote == exchange.home_quote:
        return instrument.base
    if "-" in name:
        raise SymbolError(f"{name}: the common quote currency is {exchange.home_quote}; give the base asset alone")
    return name


def _venues(
    providers: Mapping[str, MarketDataProvider], fees: Mapping[str, float], quote: str, fx: FxSource | None
) -> list[ExchangeSource]:
    """Each exchange in its home quote. Raises ValueError if a quote cannot be converted."""
    venues = [
        ExchangeSource(exchange, provider, exchange_of(exchange).home_quote, fees[exchange])
        for exchange, provider in providers.items()
    ]
    for venue in venues:
        if venue.quote == quote:
            continue
        if fx is None:
            raise ValueError(f"{venue.exchange} quotes in {venue.quote}: name the exchange rate to {quote}")
        if not links(fx.symbol, venue.quote, quote):
            raise ValueError(f"{venue.exchange} quotes in {venue.quote}: {fx.symbol} is no rate from that to {quote}")
    return venues


def _registry(bases: Iterable[str], quote: str) -> InstrumentRegistry:
    exchange = Exchange(EXCHANGE, quote)
    instruments = [Instrument(EXCHANGE, base, quote, exchange.native(base, quote)) for base in bases]
    return InstrumentRegistry(exchange, instruments, offline=True)


def _affected(
    assets: Iterable[ConsolidatedAsset], venues: Iterable[ExchangeSource], fx: FxSource | None
) -> dict[str, set[str]]:
    """By symbol of an exchange's book: the consolidated symbols that change with it."""
    affected: dict[str, set[str]] = {}
    for asset in assets:
        for venue in venues:
            names = [venue.symbol_of(asset.instrument.base)]
            if fx is not None and venue.quote != asset.instrument.quote:
                names.append(fx.symbol)
            for name in names:
                affected.setdefault(name, set()).add(asset.instrument.symbol)
    return affected
