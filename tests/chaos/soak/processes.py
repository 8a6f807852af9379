"""The processes of a soak run: simulated exchanges, feeders, readers."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from bookbus.feeders.simulator.process import SimulatorProcess
from bookbus.schemas.instruments import EXCHANGES, guess_instrument
from tests.chaos.soak.reader import Report
from tests.chaos.soak.resources import Sample, sample

SIMULATED: dict[str, dict[str, float]] = {
    "binance": {"rate": 10.0, "changes": 6, "levels": 1500},
    "upbit": {"rate": 5.0, "changes": 6},
}
"""A realistic load that leaves CPU time for the other processes."""

_STOP_LIMIT = 20.0

_decode_report = msgspec.json.Decoder(Report).decode


class Worker:
    """One process that is sampled periodically; its log goes to a file."""

    def __init__(self, name: str, arguments: Sequence[str], directory: Path, *, counts_tasks: bool = False) -> None:
        self.name = name
        self.samples: list[Sample] = []
        self._tasks_file = directory / f"{name}.tasks"
        self._counts_tasks = counts_tasks
        self._cache = tempfile.TemporaryDirectory()
        environment = os.environ | {"XDG_CACHE_HOME": self._cache.name, "BOOKBUS_SOAK_TASKS": str(self._tasks_file)}
        self.log = directory / f"{name.replace(' ', '-')}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if not counts_tasks else log,
                stderr=log,
                env=environment,
            )

    def look(self, at: float) -> None:
        """Take a sample. Raises OSError if the process is gone."""
        self.samples.append(sample(self.process.pid, at, self._tasks()))
        if self._counts_tasks:
            self.process.send_signal(signal.SIGUSR1)

    def stop(self) -> int:
        """Send SIGTERM to a feeder, close the input of a reader. Returns the exit code."""
        if self._counts_tasks:
            self.process.terminate()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            return self.process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            self._cache.cleanup()

    def _tasks(self) -> int | None:
        """The number of tasks that the process wrote after the previous signal."""
        try:
            return int(self._tasks_file.read_text())
        except (OSError, ValueError):
            return None


class ReaderProcess(Worker):
    """Several readers in one process, and their newest report."""

    def __init__(self, exchange: "Exchange", redis_url: str, directory: Path, readers: int) -> None:
        super().__init__(
            f"{exchange.id} readers",
            [
                "tests.chaos.soak.reader",
                "--redis",
                redis_url,
                "--exchange",
                exchange.id,
                "--rest-url",
                exchange.process.rest_url,
                "--symbols",
                ",".join(exchange.symbols),
                "--readers",
                str(readers),
            ],
            directory,
        )
        self.readers = readers
        self.report = Report()
        self.reports = 0

    async def run(self) -> None:
        """Receive reports until the process ends."""
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            while line := await asyncio.to_thread(lines.readline):
                self.report = _decode_report(line)
                self.reports += 1


class Exchange:
    """One simulated exchange and its symbols."""

    def __init__(self, exchange_id: str, symbols: int, seed: int) -> None:
        self.id = exchange_id
        self.process = SimulatorProcess(symbols, exchange=exchange_id, seed=seed, **SIMULATED[exchange_id])

    @property
    def natives(self) -> list[str]:
        """Native symbols."""
        return self.process.symbols

    @property
    def symbols(self) -> list[str]:
        """Standard symbols."""
        return [guess_instrument(EXCHANGES[self.id], native).symbol for native in self.natives]


def feeder(exchange: Exchange, redis_url: str, directory: Path) -> Worker:
    """A feeder of all symbols of an exchange."""
    return Worker(
        f"{exchange.id} feeder",
        [
            "tests.chaos.soak.counted_feeder",
            "run",
            "--exchange",
            exchange.id,
            "--redis",
            redis_url,
            "--ws-url",
            exchange.process.ws_url,
            "--rest-url",
            exchange.process.rest_url,
            "--symbols",
            ",".join(exchange.natives),
        ],
        directory,
        counts_tasks=True,
    )


@contextlib.contextmanager
def stopped_at_end(worker: Worker) -> Iterator[Worker]:
    """Stop the process at the end of the block."""
    try:
        yield worker
    finally:
        if worker.process.poll() is None:
            worker.stop()
