"""State that threads, signal handlers and forked processes share, without one waiting for what it interrupted."""

import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def fork_count() -> int:
    """How many forks lie between the first process and this one: threads that were started at another count are
    gone."""
    return _forks


class Cell(Generic[T]):
    """A value that is replaced without a lock: each replacement succeeds or finds that another one came first.

    A signal handler may interrupt a replacement at any point, and a process may be forked there. The values are
    immutable.
    """

    __slots__ = ("_node", "recent")

    def __init__(self, value: T) -> None:
        self._node = _Node(value)
        self.recent = value
        """The value now, or one of a moment ago."""

    def get(self) -> T:
        """The value now."""
        node = self._node
        while node.next:
            node = node.next[0]
        return node.value

    def replace(self, old: T, new: T) -> bool:
        """Make `new` the value if it is `old`. Returns whether it was."""
        node = self._node
        while node.next:
            node = node.next[0]
        if node.value is not old:
            return False
        if new is old:
            return True
        made = _Node(new)
        # One step of the interpreter: of all that try to follow a node, one does.
        if node.next.setdefault(0, made) is not made:
            return False
        self._node, self.recent = made, new
        while made.next:
            # Another replacement came between, whose value the one above may have overwritten.
            made = made.next[0]
            self._node, self.recent = made, made.value
        return True


class _Node(Generic[T]):
    """A value, and in `next` the node that replaced it."""

    __slots__ = ("next", "value")

    def __init__(self, value: T) -> None:
        self.value = value
        self.next: dict[int, _Node[T]] = {}


class Flag:
    """An event that may be set in a signal handler that interrupted its `set` or `wait`, and in a forked process.

    `threading.Event` takes a lock for both.
    """

    def __init__(self) -> None:
        self._set = False
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._wakes.put(None)

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float) -> bool:
        """Returns once it is set, or after `timeout` seconds; whether it is set."""
        deadline = time.monotonic() + timeout
        while not self._set and (left := deadline - time.monotonic()) > 0:
            try:
                self._wakes.get(timeout=left)
            except queue.Empty:
                break
            if self._set:
                self._wakes.put(None)  # for others that wait
        return self._set


class ReentrantLock:
    """A lock that its own thread may take again, in a signal handler, and that a forked process finds free."""

    def __init__(self) -> None:
        self._by_forks: dict[int, _Held] = {}

    @contextmanager
    def hold(self) -> Iterator[bool]:
        """Holds the lock. Yields False if this thread is inside it already: what it guards may be half changed."""
        forks = fork_count()
        # A thread that held it before a fork does not exist after it.
        held = self._by_forks.get(forks) or self._by_forks.setdefault(forks, _Held())
        with held.lock:
            if held.busy:
                yield False
                return
            held.busy = True
            try:
                yield True
            finally:
                held.busy = False


class _Held:
    __slots__ = ("busy", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.busy = False
