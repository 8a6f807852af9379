"""What a feeder tells the service manager that started it, by systemd's protocol (sd_notify(3)): that it is ready, that
it makes progress, that it ends."""

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

logger = logging.getLogger(__name__)

_TIMES_AN_INTERVAL = 3
"""How often the watchdog is fed within its interval."""


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """The manager at this socket; without an address nothing is sent. `watchdog` is its interval in seconds."""

    address: str = ""
    watchdog: float | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "ServiceManager":
        """The one that the environment of a service names; a value that cannot be read is as if it were not there."""
        address = environment.get("NOTIFY_SOCKET", "")
        interval, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
        meant = address and interval.isdecimal() and int(interval) and process in ("", str(os.getpid()))
        return cls(address, int(interval) / 1e6 if meant else None)

    def report(self, *states: str) -> None:
        """Send states like `READY=1`. A manager that does not take them is no reason to end."""
        if not self.address:
            return
        # An address that begins with @ is in the abstract namespace of Linux.
        address = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
                connection.setblocking(False)
                connection.sendto("\n".join(states).encode(), address)
        except OSError as error:
            logger.debug("cannot notify the service manager: %s", error)

    async def feed_watchdog(
        self,
        written: Callable[[], int | None],
        describe: Callable[[], str],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Say that the process is alive, for as long as it makes progress; returns at once without a watchdog.

        `written` counts what was written to the server, and is None while nothing waits to be written or the server is
        away. An outage of the exchange or of the server is no stall: a restart would not end it. Where something waits
        and the count stays the same for a whole interval, nothing is said any more, and the manager restarts the
        process; so it does if the loop itself stalls.
        """
        if self.watchdog is None:
            return
        before, unchanged = None, 0
        while True:
            count = written()
            unchanged = unchanged + 1 if count is not None and count == before else 0
            before = count
            if unchanged < _TIMES_AN_INTERVAL:
                self.report("WATCHDOG=1", f"STATUS={describe()}")
            elif unchanged == _TIMES_AN_INTERVAL:
                logger.error("nothing was written to the server for %.1f s though it waits", self.watchdog)
            await sleep(self.watchdog / _TIMES_AN_INTERVAL)
