"""Values and locks that signal handlers, threads and forked processes share."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from bookbus.consumers.shared_state import Cell, Flag, ReentrantLock, fork_count
from tests.support.waiting import wait_for

LIMIT = 30.0


def test_a_value_is_replaced_only_if_it_is_the_one_that_was_read() -> None:
    first, second, third = object(), object(), object()
    cell = Cell(first)

    assert cell.replace(first, second)
    assert not cell.replace(first, third)
    assert (cell.get(), cell.recent) == (second, second)
    assert cell.replace(second, second)
    assert cell.replace(second, first)
    assert cell.get() is first


def test_no_replacement_of_many_threads_is_lost() -> None:
    counted: Cell[tuple[int]] = Cell((0,))

    def count(_: int) -> None:
        for _ in range(2_000):
            while not counted.replace(before := counted.get(), (before[0] + 1,)):
                pass

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(count, range(4)))

    assert counted.get() == counted.recent == (8_000,)


def test_a_thread_that_is_inside_is_told_so_and_others_wait() -> None:
    lock = ReentrantLock()
    entered: list[bool] = []

    def enter() -> None:
        with lock.hold() as first:
            entered.append(first)

    with lock.hold() as first, lock.hold() as second:
        other = threading.Thread(target=enter, daemon=True)
        other.start()
        assert (first, second, entered) == (True, False, [])
    other.join(LIMIT)

    assert entered == [True]


def test_a_forked_process_finds_a_lock_free_that_a_thread_held() -> None:
    lock, held, release = ReentrantLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock.hold():
            held.set()
            release.wait(LIMIT)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    held.wait(LIMIT)
    forks = fork_count()

    child = os.fork()
    if child == 0:
        with lock.hold() as first:
            os._exit(0 if first and fork_count() == forks + 1 else 1)
    try:
        wait_for(lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT), LIMIT, "the child's end")
    finally:
        release.set()
        os.kill(child, 9)
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0


def test_all_that_wait_for_a_flag_go_on_when_it_is_set() -> None:
    flag = Flag()
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(flag.wait, LIMIT) for _ in range(4)]
        flag.set()
        assert [each.result(LIMIT) for each in waiting] == [True] * 4

    assert flag.wait(0.0)


def test_a_flag_that_was_cleared_is_waited_for_again() -> None:
    flag = Flag()
    flag.set()
    flag.set()
    flag.clear()

    assert not flag.is_set()
    assert not flag.wait(0.01)
    flag.set()
    assert flag.wait(LIMIT)


def test_a_signal_handler_sets_a_flag_whatever_its_thread_does_with_it() -> None:
    flag, handled = Flag(), 0

    def handle(*_: object) -> None:
        nonlocal handled
        handled += 1
        flag.set()
        signal.setitimer(signal.ITIMER_REAL, 0.0002)

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002)
        deadline = time.monotonic() + LIMIT
        while handled < 300 and time.monotonic() < deadline:
            flag.wait(0.001)
            flag.set()
            flag.clear()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    assert handled >= 300
