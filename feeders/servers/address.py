"""Where a Redis server is, from its URL."""

import ssl
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio.connection import SSLConnection, parse_url

from bookbus.schemas.redis_url import masked


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A host and port, or the path of a Unix socket, and how to log in."""

    masked: str
    """The URL as it may be shown: no password, no options."""
    host: str
    port: int
    path: str | None
    database: int
    username: str | None
    password: str | None = field(repr=False)
    tls: ssl.SSLContext | None = field(repr=False)


def parse_address(url: str) -> RedisAddress:
    """The address in a `redis://`, `rediss://` or `unix://` URL. Raises ValueError that repeats no secret."""
    try:
        options: dict[str, Any] = {**parse_url(url)}
        return RedisAddress(
            masked=masked(url),
            host=options.get("host", "localhost"),
            port=options.get("port", 6379),
            path=options.get("path"),
            database=int(options.get("db", 0)),
            username=options.get("username"),
            password=options.get("password"),
            tls=_tls(options) if options.get("connection_class") is SSLConnection else None,
        )
    except OSError as error:
        raise ValueError(f"cannot read the certificates that the Redis URL names: {error.strerror}") from None
    except ValueError:
        raise ValueError("not a Redis URL; write it like redis://:password@host:6379/0, rediss:// or unix://") from None


def _tls(options: dict[str, Any]) -> ssl.SSLContext:
    """As redis-py reads the options of a `rediss://` URL."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
    context.check_hostname = str(options.get("ssl_check_hostname", True)).lower() not in ("false", "0", "no")
    if str(options.get("ssl_cert_reqs", "required")).lower() == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := options.get("ssl_certfile"):
        context.load_cert_chain(certificate, options.get("ssl_keyfile"))
    return context
