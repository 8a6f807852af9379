"""Runs the parts of a configuration as processes on one machine: starts them again, keeps their logs, ends them all."""

import contextlib
import fcntl
import logging
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import msgspec

from bookbus.configuration import VARIABLE, Configuration

logger = logging.getLogger(__name__)

State = Literal["starting", "running", "waiting", "ended", "stopped"]

FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
"""Seconds before a part that ended is started again: doubled each time, from the first to the longest."""

CALM = 60.0
"""Seconds that a part runs until its next end counts as the first again."""

STEADY = 2.0
"""Seconds after which a part that was started counts as running."""

STOP_LIMIT = 15.0
"""Seconds that a part has to end after SIGTERM before it is killed."""

LOG_LIMIT = 5_000_000
"""Bytes of a log; then it becomes `NAME.log.1`, which replaces the one before."""

_TICK = 0.1
_STATUS_INTERVAL = 1.0
_LAST_LINE = 300
_LOOK_LIMIT = 0.5
"""Seconds for which a lock may be held by somebody who only looks whether it is."""
_STATUS = "status.json"
_LOCK = "up.lock"


class SupervisorError(RuntimeError):
    """It cannot run, or does; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ManagedPart:
    """One process: its name and the words after `bookbus`. `forever` is started again also after a good end."""

    name: str
    command: tuple[str, ...]
    forever: bool = True


class PartStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One part as `status` shows it; `since` is in seconds since 1970, `reason` the last line of one that ended."""

    name: str
    state: State
    pid: int | None
    since: float
    restarts: int
    reason: str
    command: tuple[str, ...]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The supervisor and its parts."""

    pid: int
    started: float
    parts: list[PartStatus]


def parts_of(configuration: Configuration) -> list[ManagedPart]:
    """What the file names: programs first, one of which may be the server, then feeders, interface and page."""
    parts = [ManagedPart(name, tuple(one.command), forever=False) for name, one in configuration.programs.items()]
    parts += [ManagedPart(name, ("feed", "--feeder-id", name)) for name in configuration.feeders]
    parts += [ManagedPart(word, (word,)) for word in ("serve", "web") if getattr(configuration, word) is not None]
    return parts


def state_directory(configuration: Configuration) -> Path:
    """Where status, locks and logs of this file are: beside it."""
    return configuration.directory / ".bookbus" / configuration.path.stem


class Supervisor:
    """Runs parts until `stop()`. `report` gets one line for each change."""

    def __init__(
        self,
        parts: list[ManagedPart],
        directory: Path,
        configuration: Path,
        environment: Mapping[str, str],
        report: Callable[[str], None] = logger.info,
        program: tuple[str, ...] = (sys.executable, "-m", "bookbus"),
    ) -> None:
        self._directory = directory
        self._report = report
        self._started = time.time()
        self._stopping = False
        self._status_due = 0.0
        self._selector = selectors.DefaultSelector()
        environment = {**environment, VARIABLE: str(configuration)}
        self._processes = [
            _Process(part, directory, configuration.parent, environment, program, self._selector) for part in parts
        ]

    def run(self) -> None:
        """Until `stop()` is called or every part has ended well. Raises SupervisorError if it runs already."""
        with only_one(self._directory):
            for name in end_leftovers(self._directory):
                self._report(f"{name} was left over by an earlier run and is ended")
            try:
                while not self._stopping and not all(process.state == "ended" for process in self._processes):
                    self._step()
            finally:
                self._end_all()
                self._write_status()

    def stop(self) -> None:
        """End every part; may be called from a signal handler."""
        self._stopping = True

    def status(self) -> Status:
        return Status(pid=os.getpid(), started=self._started, parts=[one.status() for one in self._processes])

    def _step(self) -> None:
        changed = False
        for process in self._processes:
            if line := process.step():
                self._report(line)
                changed = True
        if changed or time.monotonic() >= self._status_due:
            self._write_status()
        for key, _ in self._selector.select(_TICK):
            key.data.read_output()

    def _end_all(self) -> None:
        """The parts that depend on others first."""
        deadline = time.monotonic() + STOP_LIMIT
        for process in reversed(self._processes):
            if process.part.forever:
                process.terminate()
        self._wait([one for one in self._processes if one.part.forever], deadline)
        for process in reversed(self._processes):
            process.terminate()
        self._wait(self._processes, deadline)
        for process in self._processes:
            process.kill()
            process.close()
        self._selector.close()

    def _wait(self, processes: list["_Process"], deadline: float) -> None:
        while any(process.alive for process in processes) and time.monotonic() < deadline:
            for key, _ in self._selector.select(_TICK):
                key.data.read_output()

    def _write_status(self) -> None:
        self._status_due = time.monotonic() + _STATUS_INTERVAL
        path = self._directory / _STATUS
        unfinished = path.with_suffix(".new")
        try:
            unfinished.write_bytes(msgspec.json.encode(self.status()))
            unfinished.replace(path)
        except OSError as error:
            # A full disk does not end what runs.
            logger.debug("cannot write %s: %s", path, error)


class _Process:
    """One part's process, started again after a delay."""

    def __init__(
        self,
        part: ManagedPart,
        directory: Path,
        working_directory: Path,
        environment: Mapping[str, str],
        program: tuple[str, ...],
        selector: selectors.BaseSelector,
    ) -> None:
        self.part = part
        self.state: State = "starting"
        self._arguments = [*program, *part.command]
        self._directory = directory
        self._working_directory = working_directory
        self._environment = environment
        self._selector = selector
        self._process: subprocess.Popen[bytes] | None = None
        self._log: _Log | None = None
        self._since = time.time()
        self._started_at = 0.0
        self._start_due = 0.0
        self._failures = 0
        self._restarts = 0
        self._reason = ""

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def step(self) -> str:
        """Start it if that is due, see whether it ended. Returns a line if its state changed."""
        now = time.monotonic()
        if self._process is None:
            return self._start(now) if self.state != "ended" and now >= self._start_due else ""
        code = self._process.poll()
        if code is not None:
            return self._ended(code, now)
        if self.state == "starting" and now - self._started_at >= STEADY:
            self._enter("running")
            return f"{self.part.name} runs, pid {self._process.pid}"
        return ""

    def status(self) -> PartStatus:
        return PartStatus(
            name=self.part.name,
            state=self.state,
            pid=self._process.pid if self._process is not None else None,
            since=self._since,
            restarts=self._restarts,
            reason=self._reason,
            command=self.part.command,
        )

    def terminate(self) -> None:
        if self._process is not None and self.alive:
            self._process.terminate()

    def kill(self) -> None:
        if self._process is not None and self.alive:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        """After its end."""
        self._take_rest()
        if self.state != "ended":
            self._enter("stopped")
        self._process = None
        if self._log is not None:
            self._log.close()

    def read_output(self) -> None:
        """What it printed goes to its log."""
        output = self._process.stdout if self._process is not None else None
        if output is None or self._log is None:
            return
        data = os.read(output.fileno(), 65536)
        if data:
            self._log.write(data)
        else:
            self._selector.unregister(output)
            output.close()

    def _start(self, now: float) -> str:
        try:
            self._log = self._log or _Log(self._directory / f"{self.part.name}.log")
            with _lock(self._directory / f"{self.part.name}.lock") as lock:
                # The process keeps the lock for as long as it lives, whatever becomes of this one.
                self._process = subprocess.Popen(
                    self._arguments,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=dict(self._environment),
                    cwd=self._working_directory,
                    start_new_session=True,
                    pass_fds=(lock.fileno(),),
                )
        except (OSError, SupervisorError) as error:
            return self._retry(now, f"cannot start: {error}")
        if self._process.stdout is not None:
            os.set_blocking(self._process.stdout.fileno(), False)
            self._selector.register(self._process.stdout, selectors.EVENT_READ, self)
        self._started_at = now
        self._enter("starting")
        return ""

    def _ended(self, code: int, now: float) -> str:
        self._take_rest()
        self._process = None
        if code == 0 and not self.part.forever:
            self._enter("ended")
            self._reason = ""
            return f"{self.part.name} ended"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        last = self._log.last_line if self._log is not None else ""
        if now - self._started_at >= CALM:
            self._failures = 0
        return self._retry(now, ": ".join(filter(None, [how, last])))

    def _retry(self, now: float, reason: str) -> str:
        delay = min(FIRST_DELAY * 2**self._failures, LONGEST_DELAY)
        self._failures += 1
        self._restarts += 1
        self._start_due = now + delay
        self._reason = reason
        self._enter("waiting")
        return f"{self.part.name} ended ({reason}), starts again in {delay:g} s"

    def _take_rest(self) -> None:
        output = self._process.stdout if self._process is not None else None
        with contextlib.suppress(BlockingIOError):
            while output is not None and not output.closed:
                self.read_output()
        if output is not None and not output.closed:
            self._selector.unregister(output)
            output.close()

    def _enter(self, state: State) -> None:
        self.state = state
        self._since = time.time()


class _Log:
    """A file of at most LOG_LIMIT bytes, and the one before it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab")
        self._tail = b""

    @property
    def last_line(self) -> str:
        """The last line that is not empty."""
        lines = [line for line in self._tail.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[-_LAST_LINE:] if lines else ""

    def close(self) -> None:
        self._file.close()

    def write(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-4 * _LAST_LINE :]
        # A full disk does not end what runs.
        with contextlib.suppress(OSError):
            if self._file.tell() + len(data) > LOG_LIMIT:
                self._file.close()
                self._path.replace(self._path.with_suffix(".log.1"))
                self._file = self._path.open("ab")
            self._file.write(data)
            self._file.flush()


def read_status(directory: Path) -> Status | None:
    """What the supervisor last wrote there; None if there is nothing or it cannot be read."""
    try:
        return msgspec.json.decode((directory / _STATUS).read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def is_running(directory: Path) -> bool:
    """Whether a supervisor runs there."""
    return _is_locked(directory / _LOCK)


def end(directory: Path, limit: float = 2 * STOP_LIMIT) -> list[str]:
    """End the supervisor there with all its parts, and parts that a killed one left over. Returns what was ended.

    Raises SupervisorError if it does not end within `limit` seconds.
    """
    ended = []
    if is_running(directory):
        status = read_status(directory)
        if status is None:
            raise SupervisorError(f"{directory / _STATUS} cannot be read: end the process that holds {_LOCK} yourself")
        ended = [part.name for part in status.parts if part.state in ("starting", "running", "waiting")]
        with contextlib.suppress(ProcessLookupError):
            os.kill(status.pid, signal.SIGTERM)
        deadline = time.monotonic() + limit
        while is_running(directory):
            if time.monotonic() > deadline:
                raise SupervisorError(f"process {status.pid} did not end within {limit:g} s: kill it")
            time.sleep(_TICK)
    return ended + end_leftovers(directory)


def end_leftovers(directory: Path) -> list[str]:
    """End the parts whose supervisor was killed: they still hold their locks. Returns their names."""
    status = read_status(directory)
    left = [
        part
        for part in (status.parts if status is not None else [])
        if part.pid is not None and _is_locked(directory / f"{part.name}.lock")
    ]
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_LIMIT
        waiting = [part for part in left if _is_locked(directory / f"{part.name}.lock")]
        for part in waiting:
            with contextlib.suppress(ProcessLookupError):
                os.kill(part.pid or 0, number)
        while any(_is_locked(directory / f"{part.name}.lock") for part in waiting) and time.monotonic() < deadline:
            time.sleep(_TICK)
    return [part.name for part in left]


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Make the directory and hold its lock. Raises SupervisorError if another supervisor does, or it cannot be made."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(directory / _LOCK):
            yield
    except OSError as error:
        raise SupervisorError(f"cannot use {directory}: {(error.strerror or str(error)).lower()}") from None


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[IO[bytes]]:
    """A file that this process has locked, and so has each process that inherits it."""
    with path.open("ab") as file:
        deadline = time.monotonic() + _LOOK_LIMIT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SupervisorError(f"it runs already ({path} is locked): see bookbus status") from None
                time.sleep(_LOOK_LIMIT / 10)
        yield file


def _is_locked(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except BlockingIOError:
        return True
    except OSError:
        return False
