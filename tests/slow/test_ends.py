"""A command that was told to end ends, whatever becomes of the cancellation or exception."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bookbus.feeders.simulator.process import SimulatorProcess

ROOT = Path(__file__).parents[2]
LIMIT = 60.0

PROGRAM = """
import asyncio, contextlib, sys, typer
from bookbus.feeders.commands.options import end_if_cancelled, run_until_signal

async def swallow(times):
    print("running", flush=True)
    while True:
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            times -= 1
            if times < 0:
                raise

async def swallow_a_few():
    await swallow(3)

async def swallow_all():
    await swallow(10**9)

async def swallow_in_a_part():
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(swallow(3))

async def swallow_in_cleanup():
    try:
        await swallow(0)
    finally:
        await swallow(3)

async def swallow_and_look():
    await swallow_once()
    end_if_cancelled()
    await swallow_all()

async def swallow_once():
    print("running", flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(1000)

try:
    run_until_signal(globals()[sys.argv[1]](), float(sys.argv[2]))
except typer.Exit as exit:
    sys.exit(exit.exit_code)
"""

CONSUMER = """
import sys, time
from bookbus import command_line
command_line.END_LIMIT = float(sys.argv[2])

class Odd:
    def __del__(self):
        print("running", flush=True)
        time.sleep(1.0)

def ignored():
    # Python ignores whatever is raised here.
    odd = Odd()
    del odd

def swallowed():
    told = False
    while True:
        try:
            if not told:
                told = True
                print("running", flush=True)
            time.sleep(1.0)
        except BaseException:
            pass

with command_line.ended_by_signal():
    globals()[sys.argv[1]]()
    while True:
        time.sleep(1)
"""


def ended(program: str, work: str, limit: float, number: int) -> tuple[int, str]:
    """Exit code and standard error of the program, which gets the signal when it runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", program, work, str(limit)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    return process.returncode, errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 0)])
@pytest.mark.parametrize("work", ["swallow_a_few", "swallow_in_a_part", "swallow_in_cleanup", "swallow_and_look"])
def test_swallowed_cancellations_are_repeated(work: str, number: int, code: int) -> None:
    # With half of the limit for cleaning up; nobody waits for the limit itself.
    assert ended(PROGRAM, work, 4.0, number)[0] == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("work", ["swallow_all"])
def test_work_that_never_ends_is_left_at_the_limit(work: str, number: int, code: int) -> None:
    line = "error: told to end, but did not within 2 s: ended without cleaning up\n"

    assert ended(PROGRAM, work, 2.0, number) == (code, line)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
@pytest.mark.parametrize("work", ["ignored", "swallowed"])
def test_a_swallowed_exit_of_a_reader_is_repeated_at_the_limit(work: str, number: int, code: int) -> None:
    found, errors = ended(CONSUMER, work, 2.0, number)

    assert found == code
    assert errors.endswith("error: told to end, but did not within 2 s: ended without cleaning up\n")


@pytest.mark.parametrize("seed", range(int(os.environ.get("BOOKBUS_TEST_ENDS", "20"))))
def test_a_signal_at_any_time_of_its_start_ends_a_feeder(
    redis_url: str, ends_exchange: SimulatorProcess, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    number = chance.choice([signal.SIGTERM, signal.SIGINT])
    source = ["--exchange", "binance", "--ws-url", ends_exchange.ws_url, "--rest-url", ends_exchange.rest_url]
    process = subprocess.Popen(
        [sys.executable, "-m", "feeders", "run", *source, "--symbols", "BTC", "--redis", redis_url],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path)},
    )
    try:
        time.sleep(chance.uniform(0.0, 2.5))
        process.send_signal(number)
        _, errors = process.communicate(timeout=LIMIT)
    finally:
        process.kill()

    # Before Python has set a handler, the system ends the process; before it has imported `site`, Python does, with 1.
    codes = {130, -signal.SIGINT} if number == signal.SIGINT else {0, -signal.SIGTERM}
    assert process.returncode in codes or "Python runtime state" in errors, errors
    assert "told to end" not in errors


@pytest.fixture(scope="module")
def ends_exchange() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(symbols=["BTCUSDT"]) as exchange:
        yield exchange
