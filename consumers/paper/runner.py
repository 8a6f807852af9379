"""Drives sessions: live by the clock, or through a recording."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.captures import TapeFrame, read_capture
from bookbus.consumers.paper.calibration.tape import capture_info
from bookbus.consumers.paper.kpi import Kpi
from bookbus.consumers.paper.market import CaptureMarket, Market
from bookbus.consumers.paper.records import utc
from bookbus.consumers.paper.session import (
    Calibration,
    TradingSession,
    calibration_of,
    recorded_session_name,
    session_name,
)
from bookbus.consumers.paper.settings import RunSettings
from bookbus.consumers.shared_state import Flag
from bookbus.schemas.capture import CaptureError
from bookbus.schemas.instruments import InstrumentRegistry

logger = logging.getLogger(__name__)
STEP = 0.1
"""Seconds between the steps of a live run."""

PROGRESS_INTERVAL = 10.0
_LONGEST_HOLE = 7 * 86400.0
"""Seconds without a frame after which a recording's time is taken for wrong."""
Clock = Callable[[], float]
Wait = Callable[[float], None]
ShowProgress = Callable[[str], None]


class Stop:
    """Ends a run, from a signal handler or another thread; the first reason counts."""

    def __init__(self) -> None:
        self.reason = ""
        self.polled = False
        """Whether the run looks at `reason`. Before that there is nothing to write, so a signal ends the process."""
        self._asked = Flag()

    def ask(self, reason: str) -> None:
        self.reason = self.reason or reason
        self._asked.set()

    def wait(self, seconds: float) -> None:
        """Sleep until the time is over or `ask` is called."""
        self._asked.wait(seconds)


def steady_clock() -> Clock:
    """Seconds since 1970 that advance evenly when the system clock is set, and include system sleep."""
    offset = time.time() - boottime()
    return lambda: offset + boottime()


def run_live(
    settings: RunSettings,
    market: Market,
    directory: Path,
    stop: Stop,
    show: ShowProgress,
    *,
    listed: Mapping[str, InstrumentRegistry] = MappingProxyType({}),
    clock: Clock | None = None,
    wait: Wait | None = None,
) -> Kpi:
    """Trade until the duration is over or `stop` ends the run; the KPI file is written in any case.

    Raises ValueError, OSError."""
    clock, wait = clock or steady_clock(), wait or stop.wait
    calibration = calibration_of(settings)
    began = clock()
    session_id = free_name(directory, session_name(began, settings))
    session = TradingSession(settings, market, directory, session_id, began, "exchange", listed, calibration)
    stop.polled = True
    try:
        reason = _trade(session, clock, wait, stop, show)
    except BaseException as error:
        session.finish(clock(), "error", f"{type(error).__name__}: {error}")
        raise
    return session.finish(clock(), reason)


def run_captures(runs: Sequence[RunSettings], path: Path, directory: Path, stop: Stop, show: ShowProgress) -> list[Kpi]:
    """Run each of the settings on a recording as fast as it can be read; the file is read once for all.

    Each run begins when all its symbols have a book. Raises CaptureError, CalibrationError, SymbolError, ValueError
    or OSError.
    """
    # All runs of one call have the same symbols and depth.
    symbols, depth = runs[0].symbols, runs[0].depth
    calibrations = [calibration_of(settings) for settings in runs]
    tapes: list[CaptureRun] = []
    shown = time.monotonic()
    try:
        for frame in read_capture(path, symbols, depth):
            if not tapes:
                tapes = [
                    CaptureRun(settings, frame.exchange, directory, stop, calibration)
                    for settings, calibration in zip(runs, calibrations, strict=True)
                ]
                _refuse_own_tape(calibrations, path, frame.exchange, tapes[0].symbols)
            going = [tape for tape in tapes if tape.receive(frame)]
            if not going or stop.reason:
                break
            if time.monotonic() - shown >= PROGRESS_INTERVAL:
                shown = time.monotonic()
                show(going[0].progress())
        return [tape.finish(stop.reason or "end_of_recording") for tape in tapes]
    except BaseException as error:
        for tape in tapes:
            tape.fail(f"{type(error).__name__}: {error}")
        raise


class CaptureRun:
    """One session on a recording; `receive` gets its frames. It begins when every symbol has a live book."""

    def __init__(
        self,
        settings: RunSettings,
        exchange: str,
        directory: Path,
        stop: Stop,
        calibration: Calibration | None = None,
    ) -> None:
        self._settings = settings
        self._calibration = calibration
        self._directory = directory
        self._market = CaptureMarket(exchange, settings.symbols, settings.fees, settings.max_age)
        self._stop = stop
        self._session: TradingSession | None = None
        self._kpi: Kpi | None = None

    @property
    def symbols(self) -> tuple[str, ...]:
        return self._market.symbols

    def receive(self, frame: TapeFrame) -> bool:
        """Do what is due before the frame, then apply it. Returns whether the run goes on."""
        if self._kpi is not None:
            return False
        market, session = self._market, self._session
        if session is None:
            market.apply(frame)
            if frame.events and not market.without_book:
                self._begin()
            return True
        if frame.time - market.now > _LONGEST_HOLE:
            raise CaptureError(f"the recording's time jumps by {frame.time - market.now:.0f} s at {utc(market.now)}")
        while (due := session.next_due) <= frame.time and due < session.ends:
            if self._stop.reason:
                return True
            market.advance_to(due)
            session.step(due)
            if session.next_due <= due:
                raise RuntimeError(f"the step at {due} does not advance the run")
        if frame.time >= session.ends:
            market.advance_to(session.ends)
            self._kpi = self._end(session, "duration")
            return False
        market.apply(frame)
        if frame.events and (symbols := {event.symbol for event in frame.events if session.needs_step(event)}):
            session.step(market.now, sorted(symbols))
        return True

    def progress(self) -> str:
        return self._session.progress(self._market.now) if self._session is not None else "waiting for the first books"

    def finish(self, reason: str) -> Kpi:
        """End the run, if it has not ended yet. Raises CaptureError if it never began."""
        if self._session is None:
            raise CaptureError(f"the recording never has a live book of {', '.join(self._market.without_book)}")
        if self._kpi is None:
            self._kpi = self._end(self._session, reason)
        return self._kpi

    def fail(self, error: str) -> None:
        """Write the KPI of a run that ends by an error."""
        if self._session is not None and self._kpi is None:
            self._kpi = self._session.finish(self._market.now, "error", error)

    def _end(self, session: TradingSession, reason: str) -> Kpi:
        if self._settings.fill_model == "queue" and not self._market.trades:
            logger.warning("the recording has no trades of these symbols: waiting orders could not be filled")
        return session.finish(self._market.now, reason)

    def _begin(self) -> None:
        market, settings = self._market, self._settings
        for symbol in market.symbols:
            market.events(symbol, market.now)  # drop the events before the run
        session_id = recorded_session_name(market.now, settings, self._calibration)
        self._session = TradingSession(
            settings, market, self._directory, session_id, market.now, "received", calibration=self._calibration
        )
        self._stop.polled = True
        self._session.step(market.now)


def free_name(directory: Path, name: str) -> str:
    """The name, with a number appended if another run has it. Creates the fill event file to reserve the name."""
    directory.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        found = name if number == 1 else f"{name}-{number}"
        try:
            (directory / f"fill_events_{found}.jsonl").touch(exist_ok=False)
        except FileExistsError:
            number += 1
            continue
        return found


def _trade(session: TradingSession, clock: Clock, wait: Wait, stop: Stop, show: ShowProgress) -> str:
    """Step until the run is over. Returns the end reason."""
    shown = session.began
    while True:
        now = clock()
        session.step(now)
        if now - shown >= PROGRESS_INTERVAL:
            shown = now
            show(session.progress(now))
        if stop.reason:
            return stop.reason
        if now >= session.ends:
            return "duration"
        wait(max(min(STEP, session.ends - now), 0.0))


def _refuse_own_tape(
    calibrations: Sequence[Calibration | None], path: Path, exchange: str, symbols: tuple[str, ...]
) -> None:
    """Raises CalibrationError for a table that was fitted on this recording, or on the same market at its time."""
    tables = [calibration.table for calibration in calibrations if calibration is not None]
    if not tables:
        return
    info = capture_info(path, exchange, symbols)
    for table in tables:
        table.require_other_tape([info])
