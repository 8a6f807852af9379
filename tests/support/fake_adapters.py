"""Fake exchange connections that deliver the snapshots that a test injects."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from bookbus.feeders.errors import WebSocketConnectionError
from bookbus.schemas.snapshot import OrderBookSnapshot


class FakeWebSocketAdapter:
    """Connects to nothing. `lose()` ends the connection; while `refuse` is set, `connect()` fails with it."""

    def __init__(self, symbols: Sequence[str], callback: Callable[[OrderBookSnapshot], None], **kwargs: Any) -> None:
        self.symbols = symbols
        self.callback = callback
        self.refuse = ""
        self.connects = 0
        self.subscribed: list[str] = []
        self.last_sign_of_life = 0.0
        self._lost = ""

    async def connect(self) -> None:
        """Count the attempt. Raises WebSocketConnectionError if `refuse` is set."""
        self.connects += 1
        self._lost = ""
        if self.refuse:
            raise WebSocketConnectionError(self.refuse)

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Record the requested channels."""
        self.subscribed = list(channels)

    async def receive_loop(self) -> None:
        """Return after 5 ms. Raises WebSocketConnectionError after `lose()`."""
        await asyncio.sleep(0.005)
        if self._lost:
            raise WebSocketConnectionError(self._lost)

    def inject_snapshot(self, snapshot: OrderBookSnapshot) -> None:
        """Deliver it as if the exchange had sent it."""
        self.callback(snapshot)

    def lose(self, reason: str = "connection closed") -> None:
        """End the connection as if the exchange had closed it."""
        self._lost = reason


class FakeBinanceWebSocketAdapter(FakeWebSocketAdapter):
    """In place of BinanceWebSocketAdapter."""


class FakeUpbitWebSocketAdapter(FakeWebSocketAdapter):
    """In place of UpbitWebSocketAdapter."""


def no_callback(_: OrderBookSnapshot) -> None:
    """The callback of a fake whose provider must replace it."""
    raise AssertionError("the provider did not replace the adapter's callback")
