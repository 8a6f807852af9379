"""A Redis or Valkey server that lives no longer than this process."""

import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from bookbus.feeders.servers.process import (
    HOST,
    LOG_NAME,
    START_LIMIT,
    STOP_LIMIT,
    LocalRedisError,
    find_server,
    identify,
    last_line,
    server_command,
    url_of,
    wait_until,
)

__all__ = ["LocalRedisError", "LocalServer", "find_server", "free_port", "private_server"]

# Kills the server when our end of the pipe closes without a word: when we are gone, however we went.
_WATCHDOG = 'read -r released || kill -KILL "$1"'


class LocalServer:
    """One server process on one port: start, stop, kill, pause, resume, and start again on the same port.

    It dies with this process. Without `port` a free one is taken; without `directory` a temporary one, removed
    by `close()`. `persistent` keeps the data from one start to the next. `options` go to the server as they are;
    `configuration` is the text of a file that it may rewrite, as Sentinels do.
    """

    def __init__(
        self,
        port: int | None = None,
        directory: Path | None = None,
        *,
        persistent: bool = False,
        options: Sequence[str] = (),
        configuration: str | None = None,
        binary: Path | None = None,
    ) -> None:
        self._port = port
        self._directory = directory
        self._temporary = directory is None
        self._persistent = persistent
        self.options = tuple(options)
        self._configuration = configuration
        self._binary = binary
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "LocalServer":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def port(self) -> int:
        """The port; the one taken at the first start stays."""
        if self._port is None:
            raise LocalRedisError("the server was not started yet")
        return self._port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return url_of(self.port)

    @property
    def pid(self) -> int:
        """Process id. Raises LocalRedisError while not running."""
        return self._running().pid

    @property
    def directory(self) -> Path:
        """Where the server keeps its data and its log."""
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="bookbus-redis-"))
        return self._directory

    def start(self) -> None:
        """Return once the server answers. Raises LocalRedisError if it does not within the limit."""
        if self._process is not None:
            return
        if self._port is not None:
            self._launch(self._port)
            return
        for attempts_left in (2, 1, 0):
            port = free_port()
            try:
                self._launch(port)
            except LocalRedisError:
                # Between finding a free port and binding it somebody else may have taken it.
                if not attempts_left:
                    raise
            else:
                self._port = port
                return

    def stop(self) -> None:
        """End it in good order, which saves what is persistent."""
        if self._process is None:
            return
        self.resume()
        self._process.terminate()
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._forget()

    def kill(self) -> None:
        """End it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._forget()

    def pause(self) -> None:
        """Make it hang: connections stay open, nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause()`."""
        self._running().send_signal(signal.SIGCONT)

    def wait(self) -> int:
        """Block until the server ends by itself; its exit code."""
        code = self._running().wait()
        self._forget()
        return code

    def close(self) -> None:
        """Stop it, and remove its directory if that is a temporary one."""
        self.stop()
        if self._temporary and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise LocalRedisError("the server is not running")
        return self._process

    def _launch(self, port: int) -> None:
        directory = self.directory
        directory.mkdir(parents=True, exist_ok=True)
        binary, *arguments = server_command(self._binary or find_server(), port, directory, persistent=self._persistent)
        with (directory / LOG_NAME).open("wb") as log:
            # A session of its own: Ctrl-C is for us, and what we still have to say goes to a server that lives.
            self._process = subprocess.Popen(
                [binary, *self._configuration_file(), *arguments, *self.options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._watchdog = _watch(self._process.pid)
            self._await_ready(self._process, port)
        except BaseException:
            self.kill()
            raise

    def _configuration_file(self) -> list[str]:
        if self._configuration is None:
            return []
        file = self.directory / "server.conf"
        if not file.exists():
            file.write_text(self._configuration)
        return [str(file)]

    def _await_ready(self, process: subprocess.Popen[bytes], port: int) -> None:
        def ready() -> bool:
            if process.poll() is not None:
                raise LocalRedisError(f"the server did not start on port {port}: {last_line(self.directory)}")
            try:
                identity = identify(port)
            except TimeoutError:
                return False
            return identity is not None and identity.pid in (process.pid, 0)

        wait_until(ready, START_LIMIT, f"the server on port {port} does not answer")

    def _forget(self) -> None:
        process, watchdog = self._process, self._watchdog
        self._process = self._watchdog = None
        if watchdog is not None:
            watchdog.communicate(b"released\n")
        if process is not None:
            process.wait()


@contextmanager
def private_server(*, options: Sequence[str] = ()) -> Iterator[LocalServer]:
    """A server for this process alone, on a free port, without persistence."""
    with LocalServer(options=options) as server:
        yield server


def _watch(pid: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sh", "-c", _WATCHDOG, "sh", str(pid)], stdin=subprocess.PIPE, start_new_session=True)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port
