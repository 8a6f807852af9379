"""The server in the background that this machine's feeders and readers share: it outlives who started it."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bookbus.feeders.servers.process import (
    LOG_NAME,
    START_LIMIT,
    STOP_LIMIT,
    Identity,
    LocalRedisError,
    ask,
    find_server,
    identify,
    last_line,
    server_command,
    wait_until,
)

SHARED_PORT = 6379


def start_shared(port: int = SHARED_PORT) -> bool:
    """Start the server in the background. False if one answers on that port already, whoever started it."""
    with _locked_directory(port) as directory:
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
            raise LocalRedisError(f"{error}: {last_line(directory)}") from None
        _run_id_file(directory).write_text(run_id)
        return True


def stop_shared(port: int = SHARED_PORT) -> bool:
    """Stop the server that `start_shared` started. False if none runs; LocalRedisError if another one answers."""
    with _locked_directory(port) as directory:
        identity = _identify(port)
        if identity is None:
            return False
        # It tells by its own run id whether it is ours; a process id alone may have become another's.
        if not _run_id_file(directory).exists() or _run_id_file(directory).read_text() != identity.run_id:
            raise LocalRedisError(
                f"the server on port {port} is not the one bookbus started; stop it where it was started"
            )
        ask(port, b"SHUTDOWN NOSAVE\r\n")
        wait_until(lambda: _identify(port) is None, STOP_LIMIT, f"the server on port {port} does not stop")
        _run_id_file(directory).unlink()
        return True


def _await_started(port: int, pid_file: Path) -> str:
    started: list[Identity] = []

    def ready() -> bool:
        identity = _identify(port)
        if identity is None or not pid_file.exists() or str(identity.pid) != pid_file.read_text().strip():
            return False
        started.append(identity)
        return True

    wait_until(ready, START_LIMIT, f"the server on port {port} does not answer")
    return started[0].run_id


def _identify(port: int) -> Identity | None:
    try:
        return identify(port)
    except TimeoutError:
        raise LocalRedisError(f"what listens on port {port} does not answer; stop it or use another port") from None


def _run_id_file(directory: Path) -> Path:
    return directory / "run_id"


@contextmanager
def _locked_directory(port: int) -> Iterator[Path]:
    """Where this server keeps log and names, for one of us at a time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "bookbus" / f"redis-{port}"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory
