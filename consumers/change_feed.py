"""Notifies listeners of changed books: each symbol once, however often it changed since it was last taken."""

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Collection

from bookbus.consumers.background_loop import BackgroundThread
from bookbus.consumers.reading import Update
from bookbus.schemas.snapshot import OrderBookSnapshot

logger = logging.getLogger(__name__)

OnSnapshot = Callable[[OrderBookSnapshot], None]
FindSnapshot = Callable[[str], OrderBookSnapshot | None]


class ChangeFeed:
    """Passes changes from the thread that receives books to callbacks and iterators.

    Each listener's queue has one entry per symbol, so a slow listener only conflates its own updates. Callbacks run in
    their own thread and never block the receiving thread.
    """

    def __init__(self, find: FindSnapshot) -> None:
        self._find = find
        self._lock = threading.Lock()
        self._mailboxes: tuple[_Mailbox, ...] = ()
        self._callbacks: tuple[OnSnapshot, ...] = ()
        self._dispatcher: BackgroundThread | None = None
        self._open = False
        self.callback_errors = 0
        """Calls of callbacks that raised."""

    def open(self) -> None:
        """Accept listeners and start the callback thread if there are callbacks."""
        with self._lock:
            self._open = True
            if self._callbacks:
                self._start_dispatcher()

    def close(self) -> None:
        """End all iterators and the callback thread."""
        with self._lock:
            self._open = False
            mailboxes, self._mailboxes = self._mailboxes, ()
            dispatcher, self._dispatcher = self._dispatcher, None
        for mailbox in mailboxes:
            mailbox.close()
        if dispatcher is not None:
            dispatcher.stop()

    def publish(self, symbol: str, count: int = 1) -> None:
        """Report `count` received updates of `symbol`, from any thread."""
        for mailbox in self._mailboxes:
            mailbox.add(symbol, count)

    def add_callback(self, callback: OnSnapshot) -> None:
        """Call `callback` with the newest book after each change. Raises TypeError for a coroutine function."""
        if not callable(callback) or any(
            inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one)
            for one in (callback, getattr(callback, "__call__", None))  # noqa: B004 - of an object
        ):
            raise TypeError(f"{callback!r} is no plain function: for a coroutine use `async for` over updates()")
        with self._lock:
            self._callbacks = (*self._callbacks, callback)
            if self._open and self._dispatcher is None:
                self._start_dispatcher()

    async def updates(self, symbols: Collection[str], *, others: bool = False) -> AsyncGenerator[Update, None]:
        """The current books of `symbols`, then each change of these, or with `others` of any symbol, until the feed
        closes."""
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        mailbox = _Mailbox(lambda: loop.call_soon_threadsafe(changed.set), None if others else frozenset(symbols))
        with self._lock:
            if not self._open:
                return
            self._mailboxes = (*self._mailboxes, mailbox)
        try:
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
        finally:
            self._remove(mailbox)

    def _remove(self, mailbox: "_Mailbox") -> None:
        with self._lock:
            self._mailboxes = tuple(other for other in self._mailboxes if other is not mailbox)

    def _start_dispatcher(self) -> None:
        changed = threading.Event()
        mailbox = _Mailbox(changed.set, None)
        self._mailboxes = (*self._mailboxes, mailbox)

        def dispatch() -> None:
            merger = _Merger(self._find)
            while not mailbox.closed:
                changed.wait()
                changed.clear()
                for symbol, count in mailbox.take().items():
                    if update := merger.merge(symbol, count):
                        self._call(update.snapshot)

        self._dispatcher = BackgroundThread("bookbus-callbacks", dispatch, mailbox.close)
        self._dispatcher.start()

    def _call(self, snapshot: OrderBookSnapshot) -> None:
        for callback in self._callbacks:
            try:
                # A plain function may return a coroutine all the same.
                result: object = callback(snapshot)
                if inspect.iscoroutine(result):
                    result.close()
                    raise TypeError(f"{callback!r} returned a coroutine, which nothing runs")
            except BaseException:
                # Code of the user: nothing that it raises, SystemExit included, may end the thread.
                self.callback_errors += 1
                logger.exception("callback failed on %s %s", snapshot.exchange, snapshot.symbol)


class _Mailbox:
    """Changes per symbol since the last `take()`. Calls `wake` at the first change after it."""

    def __init__(self, wake: Callable[[], object], symbols: frozenset[str] | None) -> None:
        self.closed = False
        self._wake = wake
        self._symbols = symbols
        self._lock = threading.Lock()
        self._changes: dict[str, int] = {}

    def add(self, symbol: str, count: int) -> None:
        if self._symbols is not None and symbol not in self._symbols:
            return
        with self._lock:
            wake = not self._changes
            self._changes[symbol] = self._changes.get(symbol, 0) + count
        if wake:
            self._signal()

    def take(self) -> dict[str, int]:
        with self._lock:
            changes, self._changes = self._changes, {}
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

    def __init__(self, find: FindSnapshot) -> None:
        self._find = find
        self._last: dict[str, OrderBookSnapshot] = {}
        self._carried: dict[str, int] = {}

    def merge(self, symbol: str, count: int) -> Update | None:
        snapshot = self._find(symbol)
        count += self._carried.pop(symbol, 0)
        if snapshot is None or snapshot is self._last.get(symbol):
            # Already returned: it was read before the notification of this change arrived.
            self._carried[symbol] = count
            return None
        self._last[symbol] = snapshot
        return Update(snapshot, max(count - 1, 0))
