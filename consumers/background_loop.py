"""The one place where consumers start a thread."""

import logging
import threading
import time
from collections.abc import Callable

Clock = Callable[[], float]


def elapsed() -> float:
    """Seconds on a clock that never steps and, where the system has one, goes on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


logger = logging.getLogger(__name__)

JOIN_LIMIT = 5.0


class BackgroundThread:
    """Runs `run` in a thread of its own; `interrupt` makes a running `run` return soon.

    The thread never keeps a process alive. An exception out of `run` is a bug: it is logged with its trace
    and ends the thread.
    """

    def __init__(self, name: str, run: Callable[[], None], interrupt: Callable[[], None]) -> None:
        self._run = run
        self._interrupt = interrupt
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Start the thread; once only."""
        self._thread.start()

    def stop(self) -> None:
        """Interrupt the thread and wait until it is gone; from inside the thread, interrupt only."""
        self._interrupt()
        if self._thread is threading.current_thread():
            return
        self._thread.join(JOIN_LIMIT)
        if self._thread.is_alive():
            logger.warning("thread %s did not end within %g s", self._thread.name, JOIN_LIMIT)

    def _guarded(self) -> None:
        try:
            self._run()
        except Exception:
            logger.exception("thread %s ended by a bug", self._thread.name)
