"""One connection to Redis: commands out, replies in, never waiting longer than asked."""

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import hiredis

from bookbus.schemas.redis_url import Login, RedisServer, TlsOptions, redacted

Command = tuple[bytes | str | int, ...]

Gets = Callable[[], Any]
"""Returns the next reply as `hiredis.Reader.gets` does: False when there is none."""

ReplyError = hiredis.ReplyError
"""A reply that is an error: returned among the replies, never raised."""

CONNECT_LIMIT = 2.0
_SEND_LIMIT = 5.0
_CHUNK = 65536
_LARGEST_REPLY = 16 * 2**20
_NOTHING_YET = (BlockingIOError, ssl.SSLWantReadError)
_UNKNOWN_CA = (18, 19, 20, 21)
"""OpenSSL's codes for a certificate whose signer it does not know."""


class BusConnectionError(ConnectionError):
    """The bus cannot be reached or read; the message says what to do."""


class BusConnection:
    """A connection that has logged in as soon as `authenticated()` says so; `gets()` then yields replies.

    Raises BusConnectionError for whatever ends it.
    """

    def __init__(self, server: RedisServer, name: str, connect_limit: float = CONNECT_LIMIT) -> None:
        self.server = server
        self._reader = hiredis.Reader()
        self.gets: Gets = self._reader.gets
        self._socket = _connect(server, connect_limit)
        greeting = _greeting(server.login, name)
        self._greeting = deque(greeting)
        try:
            self.send(greeting)
        except BusConnectionError:
            self.close()
            raise

    def fileno(self) -> int:
        return self._socket.fileno()

    def authenticated(self) -> bool:
        """Whether the server has accepted the login. Raises BusConnectionError if it refuses."""
        while self._greeting:
            reply = self.gets()
            if reply is False:
                return False
            command = self._greeting.popleft()
            if isinstance(reply, ReplyError) and command[0] != "CLIENT":
                raise rejected(self.server, str(reply))
        return True

    def send(self, commands: Sequence[Command]) -> None:
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
        """Read at most one chunk from the socket. Returns whether there may be more."""
        try:
            chunk = self._socket.recv(_CHUNK)
        except _NOTHING_YET:
            return False
        except OSError as error:
            raise self._lost(error) from error
        if not chunk:
            raise BusConnectionError(f"{self.server.masked} closed the connection")
        if self._reader.len() > _LARGEST_REPLY:
            raise BusConnectionError(f"{self.server.masked} sends a reply of more than {_LARGEST_REPLY} bytes")
        self._reader.feed(chunk)
        # TLS decrypts a record at a time; a selector does not see what it has left.
        return len(chunk) == _CHUNK or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0)

    def read(self, take: Callable[[Gets, float], None], now: float) -> bool:
        """Read at most one chunk and pass what it completes to `take`. Returns whether there may be more."""
        more = self.receive()
        try:
            if self.authenticated():
                take(self.gets, now)
        except hiredis.ProtocolError as error:
            raise not_redis(self.server, error) from error
        except TypeError as error:
            # hiredis raises this for a map whose key is a list or a map.
            if "unhashable" not in str(error):
                raise
            raise not_redis(self.server, error) from error
        return more

    def ask(self, commands: Sequence[Command], limit: float) -> list[Any]:
        """Send all of them and return their replies, errors among them, after at most `limit` seconds."""
        deadline = time.monotonic() + limit
        self.send(commands)
        replies: list[Any] = []

        def take(gets: Gets, _: float) -> None:
            while (reply := gets()) is not False:
                replies.append(reply)

        while len(replies) < len(commands):
            self._socket.settimeout(max(deadline - time.monotonic(), 0.001))
            self.read(take, 0.0)
        return replies

    def close(self) -> None:
        self._socket.close()

    def _lost(self, error: OSError) -> BusConnectionError:
        return BusConnectionError(f"connection to {self.server.masked} lost ({error.strerror or error})")


@cache
def tls_context(options: TlsOptions) -> ssl.SSLContext:
    """The context for these options. Raises ValueError if a certificate cannot be read."""
    try:
        context = ssl.create_default_context(cafile=options.ca_file, capath=options.ca_path)
        if options.certificate is not None:
            context.load_cert_chain(options.certificate, options.key)
    except OSError as error:
        raise ValueError(f"cannot read the certificates that the Redis URL names: {error.strerror}") from None
    context.check_hostname = options.check_hostname
    if not options.check_certificate:
        context.verify_mode = ssl.CERT_NONE
    return context


def connect_failed(server: RedisServer, error: OSError) -> BusConnectionError:
    """No server listens there, or its certificate is not trusted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return BusConnectionError(
            f"the certificate of {server.masked} is not to be trusted: {error.verify_message}"
            + ("; ?ssl_ca_certs=FILE names the CA that signed it" if error.verify_code in _UNKNOWN_CA else "")
        )
    if isinstance(error, ssl.SSLError):
        return BusConnectionError(f"no TLS with {server.masked}: {error.reason or error}")
    cause = error.strerror or str(error) or type(error).__name__
    return BusConnectionError(
        f"no Redis answers at {server.masked} ({cause.lower()}); "
        "start one with `make redis` or `docker compose up redis`, or name another by its URL"
    )


def rejected(server: RedisServer, message: str) -> BusConnectionError:
    # Some servers repeat what they do not understand.
    message = redacted(message, [server.login.password])
    code = message.partition(" ")[0]
    if code == "NOAUTH":
        return BusConnectionError(
            f"{server.masked} wants a user and its password: redis://USER@host:6379/0 and BOOKBUS_REDIS_PASSWORD"
        )
    if code == "WRONGPASS" or "AUTH" in message:
        return BusConnectionError(f"{server.masked} refuses this user name and password ({message})")
    if code == "MOVED":
        return BusConnectionError(f"{server.masked} is one node of a cluster: name it like redis+cluster://host:port")
    if code == "NOPERM":
        return BusConnectionError(f"{server.masked} does not allow this user to read the bus ({message})")
    return BusConnectionError(f"{server.masked} answers: {message}")


def not_redis(server: RedisServer, error: Exception) -> BusConnectionError:
    return BusConnectionError(f"what answers at {server.masked} is no Redis ({error})")


def _connect(server: RedisServer, limit: float) -> socket.socket:
    try:
        connection = _open(server, limit)
    except OSError as error:
        raise connect_failed(server, error) from error
    try:
        if server.login.tls is not None:
            connection = tls_context(server.login.tls).wrap_socket(connection, server_hostname=server.host)
        connection.setblocking(False)
    except OSError as error:
        connection.close()
        raise connect_failed(server, error) from error
    return connection


def _open(server: RedisServer, limit: float) -> socket.socket:
    if server.path is None:
        connection = socket.create_connection((server.host, server.port), limit)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(limit)
    try:
        connection.connect(server.path)
    except OSError:
        connection.close()
        raise
    return connection


def _greeting(login: Login, name: str) -> list[Command]:
    # The name is for CLIENT LIST; not every server or user allows it.
    return [*login.commands(), ("CLIENT", "SETNAME", name), ("PING",)]
