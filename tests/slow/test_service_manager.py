"""A real feeder under a stand-in for systemd: when it is ready, while the exchange or the server is away, stalled."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bookbus.feeders.redis_server import LocalServer
from bookbus.feeders.simulator.process import SimulatorProcess
from tests.support.feeder_process import FeederProcess, feeder_process
from tests.support.notify_socket import NotifySocket
from tests.support.waiting import wait_for

WATCHDOG = 0.6
"""Seconds; the feeder says something three times as often."""


class Manager(NotifySocket):
    """Keeps what was said."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.said: list[str] = []

    def heard(self, text: str) -> int:
        self.said += self.received()
        return sum(text in one for one in self.said)

    def says_alive(self, times: int = 6) -> None:
        """Return once it was said so many times more."""
        before = self.heard("WATCHDOG=1")
        wait_for(lambda: self.heard("WATCHDOG=1") >= before + times, 30)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    address = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setenv("WATCHDOG_USEC", str(int(WATCHDOG * 1e6)))
    listening = Manager(address)
    yield listening
    listening.close()


@pytest.fixture
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(["BTCUSDT", "ETHUSDT"]) as simulator:
        yield simulator


@pytest.fixture
def feeder(manager: Manager, own_redis_server: LocalServer, simulator: SimulatorProcess) -> Iterator[FeederProcess]:
    url, symbols = own_redis_server.url, ["BTC", "ETH"]
    with feeder_process(url, simulator.ws_url, simulator.rest_url, symbols) as feeder:
        wait_for(lambda: manager.heard("2 of 2 books live"), 60)
        yield feeder


def test_feeder_says_that_it_is_ready_and_that_it_ends(manager: Manager, feeder: FeederProcess) -> None:
    assert manager.heard("READY=1") == 1
    assert manager.heard("STOPPING=1") == 0

    assert feeder.stop() == 0

    assert manager.heard("STOPPING=1") == 1


def test_outage_of_the_exchange_is_no_stall(
    manager: Manager, feeder: FeederProcess, simulator: SimulatorProcess
) -> None:
    os.kill(simulator.pid, signal.SIGSTOP)
    manager.says_alive()
    os.kill(simulator.pid, signal.SIGCONT)
    simulator.stop()
    wait_for(lambda: manager.heard("0 of 2 books live"), 30)
    manager.says_alive()

    assert feeder.process.poll() is None


def test_outage_of_the_server_is_no_stall(
    manager: Manager, feeder: FeederProcess, own_redis_server: LocalServer
) -> None:
    own_redis_server.pause()
    manager.says_alive(10)
    own_redis_server.resume()
    own_redis_server.kill()
    manager.says_alive(10)
    own_redis_server.start()
    manager.says_alive()

    assert feeder.process.poll() is None


def test_feeder_that_is_stopped_is_not_said_to_be_alive(manager: Manager, feeder: FeederProcess) -> None:
    manager.says_alive()
    feeder.signal(signal.SIGSTOP)

    def quiet() -> bool:
        before = manager.heard("WATCHDOG=1")
        time.sleep(2 * WATCHDOG)
        return manager.heard("WATCHDOG=1") == before

    wait_for(quiet, 30)
    feeder.signal(signal.SIGCONT)
    manager.says_alive()
