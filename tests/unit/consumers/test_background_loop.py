"""The one place where consumers start a thread."""

import logging
import threading
from functools import partial

import pytest

from bookbus.consumers.background_loop import BackgroundThread


def until(over: threading.Event) -> None:
    over.wait()


def test_stop_interrupts_and_waits_until_the_thread_is_gone() -> None:
    over = threading.Event()
    thread = BackgroundThread("worker", partial(until, over), over.set)
    thread.start()
    assert thread.alive

    thread.stop()

    assert not thread.alive


def test_a_thread_may_stop_itself() -> None:
    stopped = threading.Event()

    def run() -> None:
        thread.stop()
        stopped.set()

    thread = BackgroundThread("worker", run, lambda: None)
    thread.start()

    assert stopped.wait(5)


def test_a_bug_is_logged_with_its_trace_and_ends_the_thread(caplog: pytest.LogCaptureFixture) -> None:
    def run() -> None:
        raise KeyError("bug")

    thread = BackgroundThread("worker", run, lambda: None)
    thread.start()
    thread.stop()

    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "thread worker ended by a bug")
    assert record.exc_info is not None
    assert not thread.alive


def test_a_thread_that_does_not_end_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bookbus.consumers.background_loop.JOIN_LIMIT", 0.01)
    over = threading.Event()
    thread = BackgroundThread("worker", partial(until, over), lambda: None)
    thread.start()

    thread.stop()
    over.set()

    assert [record.getMessage() for record in caplog.records] == ["thread worker did not end within 0.01 s"]
