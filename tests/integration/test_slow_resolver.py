"""A command ends at a signal even while a thread that the loop waits for is blocked, as in the system's resolver."""

import signal
import subprocess
import sys
import time

import pytest

COMMAND = """
import asyncio, sys, time, typer
from bookbus.feeders.commands.options import run_until_signal

async def work():
    looking_up = asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)
    print("started", flush=True)
    try:
        await looking_up
    finally:
        print("closed", flush=True)

try:
    run_until_signal(work())
except typer.Exit as exit:
    sys.exit(exit.exit_code)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_whose_loop_cannot_close(number: signal.Signals, code: int) -> None:
    with subprocess.Popen([sys.executable, "-c", COMMAND], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"started\n"
        began = time.monotonic()
        process.send_signal(number)

        assert process.wait(20) == code
        assert time.monotonic() - began < 8.0
        assert process.stdout.read() == b"closed\n"
