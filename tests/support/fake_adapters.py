"""Exchange connections that carry what a test injects, and nothing else."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from bookbus.feeders.errors import WebSocketConnectionError
from bookbus.schemas.snapshot import OrderBookSnapshot


class FakeWebSocketAdapter:
    """Connects to nothing. `lose()` ends its connection; while `refuse` is set, none can be made."""

    def __init__(self, symbols: Sequence[str], callback: Callable[[OrderBookSnapshot], None], **kwargs: Any) -> None:
        self.symbols = symbols
        self.callback = callback
        self.refuse = ""
        self.connects = 0
        self.subscribed: list[str] = []
        self.last_sign_of_life = 0.0
        self._lost = ""

    async def connect(self) -> None:
        """Count, and refuse if so told."""
        self.connects += 1
        self._lost = ""
        if self.refuse:
            raise WebSocketConnectionError(self.refuse)

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Remember what was asked for."""
        self.subscribed = list(channels)

    async def receive_loop(self) -> None:
        """Return after a moment, or raise if the connection was lost."""
        await asyncio.sleep(0.005)
        if self._lost:
            raise WebSocketConnectionError(self._lost)

    def inject_snapshot(self, snapshot: OrderBookSnapshot) -> None:
        """As if the exchange had sent it."""
        self.callback(snapshot)

    def lose(self, reason: str = "connection closed") -> None:
        """As if the exchange had closed the connection."""
        self._lost = reason


class FakeBinanceWebSocketAdapter(FakeWebSocketAdapter):
    """In place of BinanceWebSocketAdapter."""


class FakeUpbitWebSocketAdapter(FakeWebSocketAdapter):
    """In place of UpbitWebSocketAdapter."""


def no_callback(_: OrderBookSnapshot) -> None:
    """For a fake whose callback is to be replaced by that of the provider it is given to."""
    raise AssertionError("the provider left the adapter's callback as it was")
