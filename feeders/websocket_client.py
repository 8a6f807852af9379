"""One WebSocket connection to an exchange: open, send at a limited rate, drain, detect silence."""

import asyncio
import logging
import ssl
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from urllib.request import getproxies

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    WebSocketException,
)

from bookbus.feeders.errors import WebSocketConnectionError, WebSocketTimeoutError, WebSocketUnavailableError
from bookbus.schemas.redis_url import masked, redacted, secrets_of

logger = logging.getLogger(__name__)

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""Above any exchange's largest message (a full snapshot of some 5 MB); beyond it the connection is dropped."""

MAX_QUEUED = 2000
"""Messages buffered before reading stops, which makes the exchange's side wait. Much fewer would leave a feeder that
is behind little to conflate, and it would stay behind.
"""

PING_AFTER = 1.0
"""Seconds without a frame or pong after which a ping is sent."""

PING_EVERY = 20.0
"""Seconds between two pings at most: an exchange may cut a connection on which it receives nothing."""

PONG_LIMIT = 5.0
CLOSE_TIMEOUT = 1.0

_GATEWAY = (500, 502, 503, 504)


class BaseWebSocketClient(ABC):
    """A connection that can be opened again after a loss.

    `heartbeat_interval`: a connection without one data frame for twice as many seconds is to be replaced although
    it answers pings. `timeout`: seconds for connecting and for the exchange's first answer.
    """

    send_interval = 0.3
    """Seconds between two messages of ours; our pings and the library's pongs come on top."""

    keepalive_text: str | None = None
    """Message sent every `keepalive_interval` seconds, where a WebSocket ping is not enough."""

    keepalive_interval = 20.0

    def __init__(self, url: str, heartbeat_interval: float = 30.0, timeout: float = 10.0) -> None:
        self.url = url
        self.heartbeat_interval = heartbeat_interval
        self.timeout = timeout
        self.replace_wanted = asyncio.Event()
        """Set when another connection should take over: end of life, announced shutdown, no frame for long."""
        self.ready = asyncio.Event()
        """Set when the exchange accepted every subscription."""
        self.last_frame = 0.0
        self.last_pong = 0.0
        self.opened_at = 0.0
        self._abandoned = ""
        self._socket: ClientConnection | None = None
        self._outbox: deque[str] = deque()
        self._outbox_filled = asyncio.Event()

    @abstractmethod
    async def subscribe(self, channels: Sequence[str] | None = None) -> None:
        """Ask for these channels, None for all; the messages leave as fast as the exchange allows."""

    @abstractmethod
    def on_message(self, message: bytes) -> None:
        """Handle one message."""

    def check(self, now: float) -> None:  # noqa: B027 - optional
        """Called twice a second while connected. Raises WebSocketTimeoutError if the connection is of no use."""

    @property
    def last_sign_of_life(self) -> float:
        """Monotonic time of the last frame or pong; 0.0 before the first."""
        return max(self.last_frame, self.last_pong)

    @property
    def is_connected(self) -> bool:
        return self._socket is not None

    async def connect(self) -> None:
        """Open the socket. Raises WebSocketConnectionError."""
        self._outbox.clear()
        self._abandoned = ""
        self.replace_wanted.clear()
        self.ready.clear()
        try:
            self._socket = await connect(
                self.url,
                compression=None,
                open_timeout=self.timeout,
                ping_interval=None,
                close_timeout=CLOSE_TIMEOUT,
                max_size=MAX_FRAME_BYTES,
                max_queue=MAX_QUEUED,
                user_agent_header="bookbus",
            )
        except TimeoutError as error:
            raise WebSocketUnavailableError(f"{masked(self.url)} did not answer in time") from error
        # ImportError: a proxy of a kind that needs another package. UnicodeError: a name that no host can have.
        except (OSError, WebSocketException, ImportError, UnicodeError) as error:
            reason = redacted(
                error, [secret for url in (self.url, *getproxies().values()) for secret in secrets_of(url)]
            )
            kind = WebSocketUnavailableError if _is_outage(error) else WebSocketConnectionError
            raise kind(f"cannot connect to {masked(self.url)}: {reason}") from error
        now = time.monotonic()
        self.opened_at = self.last_frame = self.last_pong = now

    def send_soon(self, texts: Sequence[str]) -> None:
        """Queue messages; they leave one by one in `send_interval` steps."""
        self._outbox.extend(texts)
        self._outbox_filled.set()

    async def receive_loop(self) -> None:
        """Drain the connection until it is lost. Raises WebSocketConnectionError or WebSocketTimeoutError."""
        socket = self._require_socket()
        tasks = [asyncio.create_task(work) for work in (self._drain(socket), self._send(socket), self._watch(socket))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await next(iter(done))
        except ConnectionClosed as error:
            raise WebSocketConnectionError(self._abandoned or f"connection closed: {error}") from error
        except OSError as error:
            raise WebSocketConnectionError(f"connection lost: {error}") from error
        except MemoryError as error:
            # What the message would have changed is not known: start again with less in memory.
            raise WebSocketConnectionError("out of memory for a message") from error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.close()

    def abandon(self, reason: str) -> None:
        """Handle no further message of this connection; its loop ends with WebSocketConnectionError."""
        self._abandoned = reason
        if self._socket is not None:
            self._socket.transport.abort()

    async def close(self) -> None:
        """Close the socket; harmless if it is closed."""
        socket, self._socket = self._socket, None
        if socket is not None:
            # Takes CLOSE_TIMEOUT at most if the peer is gone.
            await socket.close()

    async def _drain(self, socket: ClientConnection) -> None:
        receive, on_message, clock = socket.recv, self.on_message, time.monotonic
        while True:
            message = await receive(decode=False)
            self.last_frame = clock()
            on_message(message)
            if self._abandoned:
                raise WebSocketConnectionError(self._abandoned)

    async def _send(self, socket: ClientConnection) -> None:
        while True:
            while self._outbox:
                await socket.send(self._outbox.popleft())
                await asyncio.sleep(self.send_interval)
            self._outbox_filled.clear()
            await self._outbox_filled.wait()

    async def _watch(self, socket: ClientConnection) -> None:
        next_keepalive = time.monotonic() + self.keepalive_interval
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            if self.keepalive_text is not None and now >= next_keepalive:
                next_keepalive = now + self.keepalive_interval
                self.send_soon([self.keepalive_text])
            if now - self.last_frame > 2 * self.heartbeat_interval:
                self.replace_wanted.set()
            if now - self.last_sign_of_life >= PING_AFTER or now - self.last_pong >= PING_EVERY:
                await self._ping(socket)
            self.check(now)

    async def _ping(self, socket: ClientConnection) -> None:
        pong = await socket.ping()
        try:
            async with asyncio.timeout(PONG_LIMIT):
                await pong
        except TimeoutError:
            if time.monotonic() - self.last_frame >= PONG_LIMIT:
                raise WebSocketTimeoutError(f"no frame and no pong for {PONG_LIMIT:g} s") from None
        else:
            self.last_pong = time.monotonic()

    def _require_socket(self) -> ClientConnection:
        if self._socket is None:
            raise WebSocketConnectionError("not connected: call connect() first")
        return self._socket


def _is_outage(error: Exception) -> bool:
    """Whether nothing listens, the connection is closed without an answer, or a gateway reports that."""
    if isinstance(error, InvalidStatus | InvalidProxyStatus):
        return error.response.status_code in _GATEWAY
    if isinstance(error, InvalidMessage | InvalidProxyMessage):
        return isinstance(error.__cause__, EOFError)
    # A server whose certificate is not trusted does listen.
    return isinstance(error, OSError) and not isinstance(error, ssl.SSLCertVerificationError)
