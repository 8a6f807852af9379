"""The address of the bus: each form of a Redis URL parsed into one value, and passwords kept out of what is printed."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl, quote, unquote

Kind = Literal["server", "sentinel", "cluster"]
HostPort = tuple[str, int]
"""Host and port."""

DEFAULT_URL = "redis://127.0.0.1:6379/0"
HIDDEN = "***"

_KINDS: dict[str, Kind] = {
    "redis": "server",
    "rediss": "server",
    "unix": "server",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
}
_PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_FORMS = (
    "redis://host:6379/0, redis+sentinel://host:26379,host:26379/service/0, redis+cluster://host:6379,host:6379, "
    "with rediss for TLS, or unix:///path/to/socket"
)
_HOST_PORT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """How to check the server's certificate, and the client's own; files and directories in PEM format."""

    ca_file: str | None = None
    ca_path: str | None = None
    certificate: str | None = None
    key: str | None = None
    check_certificate: bool = True
    check_hostname: bool = True


@dataclass(frozen=True, slots=True)
class Login:
    """Login and connection options, everything but the location of a server."""

    database: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: TlsOptions | None = None
    """None for a connection without TLS."""
    socket_timeout: float | None = None
    socket_connect_timeout: float | None = None
    """Seconds; None if the URL leaves them to the client."""

    def commands(self) -> list[tuple[str | int, ...]]:
        """The first commands of a new connection."""
        commands: list[tuple[str | int, ...]] = []
        if self.password is not None:
            commands.append(("AUTH", *([self.username] if self.username else []), self.password))
        if self.database:
            commands.append(("SELECT", self.database))
        return commands

    def client_arguments(self, timeout: float) -> dict[str, Any]:
        """Keyword arguments for the clients of redis-py; `timeout` where the URL names none."""
        arguments: dict[str, Any] = {
            "db": self.database,
            "username": self.username,
            "password": self.password,
            "socket_timeout": self.socket_timeout or timeout,
            "socket_connect_timeout": self.socket_connect_timeout or timeout,
        }
        if self.tls is not None:
            files = {
                "ssl_ca_certs": self.tls.ca_file,
                "ssl_ca_path": self.tls.ca_path,
                "ssl_certfile": self.tls.certificate,
                "ssl_keyfile": self.tls.key,
            }
            arguments |= {
                "ssl": True,
                "ssl_cert_reqs": "required" if self.tls.check_certificate else "none",
                "ssl_check_hostname": self.tls.check_hostname,
                # The asynchronous cluster client does not know all of them.
                **{name: file for name, file in files.items() if file is not None},
            }
        return arguments


@dataclass(frozen=True, slots=True)
class RedisServer:
    """One server: a host and port, or the path of a Unix socket."""

    masked: str
    """Its URL as it may be shown: no password, no options."""
    host: str
    port: int
    path: str | None
    login: Login

    def client_arguments(self, timeout: float) -> dict[str, Any]:
        """Keyword arguments for redis-py's client of this server."""
        location = {"host": self.host, "port": self.port} if self.path is None else {"unix_socket_path": self.path}
        return {**location, **self.login.client_arguments(timeout)}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The bus: one server, several of which any may be read from, Sentinels that know the primary, or a cluster."""

    masked: str
    """As it may be shown: no password, no options."""
    kind: Kind
    hosts: tuple[HostPort, ...]
    """Servers, Sentinels, or some nodes of the cluster; one that does not matter for a Unix socket."""
    login: Login
    """The same at every server."""
    service: str = ""
    """The name under which the Sentinels know the bus."""
    nearest: bool = False
    """Whether readers take the server that answers fastest, primary or replica."""
    sentinel_login: Login = field(default_factory=Login)
    """The login at the Sentinels themselves."""
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Passwords, which must not appear in logs and errors."""
    _path: str | None = None
    _shown_user: str = field(default="", repr=False)

    @property
    def servers(self) -> tuple[RedisServer, ...]:
        """The servers that the URL names; none if it names Sentinels."""
        if self.kind == "sentinel":
            return ()
        if self.kind == "server" and len(self.hosts) == 1:
            return (RedisServer(self.masked, *self.hosts[0], self._path, self.login),)
        return tuple(map(self.server_at, self.hosts))

    def server_at(self, host_port: HostPort) -> RedisServer:
        """A server of this bus at another address."""
        host, port = host_port
        scheme = "redis" if self.login.tls is None else "rediss"
        shown = f"[{host}]" if ":" in host else host
        return RedisServer(
            f"{scheme}://{self._shown_user}{shown}:{port}/{self.login.database}", host, port, None, self.login
        )


def parse_redis_url(url: str) -> RedisAddress:
    """The bus that this URL names. Raises ValueError, which repeats no secret, if it is not valid."""
    scheme, separator, _ = url.partition("://")
    kind = _KINDS.get(scheme) if separator else None
    parts = _split(url)
    if kind is None or parts is None:
        raise ValueError(f"not a usable Redis URL: write it like {_FORMS}")
    user_and_password, at, hosts = parts.netloc.rpartition("@")
    options = dict(parse_qsl(parts.query))
    path, service, database = None, "", "0"
    if scheme == "unix":
        path, hosts = unquote(parts.path), ""
        if not path:
            raise ValueError(f"the Redis URL names no socket; write it like {_FORMS}")
    else:
        service, database = _service_and_database(kind, parts.path)
    username, _, password = (unquote(text) for text in user_and_password.partition(":"))
    tls = _tls(options) if scheme.startswith("rediss") else None
    read = options.get("read")
    if read not in (None, "nearest") or (read and kind != "sentinel"):
        raise ValueError("?read=nearest is the only value of this option, and only with redis+sentinel://")
    host_ports = tuple(_host_port(text, _PORTS[kind]) for text in hosts.split(",")) if hosts else ()
    if not host_ports and kind != "server":
        raise ValueError(f"the Redis URL names no host; write it like {_FORMS}")
    return RedisAddress(
        masked=masked(url),
        kind=kind,
        hosts=host_ports or (("localhost", _PORTS[kind]),),
        login=Login(
            _database(kind, options.get("db", database)),
            username or options.get("username"),
            password or options.get("password"),
            tls,
            _seconds(options, "socket_timeout"),
            _seconds(options, "socket_connect_timeout"),
        ),
        service=service,
        nearest=read is not None or (kind == "server" and len(host_ports) > 1),
        sentinel_login=Login(0, options.get("sentinel_username"), options.get("sentinel_password"), tls),
        secrets=tuple(secrets_of(url)),
        _path=path,
        _shown_user=_shown_user(user_and_password, at),
    )


def masked(url: str) -> str:
    """The URL as people and logs may see it: no password, no options; `***` if it is not valid."""
    parts = _split(url)
    if parts is None:
        return HIDDEN
    user_and_password, at, hosts = parts.netloc.rpartition("@")
    # A password with a character that has a meaning in URLs ends up in a part that never holds one.
    misplaced = "@" in parts.path + parts.query + parts.fragment or _HOSTS.fullmatch(hosts) is None
    if misplaced or _SCHEME.match(url) is None:
        return HIDDEN
    return f"{parts.scheme}://{_shown_user(user_and_password, at)}{hosts}{parts.path}"


def with_password(url: str, password: str) -> str:
    """The URL with this password if it names a user without one; else unchanged."""
    found = _USER_ALONE.fullmatch(url)
    return url if found is None else f"{found['head']}:{quote(password, safe='')}{found['tail']}"


def secrets_of(url: str) -> list[str]:
    """The passwords in the URL, as written and decoded."""
    parts = _split(url)
    if parts is None:
        return []
    _, _, written = parts.netloc.rpartition("@")[0].partition(":")
    options = [value for name, value in parse_qsl(parts.query) if "password" in name]
    return [secret for secret in (written, unquote(written), *options) if secret]


def redacted(text: object, secrets: Iterable[str | None]) -> str:
    """Text of a server or library, without the secrets that it may repeat."""
    shown = str(text)
    for secret in filter(None, secrets):
        shown = shown.replace(secret, HIDDEN)
    return shown


def no_primary(service: str, errors: str) -> str:
    """One line for the errors of every Sentinel, one a line; it names a cause only if that is TLS or the login."""
    cause = _CAUSE.search(errors)
    return f"none of these Sentinels knows a primary of {service} that is up" + (
        f" ({cause[0].strip()})" if cause else ""
    )


_CAUSE = re.compile(r"\[SSL[^(\n]+|(?:invalid username|WRONGPASS|NOAUTH|Authentication required)[^\n]*")
_ONE_HOST = r"(?:\[[\da-fA-F:.]+\]|[\w.-]*)(?::\d+)?"
_HOSTS = re.compile(rf"{_ONE_HOST}(?:,{_ONE_HOST})*")
_SCHEME = re.compile(r"[a-z][a-z+]*://")
_USER_ALONE = re.compile(r"(?P<head>[a-z+]+://[^:@/?#]+)(?P<tail>@.*)", re.DOTALL)


class _Parts(NamedTuple):
    scheme: str
    netloc: str
    path: str
    query: str
    fragment: str


# RFC 3986, appendix B. The standard library refuses several hosts of which one is an IPv6 address.
_PARTS = re.compile(r"(?:([A-Za-z][A-Za-z0-9+.-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)


def _split(url: str) -> _Parts | None:
    found = _PARTS.fullmatch(url)
    parts = _Parts(*(part or "" for part in found.groups())) if found else None
    return parts if parts and parts.netloc.count("[") == parts.netloc.count("]") else None


def _shown_user(user_and_password: str, at: str) -> str:
    user, colon, _ = user_and_password.partition(":")
    # A name without a colon may be a password.
    return (f"{user}:{HIDDEN}" if colon else HIDDEN if at else "") + at


def _host_port(text: str, default_port: int) -> HostPort:
    match = _HOST_PORT.fullmatch(text.strip())
    if match is None or not 0 < (port := int(match[2] or default_port)) < 65536:
        raise ValueError("the hosts of a Redis URL are written host:port,host:port")
    return match[1].strip("[]"), port


def _service_and_database(kind: Kind, path: str) -> tuple[str, str]:
    words = path.strip("/").split("/") if path.strip("/") else []
    service = words.pop(0) if kind == "sentinel" and words else ""
    if kind == "sentinel" and not service:
        raise ValueError("Sentinels know several servers: name yours, redis+sentinel://host:26379/service/0")
    return service, "/".join(words) or "0"


def _database(kind: Kind, text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"the path of a Redis URL ends with the number of a database: {_FORMS}")
    if kind == "cluster" and int(text):
        raise ValueError("a Redis cluster has database 0 alone")
    return int(text)


def _tls(options: dict[str, str]) -> TlsOptions:
    check_certificate = options.get("ssl_cert_reqs", "required").lower() != "none"
    return TlsOptions(
        options.get("ssl_ca_certs"),
        options.get("ssl_ca_path"),
        options.get("ssl_certfile"),
        options.get("ssl_keyfile"),
        check_certificate,
        check_certificate and options.get("ssl_check_hostname", "true").lower() not in ("false", "0", "no"),
    )


def _seconds(options: dict[str, str], name: str) -> float | None:
    if name not in options:
        return None
    try:
        seconds = float(options[name])
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise ValueError(f"{name} in a Redis URL is a number of seconds above 0")
    return seconds
