"""A local Upbit: WebSocket and REST on loopback, faults and the truth beside them."""

import asyncio
import time
from collections.abc import Iterable
from random import Random
from typing import Any, get_args

from bookbus.feeders.simulator.background import Background
from bookbus.feeders.simulator.core.exchange import VenueSimulator
from bookbus.feeders.simulator.core.faults import ControlFaultKind, Fault, FaultBoard, FaultError
from bookbus.feeders.simulator.core.feed import FLUSHES_PER_SECOND, STEPS_PER_FLUSH, LiveFeed
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse
from bookbus.feeders.simulator.instruments import SimulatedInstrument, instruments
from bookbus.feeders.simulator.upbit.faults import UPBIT_FRAME_FAULTS
from bookbus.feeders.simulator.upbit.feed import DEPTH, LiveSource, PreparedSource, UpbitFeed
from bookbus.feeders.simulator.upbit.rest import UpbitRest
from bookbus.feeders.simulator.upbit.settings import UpbitSettings, upbit_settings
from bookbus.feeders.simulator.upbit_clients import UpbitClients
from bookbus.feeders.simulator.upbit_streams import UpbitStreams
from bookbus.schemas.instruments import EXCHANGES

_AT_A_TIME = 32
"""Symbols between two looks at the sockets."""

# Nothing is acknowledged here, no shutdown announced, no snapshot asked for.
_UNKNOWN_FAULTS = {*get_args(ControlFaultKind), "server_shutdown", "stale_snapshot", "empty_snapshot"} - {
    "subscribe_ignored",
    "ack_error",
}


class UpbitSimulator(VenueSimulator[UpbitFeed]):
    """`async with UpbitSimulator(symbols=("KRW-BTC",), seed=1) as exchange:` — options as in UpbitSettings."""

    def __init__(
        self,
        symbols: Iterable[str] | int = ("KRW-BTC", "KRW-ETH", "BTC-ETH"),
        settings: UpbitSettings | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings = settings or upbit_settings(symbols, **options)
        faults = FaultBoard(time.monotonic, UPBIT_FRAME_FAULTS, binary=True)
        background = Background()
        feeds = {
            instrument.native: _create_feed(instrument, settings)
            for instrument in instruments(settings.symbols, EXCHANGES["upbit"])
        }
        dice = Random(f"{settings.seed}:streams")  # noqa: S311
        self._streams = UpbitStreams(feeds, faults, background.call_later, settings.rules.first_frames, dice)
        self._upbit_clients = UpbitClients(settings, self._streams, faults, background)
        self._rest = UpbitRest(feeds, settings, faults)
        self._phases = {native: Random(f"phase:{native}").randrange(STEPS_PER_FLUSH) for native in feeds}  # noqa: S311
        """Each market has its own place in the grid."""
        super().__init__((settings.host, settings.rest_port), feeds, faults, background, self._upbit_clients)

    def status(self) -> dict[str, object]:
        """Connections, counts, what has been played."""
        statuses = {str(status): count for status, count in self._rest.statuses.items()}
        return {**super().status(), **self._upbit_clients.status(), "rest_statuses": statuses}

    def inject(self, fault: Fault) -> None:
        """Play a fault now, or let it wait for what it strikes. Raises FaultError."""
        if fault.kind in _UNKNOWN_FAULTS:
            raise FaultError(f"this exchange knows no {fault.kind!r}")
        super().inject(fault)

    async def _answer_request(self, request: HttpRequest) -> HttpResponse:
        return await self._rest.answer(request)

    async def _step(self, step: int, time_us: int) -> None:
        time_ms, phase = time_us // 1000, step % STEPS_PER_FLUSH
        for position, (native, feed) in enumerate(self._feeds.items(), 1):
            for trade in feed.step(time_ms):
                self._streams.publish_trade(feed, trade)
            if self._phases[native] == phase and feed.flush(time_ms):
                self._streams.publish_book(feed)
            if position % _AT_A_TIME == 0:
                self._upbit_clients.send_queued()
                await asyncio.sleep(0)
        self._upbit_clients.send_queued()

    def _restart(self) -> None:
        self._upbit_clients.drop_all()
        for feed in self._feeds.values():
            feed.restart(_now_ms())


def _create_feed(instrument: SimulatedInstrument, settings: UpbitSettings) -> UpbitFeed:
    slots = round(settings.prepared * FLUSHES_PER_SECOND)
    live = LiveFeed(
        instrument,
        seed=settings.seed,
        rate=0.0 if instrument.native in settings.quiet else settings.rate,
        changes=settings.changes,
        levels=settings.levels,
        truth_depth=DEPTH,
        truth_flushes=max(settings.truth_flushes, slots + 1),
    )
    source = PreparedSource(live, slots) if slots else LiveSource(live)
    return UpbitFeed(source, _now_ms(), settings.truth_flushes)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


SIMULATOR, SETTINGS = UpbitSimulator, UpbitSettings
