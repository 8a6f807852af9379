"""Notices that the clock of this machine was set, which makes times of before and after incomparable."""

import logging
import math
import time

from bookbus.feeders.stall_detector import boot_clock
from bookbus.schemas.clock_watch import ClockWatch

logger = logging.getLogger(__name__)


class WallClock:
    """Call `check()` once a second, and before wall times are compared."""

    def __init__(self) -> None:
        self._watch = ClockWatch(time.time(), boot_clock())
        self.set_at = -math.inf
        """When it was last set (monotonic)."""

    @property
    def jumps(self) -> int:
        return self._watch.jumps

    def check(self) -> None:
        if seconds := self._watch.check(time.time(), boot_clock()):
            self.set_at = time.monotonic()
            logger.warning(
                "this machine's clock was set %s by %.1f s; published times show it, the age of books does not",
                "forward" if seconds > 0 else "back",
                abs(seconds),
            )
