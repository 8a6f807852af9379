"""A connection that the caller brought, as the loop that keeps connections open wants to see it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from bookbus.consumers.change_feed import OnSnapshot

_PAUSE = 0.1


class WebSocketAdapter(Protocol):
    """What a connection brought from outside has to offer; its `callback` is set by whom it is brought to."""

    callback: OnSnapshot

    async def connect(self) -> None:
        """Open the connection. Raises what the exchange adapters raise when that fails."""

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Ask for these native symbols."""

    async def receive_loop(self) -> None:
        """Receive until the connection is lost, which raises; a loop that returns is called again."""


class AdapterLine:
    """Adds what such an adapter need not have."""

    def __init__(
        self,
        adapter: WebSocketAdapter,
        natives: Sequence[str],
        books_received: Callable[[], int],
        on_subscribed: Callable[[], None],
        on_lost: Callable[[], None],
    ) -> None:
        self.replace_wanted = asyncio.Event()
        """Never set: nobody knows how to make another adapter like this one."""
        self.ready = asyncio.Event()
        self.is_connected = False
        self._adapter = adapter
        self._natives = natives
        self._books_received = books_received
        self._books_before = 0
        self._on_subscribed = on_subscribed
        self._on_lost = on_lost

    @property
    def has_valid_data(self) -> bool:
        """Whether a book came by the current connection."""
        return self._books_received() > self._books_before

    @property
    def last_sign_of_life(self) -> float:
        """Monotonic time of the last frame or pong; 0.0 from an adapter that does not tell, or is not connected."""
        return float(getattr(self._adapter, "last_sign_of_life", 0.0)) if self.is_connected else 0.0

    async def connect(self) -> None:
        """Open the connection."""
        self._books_before = self._books_received()
        await self._adapter.connect()
        self.is_connected = True

    async def subscribe(self) -> None:
        """Ask for every symbol."""
        await self._adapter.subscribe(self._natives)
        self.ready.set()
        self._on_subscribed()

    async def receive_loop(self) -> None:
        """Until the adapter says that the connection is lost."""
        try:
            while True:
                await self._adapter.receive_loop()
                await asyncio.sleep(_PAUSE)
        finally:
            self.is_connected = False
            self._on_lost()

    async def close(self) -> None:
        """The adapter closes what it opened when its loop ends."""

    def successor(self) -> "AdapterLine":
        """Itself: `replace_wanted` is never set."""
        return self
