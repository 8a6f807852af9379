"""Threads of the consumers; nothing else starts one."""

import asyncio
import errno
import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from bookbus.consumers.shared_state import fork_count

logger = logging.getLogger(__name__)

JOIN_LIMIT = 5.0

Clock = Callable[[], float]


def boottime() -> float:
    """Seconds on a monotonic clock which, where the system has one, goes on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def resolve_host(host: str, port: int, limit: float) -> list[tuple[socket.AddressFamily, Any]]:
    """Addresses of a host as (family, address for `connect`). Raises OSError, after at most `limit` seconds.

    The system's resolver can block for tens of seconds and cannot be interrupted, so a daemon thread calls it.
    """
    with suppress(socket.gaierror, UnicodeError):
        return _families(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answer.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            answer.put(error)

    try:
        threading.Thread(target=look_up, name="bookbus-resolver", daemon=True).start()
        found = answer.get(timeout=limit)
    except RuntimeError as error:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
    except queue.Empty:
        raise OSError(errno.ETIMEDOUT, f"host name {host} not resolved within {limit:g} s") from None
    if isinstance(found, OSError):
        raise found
    if isinstance(found, UnicodeError):
        raise OSError(errno.EINVAL, f"{host} is no host name")
    return _families(found)


def _families(found: list[Any]) -> list[tuple[socket.AddressFamily, Any]]:
    return [(family, address) for family, _, _, _, address in found]


class BackgroundThread:
    """Runs `run` in a daemon thread; `interrupt` makes a running `run` return soon.

    An exception out of `run`, SystemExit included, is a bug: it is logged with its traceback and ends the thread.
    """

    def __init__(self, name: str, run: Callable[[], None], interrupt: Callable[[], None]) -> None:
        self._run = run
        self._interrupt = interrupt
        self._forks = fork_count()
        self._thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive() and not self.forked

    @property
    def forked(self) -> bool:
        """Whether this process is a fork of the one that has the thread."""
        return self._forks != fork_count()

    def start(self) -> None:
        """Start the thread; once only."""
        self._thread.start()

    def stop(self) -> None:
        """Interrupt the thread and wait for its end; from inside the thread, interrupt only.

        A signal handler may call it during `start()`: then the thread ends as soon as it has started.
        """
        if self.forked:
            return  # what `interrupt` would write to belongs to the other process
        self._interrupt()
        if self._thread is threading.current_thread():
            return
        with suppress(RuntimeError):  # not started yet
            self._thread.join(JOIN_LIMIT)
        if self._thread.is_alive():
            logger.warning("thread %s did not end within %g s", self._thread.name, JOIN_LIMIT)

    def _guarded(self) -> None:
        try:
            self._run()
        except BaseException:
            logger.exception("thread %s ended by a bug", self._thread.name)


class LoopThread:
    """Runs `work` on a loop in a thread, from `start()`, called once, until it is done or `stop()` cancels it."""

    def __init__(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._loop = asyncio.new_event_loop()
        # Created here and not in the thread, so that `stop()` can cancel it at any time.
        self._task = self._loop.create_task(work)
        self._thread = BackgroundThread(name, self._run, self._interrupt)

    @property
    def alive(self) -> bool:
        return self._thread.alive

    @property
    def forked(self) -> bool:
        return self._thread.forked

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Cancel the work and wait for the end of the thread; from inside the thread, cancel only."""
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
            # Unlike asyncio.run this does not wait for threads of the resolver, which may hang for minutes.
            loop.close()
