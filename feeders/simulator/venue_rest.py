"""What every local exchange's REST side does alike: faults, delays and a count of what was answered."""

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import replace

from bookbus.feeders.simulator.core.faults import Fault, FaultBoard
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse

_HANG = 60.0


class VenueRest(ABC):
    """A venue says what it answers, and how it refuses."""

    def __init__(self, faults: FaultBoard, delay: float) -> None:
        """`delay`: seconds between taking an answer from the books and sending it."""
        self._faults = faults
        self._delay = delay
        self.statuses: Counter[int] = Counter()

    @abstractmethod
    def _respond(self, request: HttpRequest) -> HttpResponse:
        """The answer when nothing goes wrong."""

    @abstractmethod
    def _faulty_status(self, fault: Fault) -> HttpResponse:
        """The answer to a request that fails with the status the fault names."""

    async def answer(self, request: HttpRequest) -> HttpResponse:
        """One request, faults included."""
        response = await self._spoiled(request, request.query.get("symbol", ""))
        self.statuses[response.status] += 1
        return response

    async def _spoiled(self, request: HttpRequest, symbol: str) -> HttpResponse:
        if fault := self._faults.strike("rest_timeout", symbol=symbol):
            return HttpResponse(0, hang=fault.number(_HANG))
        if fault := self._faults.strike("rest_status", symbol=symbol):
            return self._faulty_status(fault)
        response = self._respond(request)
        delay = self._delay
        if fault := self._faults.strike("rest_delay", symbol=symbol):
            delay += fault.number(1.0)
        if delay:
            await asyncio.sleep(delay)
        if self._faults.strike("rest_truncated", symbol=symbol):
            return replace(response, cut=True)
        return response
