"""One connection to Redis: commands out, replies in, never waiting longer than asked."""

import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hiredis
from redis.connection import SSLConnection, parse_url

from bookbus.schemas.redis_url import masked, redacted

DEFAULT_URL = "redis://127.0.0.1:6379/0"
_DEFAULT_HOST = "localhost"
_DEFAULT_PORT = 6379
_UNKNOWN_CA = (18, 19, 20, 21)
"""What OpenSSL says of a certificate whose signer it does not know."""


class BusConnectionError(ConnectionError):
    """The bus cannot be reached or read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class BusAddress:
    """One server: a host and port, or the path of a local socket, and how to log in."""

    masked: str
    """The URL as it may be shown: without password and options."""
    host: str = _DEFAULT_HOST
    port: int = _DEFAULT_PORT
    path: str | None = None
    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> "BusAddress":
        """The address in a `redis://`, `rediss://` or `unix://` URL. Raises ValueError without repeating secrets."""
        try:
            options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
            tls = _tls_context(options) if options.get("connection_class") is SSLConnection else None
        except (ValueError, OSError) as error:
            raise ValueError(
                "not a usable Redis URL: write redis://host:6379/0, rediss://host:6379/0 or unix:///path/to/socket"
                + (f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else "")
            ) from None
        return cls(
            masked(url),
            options.get("host", _DEFAULT_HOST),
            options.get("port", _DEFAULT_PORT),
            options.get("path"),
            int(options.get("db", 0)),
            options.get("username"),
            options.get("password"),
            tls,
        )


def unreachable(address: BusAddress, error: OSError) -> BusConnectionError:
    """Nobody answers there, or nobody to be trusted."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return BusConnectionError(
            f"the certificate of {address.masked} is not to be trusted: {error.verify_message}"
            + ("; ?ssl_ca_certs=FILE names the CA that signed it" if error.verify_code in _UNKNOWN_CA else "")
        )
    if isinstance(error, ssl.SSLError):
        return BusConnectionError(f"no TLS with {address.masked}: {error.reason or error}")
    cause = error.strerror or str(error) or type(error).__name__
    return BusConnectionError(
        f"no Redis answers at {address.masked} ({cause.lower()}); "
        "start one with `make redis` or `docker compose up redis`, or name another by its URL"
    )


def refused(address: BusAddress, message: str) -> BusConnectionError:
    """The server answered with an error."""
    # Some servers repeat what they do not understand.
    message = redacted(message, [address.password])
    code = message.partition(" ")[0]
    if code == "NOAUTH":
        return BusConnectionError(
            f"{address.masked} wants a user and its password: redis://USER@host:6379/0 and BOOKBUS_REDIS_PASSWORD"
        )
    if code == "WRONGPASS" or "AUTH" in message:
        return BusConnectionError(f"{address.masked} refuses this user name and password ({message})")
    if code == "MOVED":
        return BusConnectionError(f"{address.masked} is one node of a cluster: name it like redis+cluster://host:port")
    if code == "NOPERM":
        return BusConnectionError(f"{address.masked} does not allow this user to read the bus ({message})")
    return BusConnectionError(f"{address.masked} answers: {message}")


def foreign(address: BusAddress, error: Exception) -> BusConnectionError:
    """What answers is no Redis."""
    return BusConnectionError(f"what answers at {address.masked} is no Redis ({error})")


def _tls_context(options: dict[str, Any]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
    unchecked = str(options.get("ssl_cert_reqs", "required")).lower() == "none"
    if unchecked or str(options.get("ssl_check_hostname", True)).lower() in ("false", "0", "no"):
        context.check_hostname = False
    if unchecked:
        context.verify_mode = ssl.CERT_NONE
    if certificate := options.get("ssl_certfile"):
        context.load_cert_chain(certificate, options.get("ssl_keyfile"))
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

    def authenticated(self) -> bool:
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
            while self.authenticated() and (reply := self.gets()) is not False:
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
