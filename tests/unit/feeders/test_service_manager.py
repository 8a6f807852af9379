"""What a feeder tells systemd, on a stand-in notify socket: one that stalls is not said to be alive."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bookbus.feeders.service_manager import ServiceManager
from tests.support.notify_socket import NotifySocket


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[NotifySocket]:
    listening = NotifySocket(str(tmp_path / "notify"))
    yield listening
    listening.close()


def manager(tmp_path: Path, watchdog: float | None = 3.0) -> ServiceManager:
    return ServiceManager(str(tmp_path / "notify"), watchdog)


def beats(tmp_path: Path, notify: NotifySocket, counts: list[int | None]) -> list[str]:
    """What is said while these are the counts, one each third of the watchdog's interval."""
    waiting = iter(counts)
    said: list[str] = []

    async def sleep(seconds: float) -> None:
        assert seconds == 1.0
        said.extend(notify.received())

    def written() -> int | None:
        try:
            return next(waiting)
        except StopIteration:
            raise asyncio.CancelledError from None

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(manager(tmp_path).feed_watchdog(written, lambda: "2 of 2 books live", sleep=sleep))
    return said


@pytest.mark.parametrize(
    ("counts", "fed"),
    [
        ([None] * 20, 20),  # the exchange or the server is away, or nothing changes
        (list(range(20)), 20),
        ([5, 5, None, 5, 5, None, 5, 5], 8),
        ([5, 5, 5, 6, 6, 6, 7], 7),
        ([5] * 20, 3),  # it waits and is not written: the manager ends it
        ([1, 2, *[3] * 20], 5),
        ([*[5] * 10, 6], 4),  # and once it goes on
    ],
)
def test_watchdog_is_fed_while_what_waits_is_written(
    tmp_path: Path, notify: NotifySocket, counts: list[int | None], fed: int
) -> None:
    assert beats(tmp_path, notify, counts) == ["WATCHDOG=1\nSTATUS=2 of 2 books live"] * fed


def test_stall_is_logged_once(tmp_path: Path, notify: NotifySocket, caplog: pytest.LogCaptureFixture) -> None:
    beats(tmp_path, notify, [5] * 20)

    assert [record.message for record in caplog.records] == [
        "nothing was written to the server for 3.0 s though it waits"
    ]


def test_loop_that_stalls_feeds_nothing(tmp_path: Path, notify: NotifySocket) -> None:
    async def stall() -> int:
        service = manager(tmp_path, 0.03)
        task = asyncio.create_task(service.feed_watchdog(lambda: None, lambda: ""))
        await asyncio.sleep(0.1)
        assert notify.received()
        ended = asyncio.get_running_loop().time() + 0.3
        while asyncio.get_running_loop().time() < ended:
            pass  # as code does that computes and never awaits
        said = len(notify.received())
        task.cancel()
        return said

    assert asyncio.run(stall()) == 0


def test_states_are_sent_in_one_message(tmp_path: Path, notify: NotifySocket) -> None:
    manager(tmp_path).report("READY=1", "STATUS=starts")

    assert notify.received() == ["READY=1\nSTATUS=starts"]


def test_abstract_address_is_understood() -> None:
    name = f"bookbus-test-{os.getpid()}"
    listening = NotifySocket(f"\0{name}")
    try:
        ServiceManager.of({"NOTIFY_SOCKET": f"@{name}"}).report("READY=1")
        assert listening.received() == ["READY=1"]
    finally:
        listening.close()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ServiceManager()),
        ({"WATCHDOG_USEC": "1000000"}, ServiceManager()),
        ({"NOTIFY_SOCKET": "/n"}, ServiceManager("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "30000000"}, ServiceManager("/n", 30.0)),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "0"}, ServiceManager("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "soon"}, ServiceManager("/n")),
        ({"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1"}, ServiceManager("/n")),
        (
            {"NOTIFY_SOCKET": "/n", "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": str(os.getpid())},
            ServiceManager("/n", 5.0),
        ),
    ],
)
def test_manager_is_the_one_of_the_environment(environment: dict[str, str], expected: ServiceManager) -> None:
    assert ServiceManager.of(environment) == expected


def test_nothing_happens_without_a_manager(tmp_path: Path) -> None:
    ServiceManager().report("READY=1")
    ServiceManager(str(tmp_path / "nobody"), 1.0).report("READY=1")
    asyncio.run(ServiceManager("/n").feed_watchdog(lambda: None, lambda: ""))
