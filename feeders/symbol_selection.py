"""Which markets a list of names, `all:QUOTE` and `top:N` stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bookbus.feeders.shard import WHOLE, Shard
from bookbus.schemas.instruments import Instrument, InstrumentRegistry, SymbolError

_MOST_DIGITS = 10
"""No exchange lists more markets; of thousands of digits Python makes no number."""


@dataclass(frozen=True, slots=True)
class SymbolSelection:
    """Names, and rules that may choose other markets tomorrow: `all:USDT`, `top:50`, `top:50:BTC`."""

    names: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    """Quote assets of which every market is wanted."""
    top: tuple[tuple[int, str | None], ...] = ()
    """How many of the greatest turnover in one quote asset, None for the exchange's home quote."""
    shard: Shard = WHOLE
    """Which part of all these is wanted."""

    @property
    def follows_listings(self) -> bool:
        """Whether the exchange's list of markets decides."""
        return bool(self.all_of or self.top)

    @property
    def needs_turnover(self) -> bool:
        """Whether the exchange has to be asked which markets are the greatest."""
        return bool(self.top)

    def choose(self, registry: InstrumentRegistry, turnover: Mapping[str, float]) -> list[Instrument]:
        """The instruments, each once. `turnover` is in the quote asset, by native symbol. Raises SymbolError."""
        chosen = {instrument.native: instrument for instrument in map(registry.resolve, self.names)}
        open_markets = [instrument for instrument in registry.all() if _trades(instrument)]
        for quote in self.all_of:
            found = [instrument for instrument in open_markets if instrument.quote == quote]
            if not found:
                raise SymbolError(f"all:{quote}: {registry.exchange.id} lists no market in {quote}")
            chosen |= {instrument.native: instrument for instrument in found}
        for count, asked in self.top:
            wanted = asked or registry.exchange.home_quote
            ranked = sorted(
                (instrument for instrument in open_markets if instrument.quote == wanted),
                key=lambda instrument: turnover.get(instrument.native, 0.0),
                reverse=True,
            )
            if not ranked:
                raise SymbolError(f"top:{count}: {registry.exchange.id} lists no market in {wanted}")
            chosen |= {instrument.native: instrument for instrument in ranked[:count]}
        return [instrument for native, instrument in chosen.items() if self.shard.has(native)]

    def gone(self, natives: Sequence[str], registry: InstrumentRegistry) -> list[str]:
        """Which of these no longer trade. What was among the greatest once stays until then; named ones always do."""
        named = {registry.resolve(name).native for name in self.names}
        return [native for native in natives if native not in named and not _trades(registry.by_native(native))]


def _trades(instrument: Instrument | None) -> bool:
    return instrument is not None and instrument.status != "halted"


def parse_selection(parts: Sequence[str]) -> SymbolSelection:
    """What these words select. Raises SymbolError for a rule that makes no sense."""
    names: list[str] = []
    all_of: list[str] = []
    top: list[tuple[int, str | None]] = []
    for part in parts:
        rule, *arguments = part.split(":")
        match rule.lower(), arguments:
            case "all", [quote] if quote:
                all_of.append(quote.upper())
            case "top", [count] if _is_count(count):
                top.append((int(count), None))
            case "top", [count, quote] if _is_count(count) and quote:
                top.append((int(count), quote.upper()))
            case _, []:
                names.append(part)
            case _:
                raise SymbolError(f"{part!r}: write a symbol, all:USDT, top:50 or top:50:BTC")
    return SymbolSelection(tuple(names), tuple(all_of), tuple(top))


def _is_count(text: str) -> bool:
    return text.isdecimal() and len(text) < _MOST_DIGITS and int(text) > 0
