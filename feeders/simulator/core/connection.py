"""One WebSocket connection as a venue's server sees it: queued output, observed input, and ways to fail."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Event

_INTERVAL = 0.02


class SlowWriter:
    """Stands before a transport: everything given to it goes out in order, so many bytes a second."""

    def __init__(self, transport: asyncio.Transport, bytes_a_second: float) -> None:
        self._transport = transport
        self._portion = max(1, int(bytes_a_second * _INTERVAL))
        self._waiting = bytearray()
        self._ends = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def backlog(self) -> int:
        """Bytes that wait."""
        return len(self._waiting)

    def write(self, data: bytes) -> None:
        self._waiting += data
        if self._timer is None:
            self._send_portion()

    def write_eof(self) -> None:
        """End the stream once everything is sent."""
        self._ends = True
        if self._timer is None:
            self._send_portion()

    def flush(self) -> None:
        """Send everything that waits at once."""
        self._portion = max(1, len(self._waiting))
        if self._timer is not None:
            self._timer.cancel()
        self._send_portion()

    def _send_portion(self) -> None:
        self._timer = None
        if self._transport.is_closing():
            return
        if self._waiting:
            self._transport.write(bytes(self._waiting[: self._portion]))
            del self._waiting[: self._portion]
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self._send_portion)
        elif self._ends:
            self._transport.write_eof()


_OBSERVED = (Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG)
_MAXIMUM_BACKLOG = 64 * 1024 * 1024
"""A client that lets this much pile up is cut off."""


def encode_frame(payload: bytes, *, binary: bool = False) -> bytes:
    """A whole WebSocket message. Servers do not mask: the same bytes serve every client."""
    head = 0x82 if binary else 0x81
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", head, size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", head, 126, size) + payload
    return struct.pack("!BBQ", head, 127, size) + payload


class VenueConnection(ServerConnection):
    """A client's connection. Market data goes past the library, many messages a write."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_frame: Callable[[], None] | None = None
        """Called for every frame the client sends, the closing one excepted."""
        self.is_silent = False
        """No messages go out; pings are answered."""
        self.is_mute = False
        """Nothing at all goes out."""
        self.sent = 0
        self._queued: list[bytes] = []
        self._slow: SlowWriter | None = None

    def queue(self, frame: bytes) -> None:
        """Put an encoded frame behind those that wait for `send_queued`."""
        if not self.is_silent:
            self._queued.append(frame)

    def send_queued(self) -> None:
        """Hand everything queued to the socket in one write."""
        if not self._queued:
            return
        if self.protocol.state is OPEN and not self.is_mute:
            self.sent += len(self._queued)
            (self._slow or self.transport).write(b"".join(self._queued))
            waiting = self.transport.get_write_buffer_size() + (self._slow.backlog if self._slow else 0)
            if waiting > _MAXIMUM_BACKLOG:
                self.transport.abort()
        self._queued.clear()

    def fall_silent(self, *, answers_pings: bool) -> None:
        """Send no more messages; without `answers_pings`, send nothing at all."""
        self.is_silent = True
        self.is_mute = not answers_pings

    def slow_down(self, bytes_a_second: float) -> None:
        """Send slowly from now on, cutting messages anywhere."""
        self._slow = self._slow or SlowWriter(self.transport, bytes_a_second)

    def become_half_open(self) -> None:
        """Behave like a peer that lost power: nothing is sent, nothing is read, nothing is closed."""
        self.is_silent = self.is_mute = True
        self.transport.pause_reading()

    def recover(self) -> None:
        """Behave again."""
        if self.protocol.state is OPEN:
            self.is_silent = self.is_mute = False
            self.transport.resume_reading()
            if self._slow is not None:
                self._slow.flush()
                self._slow = None

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        raw: socket.socket = self.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def drop(self) -> None:
        """End the connection without a closing frame (the client sees code 1006)."""
        self.transport.close()

    def process_event(self, event: Event) -> None:
        """Observe what comes in, then let the library have it."""
        if isinstance(event, Frame) and event.opcode in _OBSERVED and self.on_frame is not None:
            self.on_frame()
        super().process_event(event)

    def send_data(self) -> None:
        """Send what the library has to say: unless the connection is mute, and behind what goes out slowly."""
        if self.is_mute:
            self.protocol.data_to_send()
        elif self._slow is None:
            super().send_data()
        else:
            for data in self.protocol.data_to_send():
                if data:
                    self._slow.write(data)
                else:
                    self._slow.write_eof()
