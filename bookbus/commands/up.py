"""`up`, `status` and `down`: what bookbus.toml names, running on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import msgspec
import typer

from bookbus.command_line import fail, termination_signals
from bookbus.commands.config import ConfigFile, load_or_fail, overridden
from bookbus.configuration import VARIABLE
from bookbus.supervisor import (
    PartStatus,
    Supervisor,
    SupervisorError,
    end,
    is_running,
    parts_of,
    read_status,
    state_directory,
)

NOT_ALL = 2
"""Exit code of `status` if a part does not run."""

LOG_NAME = "up.log"
"""Where `up --detach` says what starts and ends."""

_START_LIMIT = 20.0
_POLL_INTERVAL = 0.1


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="In the background; see status and down.")] = False,
    file: ConfigFile = None,
) -> None:
    """Run and supervise what bookbus.toml names: its programs, feeders, page and interface, until Ctrl-C or `down`.

    What ends is started again, after half a second at first and half a minute at most. Logs of at most 2 x 5 MB each,
    the status and the locks are in .bookbus/ beside the file; relative paths are from the file's directory.

    \b
      bookbus up
      bookbus up --detach
      bookbus up --config /etc/bookbus/bookbus.toml
    """
    configuration = load_or_fail(file)
    parts, directory = parts_of(configuration), state_directory(configuration)
    if not parts:
        fail(f"{configuration.path} names nothing to run: add a feeder, [feeders.binance]")
    names = {"BOOKBUS_EXCHANGE", "BOOKBUS_FEEDER_ID"}.intersection(overridden(configuration))
    if names and len(configuration.feeders) > 1:
        fail(f"{', '.join(sorted(names))} in the environment would make all feeders of the file one: unset it")
    if is_running(directory):
        fail(f"{configuration.path} runs already: see bookbus status, end it with bookbus down")
    if detach:
        _start_in_background(configuration.path, directory)
        for row in _rows(directory):
            typer.echo(row)
        return
    supervisor = Supervisor(parts, directory, configuration.path, os.environ, typer.echo)
    received: list[int] = []

    def stop(number: int, _: FrameType | None) -> None:
        received.append(number)
        supervisor.stop()

    for number in (signal.SIGINT, *termination_signals()):
        signal.signal(number, stop)
    typer.echo(f"{len(parts)} parts of {configuration.path}; logs in {directory}")
    try:
        supervisor.run()
    except SupervisorError as error:
        fail(str(error))
    typer.echo("all parts ended")
    if received[:1] == [signal.SIGINT]:
        raise typer.Exit(130)


def status(
    json: Annotated[bool, typer.Option("--json", envvar="BOOKBUS_JSON", help="One JSON object per part.")] = False,
    file: ConfigFile = None,
) -> None:
    """What `up` runs: state, process, time in this state, restarts, and why a part ended last.

    Exit code 0 if every part runs, 2 if one does not, 1 if `up` does not run.

    \b
      bookbus status
      bookbus status --json | jq 'select(.state != "running") | .reason'
    """
    configuration = load_or_fail(file)
    directory = state_directory(configuration)
    found = read_status(directory)
    if found is None or not is_running(directory):
        fail(f"nothing of {configuration.path} runs: start it with bookbus up")
    if json:
        for part in found.parts:
            typer.echo(msgspec.json.encode(part))
    else:
        for row in _rows(directory):
            typer.echo(row)
    if any(part.state not in ("running", "ended") for part in found.parts):
        raise typer.Exit(NOT_ALL)


def down(file: ConfigFile = None) -> None:
    """End everything that `up` runs, also what a killed `up` left over. Exit code 0 also if nothing ran.

    \b
      bookbus down
    """
    configuration = load_or_fail(file)
    try:
        ended = end(state_directory(configuration))
    except (SupervisorError, PermissionError) as error:
        fail(str(error))
    typer.echo(f"ended: {', '.join(ended)}" if ended else "nothing was running")


def _start_in_background(path: Path, directory: Path) -> None:
    """Return once every part was started. Exits with an error if that fails."""
    log = directory / LOG_NAME
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "bookbus", "up"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, VARIABLE: str(path)},
                start_new_session=True,
            )
    except OSError as error:
        fail(f"cannot use {directory}: {(error.strerror or str(error)).lower()}")
    deadline = time.monotonic() + _START_LIMIT
    while time.monotonic() < deadline:
        if process.poll() is not None:
            said = log.read_text(errors="replace").strip().splitlines()
            fail(said[-1].removeprefix("error: ") if said else f"it ended with exit code {process.returncode}")
        found = read_status(directory)
        if found is not None and found.pid == process.pid and all(part.state != "starting" for part in found.parts):
            return
        time.sleep(_POLL_INTERVAL)
    fail(f"not every part started within {_START_LIMIT:g} s: see bookbus status, and the logs in {directory}")


def _rows(directory: Path) -> list[str]:
    """One line for each part, its columns below each other."""
    found = read_status(directory)
    rows = [_row(part) for part in found.parts] if found is not None else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _row(part: PartStatus) -> tuple[str, ...]:
    age = max(0.0, time.time() - part.since)
    restarts = "" if not part.restarts else f"{part.restarts} restart{'s' if part.restarts > 1 else ''}"
    return part.name, part.state, f"pid {part.pid}" if part.pid else "-", _duration(age), restarts, part.reason


def _duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if hours < 2 else f"{hours:.0f} h"
