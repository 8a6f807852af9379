"""A paper runner in simulated time, over books that a test sets."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from bookbus.consumers.paper.kpi import Kpi
from bookbus.consumers.paper.market import Market, ProviderMarket
from bookbus.consumers.paper.runner import Stop, run_live
from bookbus.consumers.paper.settings import RunSettings
from bookbus.schemas.instruments import InstrumentRegistry
from tests.support.stub_provider import StubProvider

BEGAN = 1_700_000_000.0
SYMBOL = "BTC-USDT"


class World:
    """Runs the actions planned with `at(seconds, action)`; books stay confirmed unless an action ages them."""

    def __init__(self, directory: Path, exchange: str = "binance") -> None:
        self.directory = directory
        self.provider = StubProvider(exchange)
        self.stop = Stop()
        self.boottime = 0.0
        self._plan: list[tuple[float, Callable[[], object]]] = []

    def put(self, bid: float, ask: float, quantity: float = 1.0, symbol: str = SYMBOL) -> None:
        """Set a book of three levels per side."""
        self.provider.put(
            symbol,
            tuple((bid - step, quantity) for step in range(3)),
            tuple((ask + step, quantity) for step in range(3)),
        )

    def at(self, seconds: float, action: Callable[[], object]) -> None:
        """Run `action` that many seconds after the start."""
        self._plan.append((seconds, action))
        self._plan.sort(key=lambda planned: planned[0])

    def run(
        self,
        settings: RunSettings,
        market: Market | None = None,
        listed: Mapping[str, InstrumentRegistry] = MappingProxyType({}),
    ) -> Kpi:
        """Run to the end. Returns the figures."""
        market = market or ProviderMarket(self.provider, self.provider.exchange, settings.fees)
        return run_live(
            settings,
            market,
            self.directory,
            self.stop,
            lambda _: None,
            listed=listed,
            clock=lambda: BEGAN + self.boottime,
            wait=self._wait,
        )

    def fills(self) -> list[dict[str, Any]]:
        """The fill events of the only run."""
        return self._lines("fill_events")

    def decisions(self) -> list[dict[str, Any]]:
        """Its decisions."""
        return self._lines("decisions")

    def markouts(self) -> dict[str, dict[str, Any]]:
        """Its markouts, by order."""
        found: dict[str, dict[str, Any]] = {}
        for line in self._lines("markouts"):
            found.setdefault(line["order_id"], {}).update(line)
        return found

    def _lines(self, name: str) -> list[dict[str, Any]]:
        (path,) = self.directory.glob(f"{name}_*.jsonl")
        return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]

    def _wait(self, seconds: float) -> None:
        # In whole milliseconds, so that steps fall on the times that tests name.
        self.boottime = round(self.boottime + seconds, 3)
        while self._plan and self._plan[0][0] <= self.boottime:
            self._plan.pop(0)[1]()
