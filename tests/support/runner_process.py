"""A paper runner in its own process, started like by a user."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import msgspec


class RunnerProcess:
    """`python -m consumers run` with these arguments; its output is kept for failure messages."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.directory = directory
        self._log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "consumers", "run", "--output-dir", str(directory), *arguments],
            stdout=self._log,
            stderr=self._log,
        )

    @property
    def log(self) -> str:
        """The output so far."""
        self._log.seek(0)
        return self._log.read()

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of one of its files so far; none before the file exists."""
        found = sorted(self.directory.glob(f"{name}_*.jsonl"))
        text = found[0].read_bytes() if found else b""
        return [msgspec.json.decode(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]

    def kpi(self) -> dict[str, Any]:
        """The KPI file, after its end."""
        (path,) = self.directory.glob("kpi_*.json")
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        return found

    def close(self) -> None:
        """Kill it if it runs, and delete its output."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._log.close()


@contextlib.contextmanager
def runner_process(directory: Path, *arguments: str) -> Iterator[RunnerProcess]:
    """A runner that is killed at the end of the block."""
    runner = RunnerProcess(directory, *arguments)
    try:
        yield runner
    finally:
        runner.close()
