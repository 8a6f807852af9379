"""Notifies listeners of changed books and statuses: each symbol once, however often it changed since last taken."""

import asyncio
import inspect
import itertools
import logging
import queue
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator
from contextlib import suppress
from typing import Any

from bookbus.consumers.background_loop import BackgroundThread
from bookbus.consumers.reading import Reading, Update
from bookbus.consumers.shared_state import Cell, ReentrantLock
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)

OnSnapshot = Callable[[OrderBookSnapshot], None]
OnStatus = Callable[[Update], None]
FindReading = Callable[[str], Reading]
"""Returns the state of a standard symbol's book now."""

CHECK_INTERVAL = 1.0
"""Seconds between two checks for statuses that change without a message, like `stale`; each listener makes its own."""


class ChangeFeed:
    """Passes changes from the thread that receives books to callbacks and iterators.

    Each listener's queue has one entry per symbol, so a slow listener only conflates its own updates. Callbacks run in
    their own thread and never block the receiving thread. Each listener checks by itself which statuses changed.
    Every method may be called from a signal handler.
    """

    def __init__(self, find: FindReading, check_interval: float = CHECK_INTERVAL) -> None:
        self._find = find
        self._check_interval = check_interval
        self._mailboxes: Cell[tuple[_Mailbox, ...]] = Cell(())
        self._callbacks: Cell[tuple[OnSnapshot, ...]] = Cell(())
        self._status_callbacks: Cell[tuple[OnStatus, ...]] = Cell(())
        self._dispatching = ReentrantLock()
        self._dispatcher: BackgroundThread | None = None
        self._open = False
        self.callback_errors = 0
        """Calls of callbacks that raised."""

    def open(self) -> None:
        """Accept listeners and start the callback thread if there are callbacks."""
        self._open = True
        self._start_dispatcher()

    def close(self) -> None:
        """End all iterators and the callback thread."""
        self._open = False
        dispatcher, self._dispatcher = self._dispatcher, None
        while not self._mailboxes.replace(mailboxes := self._mailboxes.get(), ()):
            pass
        for mailbox in mailboxes:
            mailbox.close()
        if dispatcher is not None:
            dispatcher.stop()

    def publish(self, symbol: str, count: int = 1) -> None:
        """Report `count` received updates of `symbol`, or 0 where its status may have changed; from any thread."""
        for mailbox in self._mailboxes.recent:
            mailbox.add(symbol, count)

    def add_callback(self, callback: OnSnapshot) -> None:
        """Call `callback` with the newest book after each change. Raises TypeError for a coroutine function."""
        _require_plain(callback)
        while not self._callbacks.replace(callbacks := self._callbacks.get(), (*callbacks, callback)):
            pass
        self._start_dispatcher()

    def add_status_callback(self, callback: OnStatus) -> None:
        """Call `callback` after each change of a status. Raises TypeError for a coroutine function."""
        _require_plain(callback)
        while not self._status_callbacks.replace(callbacks := self._status_callbacks.get(), (*callbacks, callback)):
            pass
        self._start_dispatcher()

    async def updates(self, symbols: Collection[str], *, others: bool = False) -> AsyncGenerator[Update, None]:
        """The current books of `symbols`, then each change of these, or with `others` of any symbol, until the feed
        closes."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        mailbox = _Mailbox(lambda: loop.call_soon_threadsafe(changed.set), None if others else frozenset(symbols))
        timer = _Timer(loop, self._check_interval, changed.set)
        self._add(mailbox)
        try:
            if not self._open:
                return
            merger = _Merger(self._find)
            for symbol in symbols:
                if update := merger.merge(symbol, 0):
                    yield update
            while not mailbox.closed:
                await changed.wait()
                changed.clear()
                for symbol, count in mailbox.take().items():
                    if update := merger.merge(symbol, count):
                        yield update
                if timer.take_due():
                    for symbol in merger.symbols:
                        if update := merger.check(symbol):
                            yield update
        finally:
            timer.stop()
            self._remove(mailbox)

    def _add(self, mailbox: "_Mailbox") -> None:
        while not self._mailboxes.replace(mailboxes := self._mailboxes.get(), (*mailboxes, mailbox)):
            pass

    def _remove(self, mailbox: "_Mailbox") -> None:
        while not self._mailboxes.replace(
            mailboxes := self._mailboxes.get(), tuple(other for other in mailboxes if other is not mailbox)
        ):
            pass

    def _start_dispatcher(self) -> None:
        """Start the thread of the callbacks if the feed is open, has callbacks and no such thread in this process."""
        with self._dispatching.hold() as first:
            dispatcher = self._dispatcher
            called = self._callbacks.get() or self._status_callbacks.get()
            if not first or not self._open or not called or (dispatcher and dispatcher.alive):
                return
            # Unlike an Event, it may be put to in a signal handler that interrupted a `put`.
            changed: queue.SimpleQueue[None] = queue.SimpleQueue()
            mailbox = _Mailbox(lambda: changed.put(None), None)

            def dispatch() -> None:
                merger, reported = _Merger(self._find), dict[str, Update]()
                checked_at = time.monotonic()
                while not mailbox.closed:
                    with suppress(queue.Empty):
                        changed.get(timeout=self._check_interval)
                    for symbol, count in mailbox.take().items():
                        self._report(symbol, merger.merge(symbol, count), reported)
                    if time.monotonic() - checked_at >= self._check_interval and not mailbox.closed:
                        for symbol in merger.symbols:
                            self._report(symbol, merger.check(symbol), reported)
                        checked_at = time.monotonic()

            self._dispatcher = BackgroundThread("bookbus-callbacks", dispatch, mailbox.close)
            self._add(mailbox)
            self._dispatcher.start()
        if not self._open:
            self.close()  # closed meanwhile, by a signal handler or another thread

    def _report(self, symbol: str, update: Update | None, reported: dict[str, Update]) -> None:
        """Call back for what is new: the book, its status, or both."""
        if update is None:
            return
        before, reported[symbol] = reported.get(symbol), update
        if before is None or before.snapshot is not update.snapshot:
            self._call(self._callbacks.get(), update.snapshot, update.snapshot)
        if before is None or (before.status, before.trading) != (update.status, update.trading):
            self._call(self._status_callbacks.get(), update, update.snapshot)

    def _call(self, callbacks: Iterable[Callable[[Any], None]], argument: Any, snapshot: OrderBookSnapshot) -> None:
        for callback in callbacks:
            try:
                # A plain function may return a coroutine all the same.
                result: object = callback(argument)
                if inspect.iscoroutine(result):
                    result.close()
                    raise TypeError(f"{callback!r} returned a coroutine, which nothing runs")
            except BaseException:
                # Code of the user: nothing that it raises, SystemExit included, may end the thread.
                self.callback_errors += 1
                logger.exception("callback failed on %s %s", snapshot.exchange, snapshot.symbol)


def _require_plain(callback: object) -> None:
    if not callable(callback) or any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
        for one in (callback, getattr(callback, "__call__", None))  # noqa: B004 - of an object
    ):
        raise TypeError(f"{callback!r} is no plain function: for a coroutine use `async for` over updates()")


class _Timer:
    """Calls `wake` at intervals on a loop; `take_due` is whether one has passed since the last call."""

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float, wake: Callable[[], None]) -> None:
        self._loop = loop
        self._interval = interval
        self._wake = wake
        self._due = False
        self._handle = loop.call_later(interval, self._fire)

    def take_due(self) -> bool:
        due, self._due = self._due, False
        if due:
            self._handle = self._loop.call_later(self._interval, self._fire)
        return due

    def stop(self) -> None:
        self._handle.cancel()

    def _fire(self) -> None:
        self._due = True
        self._wake()


class _Mailbox:
    """Changes per symbol since the last `take()`. Calls `wake` at the first change after it."""

    def __init__(self, wake: Callable[[], object], symbols: frozenset[str] | None) -> None:
        self.closed = False
        self._wake = wake
        self._symbols = symbols
        self._signalled = False
        # Each step is one of the interpreter, so that no lock is needed: `add` counts, then names the symbol, then
        # wakes; `take` allows the next wake, then takes the names, then reads the counts.
        self._counters: dict[str, Iterator[int]] = {}
        self._taken: dict[str, int] = {}
        self._changed: dict[str, None] = {}

    def add(self, symbol: str, count: int) -> None:
        if self._symbols is not None and symbol not in self._symbols:
            return
        counter = self._counters.get(symbol) or self._counters.setdefault(symbol, itertools.count())
        if count == 1:
            next(counter)
        else:
            deque(itertools.islice(counter, count), maxlen=0)
        self._changed[symbol] = None
        if not self._signalled:
            self._signalled = True
            self._signal()

    def take(self) -> dict[str, int]:
        """By one listener."""
        self._signalled = False
        changes = {}
        for symbol in list(self._changed):
            del self._changed[symbol]
            count = next(self._counters[symbol])
            changes[symbol] = count - self._taken.get(symbol, 0)
            self._taken[symbol] = count + 1  # with the number that was just drawn
        return changes

    def close(self) -> None:
        self.closed = True
        self._signal()

    def _signal(self) -> None:
        try:
            self._wake()
        except RuntimeError:
            # The listener's event loop is closed.
            self.closed = True


class _Merger:
    """Turns changes into updates: the newest book, and how many earlier updates it replaced."""

    def __init__(self, find: FindReading) -> None:
        self._find = find
        self._last: dict[str, Update] = {}
        self._carried: dict[str, int] = {}

    @property
    def symbols(self) -> list[str]:
        """Those that had a book."""
        return list(self._last)

    def merge(self, symbol: str, count: int) -> Update | None:
        reading, last = self._find(symbol), self._last.get(symbol)
        snapshot = reading.snapshot
        count += self._carried.pop(symbol, 0)
        if snapshot is None or (last is not None and snapshot is last.snapshot):
            # Already returned: it was read before the notification of this change arrived.
            self._carried[symbol] = count
            return self._status_change(symbol, reading)
        self._last[symbol] = update = _update(reading, snapshot, max(count - 1, 0))
        return update

    def check(self, symbol: str) -> Update | None:
        """The last book with another status; None also if there is a newer book, whose notification is on its way."""
        return self._status_change(symbol, self._find(symbol))

    def _status_change(self, symbol: str, reading: Reading) -> Update | None:
        last = self._last.get(symbol)
        if last is None or (reading.snapshot is not None and reading.snapshot is not last.snapshot):
            return None
        if (last.status, last.trading) == (reading.status, reading.trading):
            return None
        self._last[symbol] = update = _update(reading, last.snapshot, 0)
        return update


def _update(reading: Reading, snapshot: OrderBookSnapshot, conflated: int) -> Update:
    return Update(snapshot, conflated, reading.status, reading.reason, reading.trading)
