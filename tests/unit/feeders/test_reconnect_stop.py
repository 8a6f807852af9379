"""Stopping the loop that keeps a connection open, at its worst moment."""

import asyncio

import pytest

import bookbus.feeders.reconnect
from bookbus.feeders.reconnect import ReconnectingConnection
from tests.support.waiting import await_for


class SlowToClose:
    """A line that is ready at once, and whose end takes as long as the test wants."""

    def __init__(self) -> None:
        self.replace_wanted = asyncio.Event()
        self.ready = asyncio.Event()
        self.has_valid_data = True
        self.closing = False
        self.may_close = asyncio.Event()

    async def connect(self) -> None:
        self.ready.set()

    async def subscribe(self) -> None: ...

    async def receive_loop(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.closing = True
            await self.may_close.wait()

    async def close(self) -> None: ...

    def successor(self) -> "SlowToClose":
        return SlowToClose()


async def test_a_stop_while_the_replaced_connection_closes_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bookbus.feeders.reconnect, "HANDOVER_GRACE", 0.0)
    line = SlowToClose()
    connection = ReconnectingConnection(line)
    running = asyncio.create_task(connection.run())
    line.replace_wanted.set()
    await await_for(lambda: line.closing, what="the old connection to be closed")

    running.cancel()
    connection.line.may_close.set()
    line.may_close.set()
    await await_for(running.done, 2, "the connection to end")

    assert running.cancelled()
    assert connection.line is not line
    assert connection.line.closing
