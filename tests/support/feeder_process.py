"""A feeder in its own process, started like by a user."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO


class FeederProcess:
    """`python -m feeders run` with these arguments; its log is kept for failure messages."""

    def __init__(self, *arguments: str) -> None:
        self._log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._cache = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "feeders", "run", *arguments],
            stdout=self._log,
            stderr=self._log,
            env=os.environ | {"XDG_CACHE_HOME": self._cache.name},
        )

    @property
    def log(self) -> str:
        """The output so far."""
        self._log.seek(0)
        return self._log.read()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def stop(self, timeout: float = 10.0) -> int:
        """Send SIGTERM. Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()

    def close(self) -> None:
        """Stop it and delete its log."""
        self.stop()
        self._log.close()
        self._cache.cleanup()


@contextlib.contextmanager
def feeder_process(
    redis_url: str, ws_url: str, rest_url: str, symbols: Iterable[str], *more: str
) -> Iterator[FeederProcess]:
    """A feeder of a simulated exchange, stopped at the end of the block."""
    feeder = FeederProcess(
        "--redis",
        redis_url,
        "--ws-url",
        ws_url,
        "--rest-url",
        rest_url,
        "--symbols",
        ",".join(symbols),
        *more,
    )
    try:
        yield feeder
    finally:
        feeder.close()
