"""Drives a session by the clock on the wall."""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from bookbus.consumers.background_loop import elapsed
from bookbus.consumers.paper.calibration_use import calibration_of
from bookbus.consumers.paper.kpi import Kpi
from bookbus.consumers.paper.market import Market
from bookbus.consumers.paper.session import TradingSession, session_name
from bookbus.consumers.paper.settings import RunSettings
from bookbus.schemas.instruments import InstrumentRegistry

STEP = 0.1
"""Seconds from one look at the books to the next."""

PROGRESS_INTERVAL = 10.0

Clock = Callable[[], float]
Wait = Callable[[float], None]
ShowProgress = Callable[[str], None]


class Stop:
    """Asks a run to end, from a signal or another thread; the first reason counts."""

    def __init__(self) -> None:
        self.reason = ""
        self._asked = threading.Event()

    def ask(self, reason: str) -> None:
        """End as soon as may be."""
        self.reason = self.reason or reason
        self._asked.set()

    def wait(self, seconds: float) -> None:
        """Sleep, unless it is asked to end."""
        self._asked.wait(seconds)


def steady_clock() -> Clock:
    """The time of day as it is now, going on evenly whatever is done to the computer's clock, also while it sleeps."""
    offset = time.time() - elapsed()
    return lambda: offset + elapsed()


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
    """Trade until the time is over or `stop` asks; the figures are written in any case. Raises ValueError, OSError."""
    clock, wait = clock or steady_clock(), wait or stop.wait
    calibration = calibration_of(settings)
    began = clock()
    session_id = free_name(directory, session_name(began, settings))
    session = TradingSession(settings, market, directory, session_id, began, "exchange", listed, calibration)
    try:
        reason = _trade(session, clock, wait, stop, show)
    except BaseException as error:
        session.finish(clock(), "error", f"{type(error).__name__}: {error}")
        raise
    return session.finish(clock(), reason)


def _trade(session: TradingSession, clock: Clock, wait: Wait, stop: Stop, show: ShowProgress) -> str:
    """Step until the run is over. Returns why it is."""
    shown = session.began
    while True:
        now = clock()
        session.step(now)
        if now - shown >= PROGRESS_INTERVAL:
            shown += PROGRESS_INTERVAL
            show(session.progress(now))
        if stop.reason:
            return stop.reason
        if now >= session.ends:
            return "duration"
        wait(max(min(STEP, session.ends - now), 0.0))


def free_name(directory: Path, name: str) -> str:
    """The name, with a number behind it if another run has it; that other run may start in this very second."""
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
