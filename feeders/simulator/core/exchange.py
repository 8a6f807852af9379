"""Base of every simulated exchange: it serves, moves its markets on a grid, plays faults, and reports the truth."""

import asyncio
import time
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, ClassVar, Generic, Self, TypeVar

import msgspec

from bookbus.feeders.simulator.core.faults import ANY_FRAME_FAULTS, Fault, FaultBoard, FaultError, FrameFaults
from bookbus.feeders.simulator.core.feed import STEPS_PER_FLUSH, BookAt, MarketFeed, WholeBookMarket
from bookbus.feeders.simulator.core.http_server import HttpRequest, HttpResponse, HttpServer, RestApi, json_response
from bookbus.feeders.simulator.core.market import RawLevel, SimulatedInstrument, instruments
from bookbus.feeders.simulator.core.settings import FLUSHES_PER_SECOND, SimulatorSettings
from bookbus.feeders.simulator.core.websocket_server import Background, WebSocketServer
from bookbus.schemas.instruments import EXCHANGES
from bookbus.schemas.snapshot import Levels

STEP = 1.0 / (FLUSHES_PER_SECOND * STEPS_PER_FLUSH)
"""Seconds between two moves of the markets."""

_REFUSAL = 5.0
"""Seconds without connections unless the fault says how many."""
_TOO_LATE = 1.0
"""Seconds behind the clock after which a market skips the missed steps."""
_AT_A_TIME = 32
"""Markets moved before other tasks get a turn."""

_decode_fault = msgspec.json.Decoder(Fault).decode


SettingsT = TypeVar("SettingsT", bound=SimulatorSettings)
MarketT = TypeVar("MarketT", bound=MarketFeed | WholeBookMarket)


class Timeline:
    """The times at which the update id of one market changed: at least the last `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Time and id of the first change, time and id of the second, …
        self._changes = array("q")

    def record(self, update_id: int, time_us: int) -> None:
        """Add a change, unless the id is the same as before."""
        changes = self._changes
        if changes and changes[-1] == update_id:
            return
        changes.extend((time_us, update_id))
        if len(changes) > 4 * self._limit:
            del changes[: 2 * self._limit]

    def since(self, time_us: int) -> list[tuple[int, int]]:
        """Time and id of the last change up to `time_us`, and of every later one."""
        changes = list(zip(self._changes[::2], self._changes[1::2], strict=True))
        later = next((index for index, (at, _) in enumerate(changes) if at > time_us), len(changes))
        return changes[max(0, later - 1) :]


class ExchangeSimulator(ABC, Generic[SettingsT, MarketT]):
    """`async with` serves, on loopback by default. An exchange adds its parts, named by the class variables."""

    EXCHANGE: ClassVar[str]
    SETTINGS: ClassVar[type[SimulatorSettings]]
    STREAMS: ClassVar[type[WebSocketServer[Any, Any]]]
    REST: ClassVar[type[RestApi[Any]]]
    FRAME_FAULTS: ClassVar[FrameFaults] = ANY_FRAME_FAULTS
    """The faults that its messages can have, by kind."""
    IMPOSSIBLE_FAULTS: ClassVar[frozenset[str]] = frozenset({"market_warning"})
    """Other kinds that cannot happen on this exchange."""

    settings: SettingsT

    def __init__(
        self, symbols: Iterable[str] | int | None = None, settings: SettingsT | None = None, **options: Any
    ) -> None:
        """`options` are fields of the exchange's settings. Raises TypeError or ValueError for wrong ones."""
        if symbols is not None:
            options["symbols"] = symbols if isinstance(symbols, int) else tuple(symbols)
        chosen: Any = settings or self.SETTINGS(**options)
        self.settings = chosen
        self._faults = FaultBoard(
            time.monotonic, self.FRAME_FAULTS, impossible=self.IMPOSSIBLE_FAULTS, binary=self.STREAMS.BINARY
        )
        self._background = Background()
        self._markets = {
            instrument.native: self._create_market(instrument)
            for instrument in instruments(chosen.symbols, EXCHANGES[self.EXCHANGE])
        }
        self._timelines = {native: Timeline(chosen.truth_flushes) for native in self._markets}
        self._streams = self.STREAMS(chosen, self._markets, self._faults, self._background)
        self._rest = self.REST(chosen, self._markets, self._faults)
        self._http = HttpServer(self._answer)
        self._rest_port = chosen.rest_port
        self._skipped = 0

    @abstractmethod
    def _create_market(self, instrument: SimulatedInstrument) -> MarketT:
        """One market as the settings want it."""

    @property
    def ws_url(self) -> str:
        """Base address of the WebSocket side."""
        return f"ws://{self.settings.host}:{self._streams.port}"

    @property
    def rest_url(self) -> str:
        """Base address of requests, those to the control endpoint included."""
        return f"http://{self.settings.host}:{self._rest_port}"

    @property
    def symbols(self) -> list[str]:
        return list(self._markets)

    async def __aenter__(self) -> Self:
        await self._streams.listen()
        self._rest_port = await self._http.start(self.settings.host, self._rest_port)
        self._background.start(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._background.stop()
        finally:
            await self._streams.close()
            await self._http.close()

    def instrument(self, symbol: str) -> SimulatedInstrument:
        """Raises KeyError for an unknown symbol."""
        return self._markets[symbol].instrument

    def truth(self, symbol: str, update_id: int, depth: int = 20) -> tuple[Levels, Levels] | None:
        """True bids and asks at this id as a client holds them; None if not remembered.

        Raises KeyError for an unknown symbol.
        """
        book, instrument = self._markets[symbol].truth(update_id), self.instrument(symbol)
        return book and (_levels(instrument, book.bids[:depth]), _levels(instrument, book.asks[:depth]))

    def known_ids(self, symbol: str, since: int) -> list[int]:
        """Ids from this one on whose true book is remembered. Raises KeyError for an unknown symbol."""
        return self._markets[symbol].truth_ids(since)

    def timeline(self, symbol: str, since_us: int = 0) -> list[tuple[int, int]]:
        """Times (microseconds since 1970) at which the update id changed, and the new ids, oldest first.

        It begins with the last change up to `since_us`. Raises KeyError for an unknown symbol.
        """
        return self._timelines[symbol].since(since_us)

    def check_fault(self, fault: Fault) -> None:
        self._faults.check(fault)

    def inject(self, fault: Fault) -> None:
        """Play a fault now, or let it wait for a message or request that it matches. Raises FaultError."""
        self.check_fault(fault)
        self._play(fault)
        if fault.every is not None:
            self._background.start(self._repeat(fault, fault.every))

    def clear(self) -> None:
        """End all faults that last or wait."""
        self._faults.clear()
        self._streams.recover()

    def status(self) -> dict[str, object]:
        """Connections, requests, and faults played."""
        return {
            "symbols": len(self._markets),
            "faults_played": dict(self._faults.played),
            "faults_waiting": [fault.kind for fault in self._faults.waiting()],
            "steps_skipped": self._skipped,
            **self._streams.status(),
            **self._rest.status(),
        }

    def _play(self, fault: Fault) -> None:
        match fault.kind:
            case "refuse_connections":
                self._faults.played[fault.kind] += 1
                self._streams.refuse(fault.seconds or _REFUSAL, politely=fault.value == "http")
            case "halt" | "market_warning":
                self._mark(fault, self._faults.halted if fault.kind == "halt" else self._faults.warned)
            case "cold_restart":
                self._faults.played[fault.kind] += 1
                self._streams.restart()
            case _ if fault.acts_at_once:
                self._streams.play(fault)
            case _:
                self._faults.add(fault)

    def _mark(self, fault: Fault, marked: dict[str, str]) -> None:
        """Halt markets, or warn of them, for `seconds` or until `clear`. Raises FaultError for unknown symbols."""
        symbols = fault.symbols or tuple(self._markets)
        if unknown := [symbol for symbol in symbols if symbol not in self._markets]:
            raise FaultError(f"unknown symbols: {', '.join(unknown)}")
        self._faults.played[fault.kind] += 1
        marked.update(dict.fromkeys(symbols, "" if fault.value is None else str(fault.value)))
        if fault.seconds is not None:
            self._background.call_later(fault.seconds, lambda: _unmark(marked, symbols))

    async def _repeat(self, fault: Fault, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            with suppress(FaultError):  # the connection that it names is gone
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
            for position, (native, market) in enumerate(self._markets.items(), 1):
                if native not in self._faults.halted:
                    self._streams.step(market, step, step * grid_us)
                self._timelines[native].record(market.flushed_id, time.time_ns() // 1000)
                if position % _AT_A_TIME == 0:
                    self._streams.send_queued()
                    await asyncio.sleep(0)
            self._streams.send_queued()
            step += 1

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        if not request.path.startswith("/control/"):
            return await self._rest.answer(request)
        try:
            return self._answer_control(request)
        except KeyError as error:
            return _error(404, f"unknown symbol or missing parameter: {error}")
        except (FaultError, ValueError, msgspec.MsgspecError) as error:
            return _error(400, str(error))

    def _answer_control(self, request: HttpRequest) -> HttpResponse:
        match request.method, request.path:
            case "GET", "/control/status":
                return json_response(self.status())
            case "GET", "/control/truth":
                return self._answer_truth(request.query)
            case "GET", "/control/timeline":
                found = self.timeline(request.query["symbol"], int(request.query.get("since_us", 0)))
                return json_response({"symbol": request.query["symbol"], "books": found})
            case "POST", "/control/fault":
                self.inject(_decode_fault(request.body))
                return json_response({"ok": True})
            case "POST", "/control/clear":
                self.clear()
                return json_response({"ok": True})
        return _error(
            404,
            "known: GET /control/status, GET /control/truth, GET /control/timeline, POST /control/fault, "
            "POST /control/clear",
        )

    def _answer_truth(self, query: dict[str, str]) -> HttpResponse:
        """`symbol` and `update_id` for one book; `symbol` and `since` for all from that id on, up to `until`."""
        symbol = query["symbol"]
        market = self._markets[symbol]
        depth = int(query["depth"]) if "depth" in query else None
        if "since" in query:
            known = market.truth_ids(int(query["since"]))
            if "until" in query:
                known = [each for each in known if each <= int(query["until"])]
            found = (market.truth(each) for each in known)
            books = [_book(market.instrument, book, depth) for book in found if book]
            return json_response({"symbol": symbol, "books": books})
        book = market.truth(int(query["update_id"]))
        if book is None:
            return _error(404, f"the book of {symbol} at {query['update_id']} is not known, or forgotten")
        return json_response({"symbol": symbol} | _book(market.instrument, book, depth))


def _unmark(marked: dict[str, str], symbols: Iterable[str]) -> None:
    for symbol in symbols:
        marked.pop(symbol, None)


def _levels(instrument: SimulatedInstrument, levels: list[RawLevel]) -> Levels:
    return tuple((instrument.price(ticks), instrument.quantity(steps)) for ticks, steps in levels)


def _book(instrument: SimulatedInstrument, book: BookAt, depth: int | None) -> dict[str, object]:
    def side(levels: list[RawLevel]) -> list[tuple[str, str]]:
        return [(instrument.price_text(ticks), instrument.quantity_text(steps)) for ticks, steps in levels[:depth]]

    return {"update_id": book.update_id, "bids": side(book.bids), "asks": side(book.asks)}


def _error(status: int, message: str) -> HttpResponse:
    return json_response({"error": message}, status)
