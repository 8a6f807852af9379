"""Bytes of one connection: encoded WebSocket messages, a writer that sends them slowly, the TCP reset."""

import asyncio
import socket
import struct

_INTERVAL = 0.02


def encode_frame(payload: bytes, *, binary: bool = False) -> bytes:
    """A whole WebSocket message. Servers do not mask: the same bytes serve every client."""
    head = 0x82 if binary else 0x81
    size = len(payload)
    if size < 126:
        return struct.pack("!BB", head, size) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", head, 126, size) + payload
    return struct.pack("!BBQ", head, 127, size) + payload


def reset(transport: asyncio.WriteTransport) -> None:
    raw: socket.socket = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class SlowWriter:
    """Writes to a transport in order, at a limited rate, cutting messages anywhere."""

    def __init__(self, transport: asyncio.Transport, bytes_a_second: float) -> None:
        self._transport = transport
        self._portion = max(1, int(bytes_a_second * _INTERVAL))
        self._waiting = bytearray()
        self._ends = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def backlog(self) -> int:
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
