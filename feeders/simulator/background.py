"""Tasks and timers of one simulator: kept, cancelled together, their errors not lost."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Background:
    """Everything that runs beside the servers."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: set[asyncio.TimerHandle] = set()
        self._error: BaseException | None = None

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run beside everything else until done or stopped."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def call_later(self, seconds: float, action: Callable[[], None]) -> asyncio.TimerHandle:
        """Call once after a while, unless stopped before."""
        # Spent timers are let go when the next one is set.
        loop = asyncio.get_running_loop()
        self._timers = {timer for timer in self._timers if not timer.cancelled() and timer.when() > loop.time()}
        timer = loop.call_later(seconds, action)
        self._timers.add(timer)
        return timer

    async def stop(self) -> None:
        """Cancel everything. Raises what a task died of."""
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._error is not None:
            raise self._error

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._error = task.exception()
            task.get_loop().call_exception_handler(
                {"message": "simulator task failed", "exception": self._error, "task": task}
            )
