"""The exchange's list of markets, and those of them that are wanted now."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bookbus.feeders.metadata import MetadataSource
from bookbus.feeders.symbol_selection import SymbolSelection
from bookbus.schemas.instruments import Instrument, InstrumentRegistry, SymbolError


@dataclass(slots=True)
class Markets:
    """`chosen` is what the selection stood for at the start."""

    source: MetadataSource
    selection: SymbolSelection
    registry: InstrumentRegistry
    chosen: list[Instrument]

    @classmethod
    async def load(cls, source: MetadataSource, selection: SymbolSelection) -> "Markets":
        """Ask the exchange. Raises SymbolError for a name it does not know, RestError if it has to be asked in vain."""
        registry = await source.registry()
        chosen = selection.choose(registry, await _turnover(source, selection))
        if not chosen:
            raise SymbolError(
                f"shard {selection.shard} has none of these symbols: make fewer shards or name more symbols"
            )
        return cls(source, selection, registry, chosen)

    async def refresh(self, natives: Sequence[str]) -> tuple[list[Instrument], list[str]]:
        """Ask again: what is wanted and not among `natives`, and which of those no longer trade.

        Raises RestError, MetadataError or SymbolError, and then nothing has changed.
        """
        listed = InstrumentRegistry(self.registry.exchange, await self.source.instruments())
        # Named markets stay whatever the list says: one that left it must not keep the new ones out.
        rules = replace(self.selection, names=())
        named = {self.registry.resolve(name).native for name in self.selection.names}
        chosen = rules.choose(listed, await _turnover(self.source, rules))
        self.registry.learn(listed.all())
        known = set(natives)
        added = [instrument for instrument in chosen if instrument.native not in known]
        return added, rules.gone([native for native in natives if native not in named], listed)


async def _turnover(source: MetadataSource, selection: SymbolSelection) -> dict[str, float]:
    return await source.venue.fetch_turnover(source.rest) if selection.needs_turnover else {}
