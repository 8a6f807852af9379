"""One run of an exchange's feed in a thread of this process."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from bookbus.consumers.local.loop_thread import LoopThread

_TICK = 0.25


class StandstillClock(Protocol):
    """Notices that this process stood still."""

    def beat(self) -> None:
        """Called often."""


class ConnectionKeeper(Protocol):
    """Keeps one connection open."""

    @property
    def reconnects(self) -> int:
        """How often it was lost, or could not be opened, and was tried again."""


class Feed(Protocol):
    """What a session runs."""

    @property
    def standstill(self) -> StandstillClock:
        """Has to beat while the feed runs."""

    @property
    def keepers(self) -> Sequence[ConnectionKeeper]:
        """One for each connection."""

    @property
    def trouble(self) -> str:
        """What stands between the exchange and its books; empty if nothing does."""

    async def run(self) -> None:
        """Until cancelled. Raises the session's `gave_up` when it is of no use to go on."""

    def last_sign_of_life(self, native: str) -> float:
        """Monotonic time at which the symbol's connection last showed that it lives; 0.0 if that is unknown."""


class FeedSession:
    """Runs a feed from `start()`, called once, until `stop()` or until it ends by itself."""

    def __init__(
        self,
        name: str,
        feed: Feed,
        gave_up: type[Exception],
        on_tick: Callable[[Feed], None],
        on_end: Callable[[str], None],
    ) -> None:
        """`on_tick` is called a few times a second; `on_end` gets the reason why the feed ended by itself."""
        self.settled = threading.Event()
        """Every book is there, or will not come."""
        self._feed = feed
        self._gave_up = gave_up
        self._on_tick = on_tick
        self._on_end = on_end
        self._stopping = False
        self._ended = ""
        self._thread = LoopThread(name, self._run())

    @property
    def alive(self) -> bool:
        """Whether the feed still runs."""
        return not self._ended and self._thread.alive

    @property
    def thread_alive(self) -> bool:
        """Whether its thread still exists."""
        return self._thread.alive

    @property
    def reconnect_count(self) -> int:
        """How often a connection was lost, or could not be opened, and was tried again."""
        return sum(keeper.reconnects for keeper in self._feed.keepers)

    @property
    def trouble(self) -> str:
        """Why it ended, or what is wrong now; empty while all is well."""
        return self._ended or self._feed.trouble

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._thread.stop()
        self.settled.set()

    async def _run(self) -> None:
        reason = "it ended by a bug, see the log"
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tick())
                await self._feed.run()
        except* self._gave_up as errors:
            reason = str(_first(errors))
        finally:
            if not self._stopping:
                self._on_end(reason)
                # Last, so that nobody starts anew before the end has been told.
                self._ended = reason
            self.settled.set()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            self._feed.standstill.beat()
            self._on_tick(self._feed)


def _first(errors: BaseExceptionGroup[Any]) -> BaseException:
    error: BaseException = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
