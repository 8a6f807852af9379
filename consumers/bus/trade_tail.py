"""Trades as readers take them, wherever they come from."""

from typing import Protocol, runtime_checkable

from bookbus.schemas.trade import Trade


class TradeTail(Protocol):
    """The trades of one symbol from the moment it was made; each of them once, in the exchange's order."""

    def take(self) -> list[Trade]:
        """Those that came since the last call; never raises for data trouble."""

    @property
    def trouble(self) -> str:
        """Why there may be trades that did not come; empty if nothing is known to be wrong."""


@runtime_checkable
class TradeSource(Protocol):
    """A provider that has trades as well as books."""

    def trades(self, symbol: str) -> TradeTail:
        """The trades of a symbol from now on. Every caller gets its own tail."""
