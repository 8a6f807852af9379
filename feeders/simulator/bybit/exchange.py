"""A local Bybit spot exchange: WebSocket and REST on loopback, faults and the truth beside them."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any

from bookbus.feeders.simulator.background import Background
from bookbus.feeders.simulator.bybit.feed import DEPTH, BybitFeed
from bookbus.feeders.simulator.bybit.rest import BybitRest
from bookbus.feeders.simulator.bybit.settings import BybitSettings, bybit_settings
from bookbus.feeders.simulator.bybit_clients import BybitClients
from bookbus.feeders.simulator.bybit_streams import BybitStreams
from bookbus.feeders.simulator.core.exchange import VenueSimulator
from bookbus.feeders.simulator.core.faults import Fault, FaultBoard, FaultError
from bookbus.feeders.simulator.core.feed import FLUSHES_PER_SECOND, STEPS_PER_FLUSH, LiveFeed
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse
from bookbus.feeders.simulator.frame_faults import FRAME_FAULTS
from bookbus.feeders.simulator.instruments import SimulatedInstrument, instruments
from bookbus.feeders.simulator.prepared import PreparedFeed
from bookbus.schemas.instruments import EXCHANGES

_AT_A_TIME = 32
"""Symbols between two looks at the sockets."""

# No shutdown is announced here, no snapshot asked for.
_UNKNOWN_FAULTS = ("server_shutdown", "stale_snapshot", "empty_snapshot")
_FRAME_FAULTS = {kind: play for kind, play in FRAME_FAULTS.items() if kind != "clock_skew"}


class BybitSimulator(VenueSimulator[BybitFeed]):
    """`async with BybitSimulator(symbols=("BTCUSDT",), seed=1) as exchange:` — options as in BybitSettings."""

    def __init__(
        self,
        symbols: Iterable[str] | int = ("BTCUSDT", "ETHUSDT"),
        settings: BybitSettings | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings = settings or bybit_settings(symbols, **options)
        faults = FaultBoard(time.monotonic, _FRAME_FAULTS)
        background = Background()
        feeds = {
            instrument.native: _create_feed(instrument, settings)
            for instrument in instruments(settings.symbols, EXCHANGES["bybit"])
        }
        self._streams = BybitStreams(feeds, faults, _now_ms)
        self._bybit_clients = BybitClients(settings, self._streams, faults, background)
        self._rest = BybitRest(feeds, settings.rest_delay, faults)
        super().__init__((settings.host, settings.rest_port), feeds, faults, background, self._bybit_clients)

    def status(self) -> dict[str, object]:
        """Connections, counts, what has been played."""
        statuses = {str(status): count for status, count in self._rest.statuses.items()}
        return {**super().status(), **self._bybit_clients.status(), "rest_statuses": statuses}

    def inject(self, fault: Fault) -> None:
        """Play a fault now, or let it wait for what it strikes. Raises FaultError."""
        if fault.kind in _UNKNOWN_FAULTS:
            raise FaultError(f"this exchange knows no {fault.kind!r}")
        if fault.stream != "depth":
            raise FaultError("only messages of books can be spoiled here")
        super().inject(fault)

    async def _answer_request(self, request: HttpRequest) -> HttpResponse:
        return await self._rest.answer(request)

    async def _step(self, step: int, time_us: int) -> None:
        flushes = step % STEPS_PER_FLUSH == 0
        for position, feed in enumerate(self._feeds.values(), 1):
            self._streams.publish_trades(feed, feed.step())
            if flushes and feed.flush():
                self._streams.publish_book(feed)
            if position % _AT_A_TIME == 0:
                self._bybit_clients.send_queued()
                await asyncio.sleep(0)
        self._bybit_clients.send_queued()

    def _restart(self) -> None:
        # Connections stay: a snapshot with the lowest id tells of it.
        for feed in self._feeds.values():
            feed.restart()
            self._streams.publish_restart(feed)
        self._bybit_clients.send_queued()


def _create_feed(instrument: SimulatedInstrument, settings: BybitSettings) -> BybitFeed:
    slots = round(settings.prepared * FLUSHES_PER_SECOND)
    live = LiveFeed(
        instrument,
        seed=settings.seed,
        rate=settings.rate,
        changes=settings.changes,
        levels=settings.levels,
        truth_depth=DEPTH,
        truth_flushes=max(settings.truth_flushes, slots + 1),
    )
    market = PreparedFeed(live, slots, _without_text, settings.truth_flushes) if slots else live
    return BybitFeed(market, settings.truth_flushes)


def _without_text(*_: object) -> str:
    """What a topic sends depends on its depth: nothing of it can be written beforehand."""
    return ""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


SIMULATOR, SETTINGS = BybitSimulator, BybitSettings
