"""One connection to Redis: commands out, replies in, never waiting longer than asked."""

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import hiredis

from bookbus.consumers.bus.address import BusAddress, BusConnectionError, refused, unreachable

Command = tuple[bytes | str | int, ...]


CONNECT_LIMIT = 2.0
_SEND_LIMIT = 5.0
_CHUNK = 65536
_LARGEST_REPLY = 16 * 2**20
_NOTHING_YET = (BlockingIOError, ssl.SSLWantReadError)


class BusLink:
    """A connection that has logged in as soon as `greeted()` says so; `gets()` then yields replies.

    Raises BusConnectionError for whatever ends it.
    """

    def __init__(self, address: BusAddress, name: str, connect_limit: float = CONNECT_LIMIT) -> None:
        self._address = address
        self._reader = hiredis.Reader()
        self.gets: Callable[[], Any] = self._reader.gets
        self._socket = _connect(address, connect_limit)
        greeting = _greeting(address, name)
        self._greeting = deque(greeting)
        try:
            self.send(greeting)
        except BusConnectionError:
            self.close()
            raise

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def greeted(self) -> bool:
        """Whether the server has accepted the login. Raises BusConnectionError if it refuses."""
        while self._greeting:
            reply = self.gets()
            if reply is False:
                return False
            command = self._greeting.popleft()
            if isinstance(reply, hiredis.ReplyError) and command[0] != "CLIENT":
                raise refused(self._address, str(reply))
        return True

    def send(self, commands: Sequence[Command]) -> None:
        """Send all of them in one go."""
        if not commands:
            return
        data = b"".join(hiredis.pack_command(command) for command in commands)  # type: ignore[arg-type]
        try:
            self._socket.settimeout(_SEND_LIMIT)
            self._socket.sendall(data)
            self._socket.setblocking(False)
        except OSError as error:
            raise self._lost(error) from error

    def receive(self) -> bool:
        """Take what has arrived, at most one chunk. Whether there may be more."""
        try:
            chunk = self._socket.recv(_CHUNK)
        except _NOTHING_YET:
            return False
        except OSError as error:
            raise self._lost(error) from error
        if not chunk:
            raise BusConnectionError(f"{self._address.masked} closed the connection")
        if self._reader.len() > _LARGEST_REPLY:
            raise BusConnectionError(f"{self._address.masked} sends a reply of more than {_LARGEST_REPLY} bytes")
        self._reader.feed(chunk)
        # TLS hands out a record at a time, and holds more of what no selector can see.
        return len(chunk) == _CHUNK or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0)

    def ask(self, commands: Sequence[Command], limit: float) -> list[Any]:
        """Send all of them and wait for their answers, errors among them, for at most `limit` seconds."""
        deadline = time.monotonic() + limit
        self.send(commands)
        replies: list[Any] = []
        while len(replies) < len(commands):
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            self.receive()
            while self.greeted() and (reply := self.gets()) is not False:
                replies.append(reply)
        return replies

    def close(self) -> None:
        """Close it; nothing is waited for."""
        self._socket.close()

    def _lost(self, error: OSError) -> BusConnectionError:
        return BusConnectionError(f"connection to {self._address.masked} lost ({error.strerror or error})")


def _connect(address: BusAddress, limit: float) -> socket.socket:
    try:
        connection = _open(address, limit)
    except OSError as error:
        raise unreachable(address, error) from error
    try:
        if address.tls is not None:
            connection = address.tls.wrap_socket(connection, server_hostname=address.host)
        connection.setblocking(False)
    except OSError as error:
        connection.close()
        raise unreachable(address, error) from error
    return connection


def _open(address: BusAddress, limit: float) -> socket.socket:
    if address.path is None:
        connection = socket.create_connection((address.host, address.port), limit)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(limit)
    try:
        connection.connect(address.path)
    except OSError:
        connection.close()
        raise
    return connection


def _greeting(address: BusAddress, name: str) -> list[Command]:
    commands: list[Command] = []
    if address.password is not None:
        commands.append(("AUTH", *([address.username] if address.username else []), address.password))
    if address.database:
        commands.append(("SELECT", address.database))
    # Shown by CLIENT LIST; a server or a user's rights may refuse it.
    commands.append(("CLIENT", "SETNAME", name))
    commands.append(("PING",))
    return commands
