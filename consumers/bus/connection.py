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

_UNKNOWN_CA = (18, 19, 20, 21)
"""What OpenSSL says of a certificate whose signer it does not know."""


class BusConnectionError(ConnectionError):
    """The bus cannot be reached or read; the message says what to do."""


def unreachable(server: RedisServer, error: OSError) -> BusConnectionError:
    """Nobody answers there, or nobody to be trusted."""
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


def refused(server: RedisServer, message: str) -> BusConnectionError:
    """The server answered with an error."""
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


def foreign(server: RedisServer, error: Exception) -> BusConnectionError:
    """What answers is no Redis."""
    return BusConnectionError(f"what answers at {server.masked} is no Redis ({error})")


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


Command = tuple[bytes | str | int, ...]


CONNECT_LIMIT = 2.0
_SEND_LIMIT = 5.0
_CHUNK = 65536
_LARGEST_REPLY = 16 * 2**20
_NOTHING_YET = (BlockingIOError, ssl.SSLWantReadError)


class BusLink:
    """A connection that has logged in as soon as `authenticated()` says so; `gets()` then yields replies.

    Raises BusConnectionError for whatever ends it.
    """

    def __init__(self, server: RedisServer, name: str, connect_limit: float = CONNECT_LIMIT) -> None:
        self.server = server
        self._reader = hiredis.Reader()
        self.gets: Callable[[], Any] = self._reader.gets
        self._socket = _connect(server, connect_limit)
        greeting = _greeting(server.login, name)
        self._greeting = deque(greeting)
        try:
            self.send(greeting)
        except BusConnectionError:
            self.close()
            raise

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def authenticated(self) -> bool:
        """Whether the server has accepted the login. Raises BusConnectionError if it refuses."""
        while self._greeting:
            reply = self.gets()
            if reply is False:
                return False
            command = self._greeting.popleft()
            if isinstance(reply, hiredis.ReplyError) and command[0] != "CLIENT":
                raise refused(self.server, str(reply))
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
            raise BusConnectionError(f"{self.server.masked} closed the connection")
        if self._reader.len() > _LARGEST_REPLY:
            raise BusConnectionError(f"{self.server.masked} sends a reply of more than {_LARGEST_REPLY} bytes")
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
            try:
                while self.authenticated() and (reply := self.gets()) is not False:
                    replies.append(reply)
            except hiredis.ProtocolError as error:
                raise foreign(self.server, error) from error
        return replies

    def close(self) -> None:
        """Close it; nothing is waited for."""
        self._socket.close()

    def _lost(self, error: OSError) -> BusConnectionError:
        return BusConnectionError(f"connection to {self.server.masked} lost ({error.strerror or error})")


def _connect(server: RedisServer, limit: float) -> socket.socket:
    try:
        connection = _open(server, limit)
    except OSError as error:
        raise unreachable(server, error) from error
    try:
        if server.login.tls is not None:
            connection = tls_context(server.login.tls).wrap_socket(connection, server_hostname=server.host)
        connection.setblocking(False)
    except OSError as error:
        connection.close()
        raise unreachable(server, error) from error
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
    commands: list[Command] = []
    if login.password is not None:
        commands.append(("AUTH", *([login.username] if login.username else []), login.password))
    if login.database:
        commands.append(("SELECT", login.database))
    # Shown by CLIENT LIST; a server or a user's rights may refuse it.
    commands.append(("CLIENT", "SETNAME", name))
    commands.append(("PING",))
    return commands
