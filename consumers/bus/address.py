"""Where the bus is, from its URL, and what to tell a person when it cannot be reached."""

import ssl
from dataclasses import dataclass, field
from typing import Any

from redis.connection import SSLConnection, parse_url

from bookbus.schemas.url_secrets import masked, redacted

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
