"""What every local exchange does alike: serve, move its markets on a grid, play faults, know the truth."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Generic, Protocol, Self, TypeVar

from bookbus.feeders.simulator.core.faults import IMMEDIATE, Fault, FaultBoard, FaultError
from bookbus.feeders.simulator.core.feed import FLUSHES_PER_SECOND, STEPS_PER_FLUSH, BookAt
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, HttpServer, answer_control
from bookbus.feeders.simulator.core.market import RawLevel, SimulatedInstrument
from bookbus.feeders.simulator.core.websocket_server import Background, VenueClients
from bookbus.schemas.snapshot import Levels

STEP = 1.0 / (FLUSHES_PER_SECOND * STEPS_PER_FLUSH)
"""Seconds between two moves of the markets."""

_REFUSAL = 5.0
"""Seconds without connections unless the fault says how many."""
_TOO_LATE = 1.0
"""A market that is so many seconds behind skips what it missed."""


class VenueFeed(Protocol):
    """One market as the control endpoint sees it."""

    instrument: SimulatedInstrument

    def truth(self, update_id: int) -> BookAt | None:
        """The true book at this id; None if it is not known."""

    def truth_ids(self, since: int) -> list[int]:
        """Every id from this one on whose truth is remembered."""


FeedT = TypeVar("FeedT", bound=VenueFeed)


class VenueSimulator(ABC, Generic[FeedT]):
    """`async with` serves; a venue says what happens at a step, at a restart and on a request."""

    def __init__(
        self,
        address: tuple[str, int],
        feeds: Mapping[str, FeedT],
        faults: FaultBoard,
        background: Background,
        clients: VenueClients[Any],
    ) -> None:
        """`address`: host and port of the REST side; the clients know their own."""
        self._host, self._rest_port = address
        self._feeds = feeds
        self._faults = faults
        self._background = background
        self._clients = clients
        self._http = HttpServer(self._answer)
        self._skipped = 0

    @abstractmethod
    async def _answer_request(self, request: HttpRequest) -> HttpResponse:
        """The venue's own REST side."""

    @abstractmethod
    async def _step(self, step: int, time_us: int) -> None:
        """Move every market by one step of the grid."""

    @abstractmethod
    def _restart(self) -> None:
        """The exchange comes back with lower ids and other books; whether connections survive is its own affair."""

    @property
    def ws_url(self) -> str:
        """Base address of the sockets."""
        return f"ws://{self._host}:{self._clients.port}"

    @property
    def rest_url(self) -> str:
        """Base address of requests, those to the control endpoint included."""
        return f"http://{self._host}:{self._rest_port}"

    @property
    def symbols(self) -> list[str]:
        """Native names of all markets."""
        return list(self._feeds)

    async def __aenter__(self) -> Self:
        await self._clients.listen()
        self._rest_port = await self._http.start(self._host, self._rest_port)
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
        book, instrument = self.book_at(symbol, update_id), self.instrument(symbol)
        return book and (_levels(instrument, book.bids[:depth]), _levels(instrument, book.asks[:depth]))

    def inject(self, fault: Fault) -> None:
        """Play a fault now, or let it wait for what it strikes. Raises FaultError."""
        self._play(fault)
        if fault.every is not None:
            self._background.start(self._repeat(fault, fault.every))

    def clear(self) -> None:
        """End all faults that last or wait."""
        self._faults.clear()
        self._clients.recover()

    def status(self) -> dict[str, object]:
        """Counts, and what has been played."""
        return {
            "symbols": len(self._feeds),
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
        return await self._answer_request(request)

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

    async def _run(self) -> None:
        """Keep the markets moving on the wall clock's grid."""
        loop = asyncio.get_running_loop()
        grid_us = int(STEP * 1_000_000)
        step = time.time_ns() // 1000 // grid_us + 1
        # Monotonic time at step 0, so that a wall clock that is set does not stop the market.
        origin = loop.time() - time.time_ns() / 1e9
        while True:
            late = loop.time() - origin - step * STEP
            if late > _TOO_LATE:
                skipped = int(late / STEP)
                self._skipped += skipped
                step += skipped
            await asyncio.sleep(max(0.0, -late))
            await self._step(step, step * grid_us)
            step += 1


def _levels(instrument: SimulatedInstrument, levels: list[RawLevel]) -> Levels:
    return tuple((instrument.price(ticks), instrument.quantity(steps)) for ticks, steps in levels)
