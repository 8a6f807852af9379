"""The supervisor on small processes: started again, ended, logged, and one at a time."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bookbus import supervisor as module
from bookbus.configuration import parse
from bookbus.supervisor import (
    ManagedPart,
    PartStatus,
    Supervisor,
    SupervisorError,
    end,
    end_leftovers,
    is_running,
    parts_of,
    read_status,
    state_directory,
)
from tests.support import waiting

wait_for = partial(waiting.wait_for, timeout=60.0)

PYTHON = (sys.executable, "-c")
SLEEP = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
)


def part(name: str, program: str, *, forever: bool = True) -> ManagedPart:
    return ManagedPart(name, (program,), forever)


@contextlib.contextmanager
def running(directory: Path, *parts: ManagedPart) -> Iterator[tuple[Supervisor, list[str]]]:
    lines: list[str] = []
    supervisor = Supervisor(list(parts), directory, directory / "bookbus.toml", os.environ, lines.append, PYTHON)
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield supervisor, lines
    finally:
        supervisor.stop()
        thread.join(60)
    assert not thread.is_alive()


def run_to_end(directory: Path, *parts: ManagedPart) -> list[str]:
    lines: list[str] = []
    Supervisor(list(parts), directory, directory / "bookbus.toml", os.environ, lines.append, PYTHON).run()
    return lines


def status_of(supervisor: Supervisor, name: str) -> PartStatus:
    return next(one for one in supervisor.status().parts if one.name == name)


def is_alive(pid: int | None) -> bool:
    try:
        os.kill(pid or -1, 0)
    except OSError:
        return False
    return True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(module, "STEADY", 0.05)


def test_part_runs_until_the_supervisor_is_stopped(tmp_path: Path) -> None:
    with running(tmp_path, part("a", SLEEP)) as (supervisor, lines):
        wait_for(lambda: status_of(supervisor, "a").state == "running")
        pid = status_of(supervisor, "a").pid
        assert is_alive(pid)
        assert is_running(tmp_path)

    assert not is_alive(pid)
    assert not is_running(tmp_path)
    assert status_of(supervisor, "a").state == "stopped"
    assert lines == [f"a runs, pid {pid}"]


def test_killed_part_is_started_again(tmp_path: Path) -> None:
    with running(tmp_path, part("a", SLEEP), part("b", SLEEP)) as (supervisor, lines):
        wait_for(lambda: status_of(supervisor, "a").state == "running" == status_of(supervisor, "b").state)
        wait_for(lambda: (tmp_path / "a.log").read_bytes() == b"up\n")
        first, other = status_of(supervisor, "a").pid, status_of(supervisor, "b").pid
        os.kill(first or -1, signal.SIGKILL)
        wait_for(lambda: status_of(supervisor, "a").state == "running" and status_of(supervisor, "a").pid != first)
        again = status_of(supervisor, "a")

        assert (again.restarts, again.reason) == (1, "signal SIGKILL: up")
        assert status_of(supervisor, "b").pid == other
    assert "a ended (signal SIGKILL: up), starts again in 0.01 s" in lines


def test_part_that_fails_is_started_later_each_time_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_DELAY", 0.05)
    monkeypatch.setattr(module, "STEADY", 600.0)
    with running(tmp_path, part("a", "import sys; sys.exit('error: no Redis')")) as (supervisor, lines):
        wait_for(lambda: len(lines) >= 5)
        seen = status_of(supervisor, "a")

    assert [line.rpartition(" in ")[2] for line in lines[:5]] == ["0.01 s", "0.02 s", "0.04 s", "0.05 s", "0.05 s"]
    assert seen.reason == "exit code 1: error: no Redis"


@pytest.mark.parametrize(("forever", "state"), [(False, "ended"), (True, "waiting")])
def test_good_end_of_a_program_is_final_and_of_a_feeder_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forever: bool, state: str
) -> None:
    monkeypatch.setattr(module, "FIRST_DELAY", 600.0)
    monkeypatch.setattr(module, "LONGEST_DELAY", 600.0)
    with running(tmp_path, part("a", "print('done')", forever=forever), part("b", SLEEP)) as (supervisor, _):
        wait_for(lambda: status_of(supervisor, "a").state == state)
        assert status_of(supervisor, "a").pid is None


def test_supervisor_ends_when_every_program_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STEADY", 600.0)

    assert run_to_end(tmp_path, part("a", "pass", forever=False)) == ["a ended"]


def test_program_that_cannot_be_started_waits(tmp_path: Path) -> None:
    lines: list[str] = []
    supervisor = Supervisor([ManagedPart("a", ())], tmp_path, tmp_path / "f.toml", {}, lines.append, ("/nothing/here",))
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    wait_for(lambda: bool(lines))
    supervisor.stop()
    thread.join(60)

    assert "cannot start: " in lines[0]


def test_part_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_LIMIT", 0.3)
    with running(tmp_path, part("a", STUBBORN)) as (supervisor, _):
        wait_for(lambda: (tmp_path / "a.log").exists() and (tmp_path / "a.log").read_bytes() == b"up\n")
        pid = status_of(supervisor, "a").pid

    assert not is_alive(pid)


def test_programs_end_after_feeders(tmp_path: Path) -> None:
    program = (
        "import signal, sys, time\n"
        f"def end(*_): open({str(tmp_path / 'order')!r}, 'a').write(sys.argv[1] + ' '); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(600)"
    )
    parts = [ManagedPart("server", (program, "server"), forever=False), ManagedPart("feeder", (program, "feeder"))]
    with running(tmp_path, *parts):
        wait_for(lambda: all((tmp_path / f"{one.name}.log").exists() for one in parts))
        wait_for(lambda: all((tmp_path / f"{one.name}.log").read_bytes() == b"up\n" for one in parts))

    assert (tmp_path / "order").read_text() == "feeder server "


def test_log_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_LIMIT", 100_000)
    run_to_end(tmp_path, part("a", "for n in range(60_000): print(n, 'line')", forever=False))

    sizes = [(tmp_path / name).stat().st_size for name in ("a.log", "a.log.1")]
    assert max(sizes) <= 100_000
    assert (tmp_path / "a.log").read_bytes().endswith(b"59999 line\n")


def test_part_has_the_environment_and_the_directory_of_the_file(tmp_path: Path) -> None:
    program = "import os; print(os.environ['BOOKBUS_CONFIG'], os.getcwd())"
    run_to_end(tmp_path, part("a", program, forever=False))

    assert (tmp_path / "a.log").read_text().split() == [str(tmp_path / "bookbus.toml"), str(tmp_path)]


def test_second_supervisor_of_a_file_is_refused(tmp_path: Path) -> None:
    with running(tmp_path, part("a", SLEEP)) as (supervisor, _):
        wait_for(lambda: status_of(supervisor, "a").state == "running")
        second = Supervisor([part("a", SLEEP)], tmp_path, tmp_path / "f.toml", os.environ, print, PYTHON)
        with pytest.raises(SupervisorError, match="it runs already"):
            second.run()
        assert status_of(supervisor, "a").restarts == 0


def test_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    supervisor = Supervisor([part("a", SLEEP)], tmp_path / "file" / "x", tmp_path / "f", os.environ, print, PYTHON)

    with pytest.raises(SupervisorError, match=r"cannot use .*: not a directory"):
        supervisor.run()


KILLED = """
import os, sys
from pathlib import Path
from bookbus.supervisor import ManagedPart, Supervisor
directory = Path(sys.argv[1])
parts, program = [ManagedPart("a", (sys.argv[2],))], (sys.executable, "-c")
Supervisor(parts, directory, directory / "f.toml", os.environ, print, program).run()
"""


@pytest.fixture
def orphan(tmp_path: Path) -> Iterator[int]:
    """A part whose supervisor was killed."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), SLEEP])
    wait_for(lambda: (status := read_status(tmp_path)) is not None and status.parts[0].state == "running")
    status = read_status(tmp_path)
    assert status is not None
    process.kill()
    process.wait()
    pid = status.parts[0].pid or -1
    yield pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def test_part_left_over_by_a_killed_supervisor_is_ended(tmp_path: Path, orphan: int) -> None:
    assert is_alive(orphan)
    assert not is_running(tmp_path)

    assert end(tmp_path) == ["a"]

    wait_for(lambda: not is_alive(orphan) or "zombie" in Path(f"/proc/{orphan}/status").read_text())
    assert end(tmp_path) == []


def test_next_supervisor_ends_what_is_left_over_first(tmp_path: Path, orphan: int) -> None:
    with running(tmp_path, part("a", SLEEP)) as (supervisor, lines):
        wait_for(lambda: status_of(supervisor, "a").state == "running")
        assert status_of(supervisor, "a").pid != orphan
    assert lines[0] == "a was left over by an earlier run and is ended"


def test_process_that_has_the_number_of_an_ended_part_is_left_alone(tmp_path: Path) -> None:
    run_to_end(tmp_path, part("a", "pass", forever=False))
    status = read_status(tmp_path)
    assert status is not None
    with subprocess.Popen([*PYTHON, SLEEP], stdout=subprocess.DEVNULL) as other:
        text = (tmp_path / "status.json").read_text().replace('"pid":null', f'"pid":{other.pid}')
        (tmp_path / "status.json").write_text(text)

        assert end_leftovers(tmp_path) == []
        assert other.poll() is None
        other.kill()


def test_status_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    (tmp_path / "status.json").write_text("{")
    assert read_status(tmp_path) is None


def test_parts_are_what_the_file_names_and_the_server_comes_first(tmp_path: Path) -> None:
    text = '[feeders.binance]\n[web]\n[programs.server]\ncommand = ["redis", "--port", "6379"]'
    configuration = parse(text, tmp_path / "bookbus.toml")

    assert parts_of(configuration) == [
        ManagedPart("server", ("redis", "--port", "6379"), forever=False),
        ManagedPart("binance", ("feed", "--feeder-id", "binance")),
        ManagedPart("web", ("web",)),
    ]
    assert state_directory(configuration) == tmp_path / ".bookbus" / "bookbus"


def test_time_in_a_state_is_a_time_of_day(tmp_path: Path) -> None:
    before = time.time()
    with running(tmp_path, part("a", SLEEP)) as (supervisor, _):
        wait_for(lambda: status_of(supervisor, "a").state == "running")
        assert before <= status_of(supervisor, "a").since <= time.time()
