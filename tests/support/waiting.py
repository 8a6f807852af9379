"""Waiting for a condition with a limit, for tests that would otherwise sleep."""

import asyncio
import time
from collections.abc import Callable

INTERVAL = 0.005


def wait_for(condition: Callable[[], object], timeout: float = 5.0, what: str = "the condition") -> None:
    """Return as soon as `condition()` is true. Raises AssertionError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        time.sleep(INTERVAL)


async def await_for(condition: Callable[[], object], timeout: float = 5.0, what: str = "the condition") -> None:
    """The same without blocking the event loop."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {timeout} s"
        await asyncio.sleep(INTERVAL)
