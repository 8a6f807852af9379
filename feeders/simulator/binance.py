"""A local Binance spot exchange: WebSocket and REST on loopback, faults and the truth beside them."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from feeders.simulator.background import Background
from feeders.simulator.binance_clients import BinanceClients
from feeders.simulator.binance_messages import depth_body
from feeders.simulator.binance_rest import BinanceRest
from feeders.simulator.binance_streams import StreamHub
from feeders.simulator.control import answer_control
from feeders.simulator.faults import IMMEDIATE, Fault, FaultBoard, FaultError
from feeders.simulator.feed import FLUSHES_PER_SECOND, STEPS_PER_FLUSH, Feed, LiveFeed
from feeders.simulator.http_server import HttpRequest, HttpResponse, HttpServer
from feeders.simulator.instruments import SimulatedInstrument, instruments
from feeders.simulator.ladder import RawLevel
from feeders.simulator.prepared import PreparedFeed
from feeders.simulator.settings import SimulatorSettings, simulator_settings
from feeders.simulator.truth import BookAt
from schemas.snapshot import Levels

_STEP = 1.0 / (FLUSHES_PER_SECOND * STEPS_PER_FLUSH)
_AT_A_TIME = 32
"""Symbols between two looks at the sockets."""
_REFUSAL = 5.0
"""Seconds without connections unless the fault says how many."""
_TOO_LATE = 1.0
"""A market that is so many seconds behind skips what it missed."""


class BinanceSimulator:
    """`async with BinanceSimulator(symbols=("BTCUSDT",), seed=1) as exchange:` — options as in SimulatorSettings."""

    def __init__(
        self,
        symbols: Iterable[str] | int = ("BTCUSDT", "ETHUSDT"),
        settings: SimulatorSettings | None = None,
        **options: Any,
    ) -> None:
        self.settings = settings or simulator_settings(symbols, **options)
        self._faults = FaultBoard(time.monotonic)
        self._feeds: dict[str, Feed] = {
            instrument.native: self._create_feed(instrument) for instrument in instruments(self.settings.symbols)
        }
        self._hub = StreamHub(self._faults)
        self._background = Background()
        self._clients = BinanceClients(self.settings, self._hub, self._faults, self._background)
        self._rest = BinanceRest(self._feeds, self.settings, self._faults)
        self._http = HttpServer(self._answer)
        self._skipped = 0
        self._rest_port = 0

    @property
    def ws_url(self) -> str:
        """Base to which `/ws` and `/stream` are added."""
        return f"ws://{self.settings.host}:{self._clients.port}"

    @property
    def rest_url(self) -> str:
        """Base to which `/api/v3/…` and `/control/…` are added."""
        return f"http://{self.settings.host}:{self._rest_port}"

    @property
    def symbols(self) -> list[str]:
        """Native names of all markets."""
        return list(self._feeds)

    async def __aenter__(self) -> "BinanceSimulator":
        await self._clients.listen()
        self._rest_port = await self._http.start(self.settings.host, self.settings.rest_port)
        self._background.start(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._background.stop()
        finally:
            await self._clients.close()
            await self._http.close()

    def truth(self, symbol: str, update_id: int, depth: int = 20) -> tuple[Levels, Levels] | None:
        """True bids and asks at this id as a client holds them; None if not known. Raises KeyError for a symbol."""
        book = self.book_at(symbol, update_id)
        if book is None:
            return None
        return _levels(self.instrument(symbol), book.bids[:depth]), _levels(self.instrument(symbol), book.asks[:depth])

    def inject(self, fault: Fault) -> None:
        """Play a fault now, or let it wait for what it strikes. Raises FaultError."""
        if fault.every is not None:
            self._background.start(self._repeat(fault, fault.every))
        self._play(fault)

    def clear(self) -> None:
        """End all faults that last or wait."""
        self._faults.clear()
        self._clients.recover()

    def status(self) -> dict[str, object]:
        """Connections, counts, what has been played."""
        return {
            "symbols": len(self._feeds),
            **self._clients.status(),
            "weight_used": self._rest.weight.used,
            "weight_highest": self._rest.weight.highest,
            "rest_statuses": {str(status): count for status, count in self._rest.statuses.items()},
            "faults_played": dict(self._faults.played),
            "faults_waiting": [fault.kind for fault in self._faults.waiting()],
            "steps_skipped": self._skipped,
        }

    def book_at(self, symbol: str, update_id: int) -> BookAt | None:
        return self._feeds[symbol].truth(update_id)

    def known_ids(self, symbol: str, since: int) -> list[int]:
        return self._feeds[symbol].truth_ids(since)

    def instrument(self, symbol: str) -> SimulatedInstrument:
        return self._feeds[symbol].instrument

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        if request.path.startswith("/control/"):
            return answer_control(self, request)
        return await self._rest.answer(request)

    def _play(self, fault: Fault) -> None:
        match fault.kind:
            case "refuse_connections":
                self._faults.played[fault.kind] += 1
                self._clients.refuse(fault.seconds or _REFUSAL, politely=fault.value == "http")
            case "cold_restart":
                self._faults.played[fault.kind] += 1
                self._restart()
            case kind if kind in IMMEDIATE:
                self._clients.play(fault)
            case _:
                self._faults.add(fault)

    async def _repeat(self, fault: Fault, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            with suppress(FaultError):  # the connection it was meant for is gone
                self._play(fault)

    def _restart(self) -> None:
        """The exchange comes back with lower ids and other books; nobody is connected any more."""
        self._clients.drop_all()
        self._hub.forget_flushes()
        for feed in self._feeds.values():
            feed.restart()

    async def _run(self) -> None:
        """Keep the market moving on the wall clock's grid."""
        loop = asyncio.get_running_loop()
        grid_us = int(_STEP * 1_000_000)
        step = time.time_ns() // 1000 // grid_us + 1
        # Monotonic time at step 0, so that a wall clock that is set does not stop the market.
        origin = loop.time() - time.time_ns() / 1e9
        while True:
            late = loop.time() - origin - step * _STEP
            if late > _TOO_LATE:
                skipped = int(late / _STEP)
                self._skipped += skipped
                step += skipped
            await asyncio.sleep(max(0.0, -late))
            await self._step(step, step * grid_us)
            step += 1

    async def _step(self, step: int, time_us: int) -> None:
        flushes = step % STEPS_PER_FLUSH == 0
        on_second = step % (STEPS_PER_FLUSH * FLUSHES_PER_SECOND) == 0
        for position, feed in enumerate(list(self._feeds.values()), 1):
            self._hub.publish_step(feed, feed.step(), time_us)
            if flushes:
                self._hub.publish_flush(feed, feed.flush(), time_us, on_second=on_second)
            if position % _AT_A_TIME == 0:
                self._clients.send_queued()
                await asyncio.sleep(0)
        self._clients.send_queued()

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


def _levels(instrument: SimulatedInstrument, levels: list[RawLevel]) -> Levels:
    return tuple((instrument.price(ticks), instrument.quantity(steps)) for ticks, steps in levels)


SIMULATOR, SETTINGS = BinanceSimulator, SimulatorSettings
