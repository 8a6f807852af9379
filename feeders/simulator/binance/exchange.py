"""A local Binance spot exchange: WebSocket and REST on loopback, faults and the truth beside them."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from bookbus.feeders.simulator.background import Background
from bookbus.feeders.simulator.binance.messages import depth_body
from bookbus.feeders.simulator.binance.rest import BinanceRest
from bookbus.feeders.simulator.binance.settings import SimulatorSettings, simulator_settings
from bookbus.feeders.simulator.binance_clients import BinanceClients
from bookbus.feeders.simulator.binance_streams import StreamHub
from bookbus.feeders.simulator.core.exchange import VenueSimulator
from bookbus.feeders.simulator.core.faults import FaultBoard
from bookbus.feeders.simulator.core.feed import FLUSHES_PER_SECOND, STEPS_PER_FLUSH, Feed, LiveFeed
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse
from bookbus.feeders.simulator.instruments import SimulatedInstrument, instruments
from bookbus.feeders.simulator.prepared import PreparedFeed

_AT_A_TIME = 32
"""Symbols between two looks at the sockets."""


class BinanceSimulator(VenueSimulator[Feed]):
    """`async with BinanceSimulator(symbols=("BTCUSDT",), seed=1) as exchange:` — options as in SimulatorSettings."""

    def __init__(
        self,
        symbols: Iterable[str] | int = ("BTCUSDT", "ETHUSDT"),
        settings: SimulatorSettings | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings = settings or simulator_settings(symbols, **options)
        faults = FaultBoard(time.monotonic)
        background = Background()
        feeds = {instrument.native: self._create_feed(instrument) for instrument in instruments(settings.symbols)}
        self._hub = StreamHub(faults)
        self._binance_clients = BinanceClients(settings, self._hub, faults, background)
        self._rest = BinanceRest(feeds, settings, faults)
        super().__init__((settings.host, settings.rest_port), feeds, faults, background, self._binance_clients)

    def status(self) -> dict[str, object]:
        """Connections, counts, what has been played."""
        return {
            **super().status(),
            **self._binance_clients.status(),
            "weight_used": self._rest.weight.used,
            "weight_highest": self._rest.weight.highest,
            "weight_total": self._rest.weight.total,
            "rest_statuses": {str(status): count for status, count in self._rest.statuses.items()},
        }

    async def _answer_request(self, request: HttpRequest) -> HttpResponse:
        return await self._rest.answer(request)

    def _restart(self) -> None:
        """The exchange comes back with lower ids and other books; nobody is connected any more."""
        self._binance_clients.drop_all()
        self._hub.forget_flushes()
        for feed in self._feeds.values():
            feed.restart()

    async def _step(self, step: int, time_us: int) -> None:
        flushes = step % STEPS_PER_FLUSH == 0
        on_second = step % (STEPS_PER_FLUSH * FLUSHES_PER_SECOND) == 0
        for position, feed in enumerate(list(self._feeds.values()), 1):
            self._hub.publish_step(feed, feed.step(), time_us)
            if flushes:
                self._hub.publish_flush(feed, feed.flush(), time_us, on_second=on_second)
            if position % _AT_A_TIME == 0:
                self._binance_clients.send_queued()
                await asyncio.sleep(0)
        self._binance_clients.send_queued()

    def _create_feed(self, instrument: SimulatedInstrument) -> Feed:
        settings = self.settings
        slots = round(settings.prepared * FLUSHES_PER_SECOND)
        live = LiveFeed(
            instrument,
            seed=settings.seed,
            rate=settings.rate,
            changes=settings.changes,
            levels=settings.levels,
            truth_depth=settings.truth_depth,
            truth_flushes=max(settings.truth_flushes, slots + 1),
        )
        return PreparedFeed(live, slots, depth_body, settings.truth_flushes) if slots else live


SIMULATOR, SETTINGS = BinanceSimulator, SimulatorSettings
