"""One coroutine in an event loop and a thread of its own."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from bookbus.consumers.background_loop import BackgroundThread


class LoopThread:
    """Runs `work` from `start()`, called once, until it is done or `stop()` cancels it."""

    def __init__(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._loop = asyncio.new_event_loop()
        # Made here and not in the thread, so that there is something to cancel from the first moment on.
        self._task = self._loop.create_task(work)
        self._thread = BackgroundThread(name, self._run, self._interrupt)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.alive

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Cancel the work and wait until the thread is gone; from inside the thread, cancel only."""
        self._thread.stop()

    def _interrupt(self) -> None:
        with suppress(RuntimeError):  # the loop is closed: the work ended by itself
            self._loop.call_soon_threadsafe(self._task.cancel)

    def _run(self) -> None:
        loop = self._loop
        try:
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(self._task)
        finally:
            if left := asyncio.all_tasks(loop):
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            # Unlike asyncio.run this does not wait for the resolver, which may hang for longer than anybody waits.
            loop.close()
