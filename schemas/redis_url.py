"""Which servers the URL of a bus names, and the URL of each of them."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

Kind = Literal["server", "sentinel", "cluster"]
HostPort = tuple[str, int]
"""Host and port."""

_SCHEMES: dict[str, tuple[str, Kind]] = {
    "redis": ("redis", "server"),
    "rediss": ("rediss", "server"),
    "unix": ("unix", "server"),
    "redis+sentinel": ("redis", "sentinel"),
    "rediss+sentinel": ("rediss", "sentinel"),
    "redis+cluster": ("redis", "cluster"),
    "rediss+cluster": ("rediss", "cluster"),
}
_PORTS = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_CAUSE = re.compile(r"\[SSL[^(\n]+|(?:invalid username|WRONGPASS|NOAUTH|Authentication required)[^\n]*")
_PLACE = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+)(?::(\d{1,5}))?")

FORMS = (
    "redis://host:6379/0, redis+sentinel://host:26379,host:26379/service/0, redis+cluster://host:6379,host:6379, "
    "with rediss for TLS, or unix:///path/to/socket"
)


@dataclass(frozen=True, slots=True)
class BusServers:
    """The servers to begin with: the bus itself, the Sentinels that know where it is, or some nodes of a cluster."""

    kind: Kind
    places: tuple[HostPort, ...]
    """None for a single server, which its URL names in its own way."""
    service: str = ""
    """What the Sentinels call the bus."""
    nearest: bool = False
    """Whether readers take the server that answers first, be it the primary or a replica."""
    sentinel_login: tuple[str | None, str | None] = field(default=(None, None), repr=False)
    """User name and password at the Sentinels themselves."""
    _before: str = field(default="", repr=False)
    _behind: str = field(default="", repr=False)

    def url(self, place: HostPort) -> str:
        """The URL of one server, with the login and options of all."""
        host, port = place
        return f"{self._before}{f'[{host}]' if ':' in host else host}:{port}{self._behind}"

    def urls(self) -> Iterator[str]:
        """The URL of each of the servers to begin with."""
        if not self.places:
            yield self._before
        for place in self.places:
            yield self.url(place)


def parse_servers(url: str) -> BusServers:
    """What this URL names. Raises ValueError, which repeats no secret, for one that makes no sense."""
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in _SCHEMES:
        raise ValueError(f"not a usable Redis URL: write it like {FORMS}")
    scheme, kind = _SCHEMES[parts.scheme]
    if scheme == "unix":
        return BusServers("server", (), _before=url)
    login, at, hosts = parts.netloc.rpartition("@")
    places = tuple(_place(text, _PORTS[kind]) for text in hosts.split(",")) if hosts else ()
    options = dict(parse_qsl(parts.query))
    sentinel_login = options.pop("sentinel_username", None), options.pop("sentinel_password", None)
    read = options.pop("read", None)
    if read not in (None, "nearest") or (read and kind != "sentinel"):
        raise ValueError("?read=nearest is all there is to choose, and only with redis+sentinel://")
    service, database = _path(kind, parts.path)
    if kind == "server" and len(places) < 2:
        return BusServers("server", (), _before=url)
    if not places:
        raise ValueError(f"the Redis URL names no host; write it like {FORMS}")
    query = urlencode(options)
    return BusServers(
        kind,
        places,
        service,
        kind == "server" or read is not None,
        sentinel_login,
        f"{scheme}://{login}{at}",
        f"/{database}" + (f"?{query}" if query else ""),
    )


def no_primary(service: str, told: str) -> str:
    """One line of what went wrong with every Sentinel, a line each, most of which is of no use to people."""
    cause = _CAUSE.search(told)
    return f"none of these Sentinels knows a primary of {service} that is up" + (
        f" ({cause[0].strip()})" if cause else ""
    )


def _place(text: str, default_port: int) -> HostPort:
    match = _PLACE.fullmatch(text.strip())
    if match is None or not 0 < (port := int(match[2] or default_port)) < 65536:
        raise ValueError("the hosts of a Redis URL are written host:port,host:port")
    return match[1].strip("[]"), port


def _path(kind: Kind, path: str) -> tuple[str, str]:
    """Service and database in the path of a URL."""
    words = path.strip("/").split("/") if path.strip("/") else []
    service = words.pop(0) if kind == "sentinel" and words else ""
    if kind == "sentinel" and not service:
        raise ValueError("Sentinels know several servers: name yours, redis+sentinel://host:26379/service/0")
    database = words.pop(0) if words else "0"
    if words or not database.isdecimal():
        raise ValueError(f"the path of a Redis URL ends with the number of a database: {FORMS}")
    if kind == "cluster" and int(database):
        raise ValueError("a Redis cluster has database 0 alone")
    return service, database


_ONE_PLACE = r"(?:\[[\da-fA-F:.]+\]|[\w.-]*)(?::\d+)?"
_PLACES = re.compile(rf"{_ONE_PLACE}(?:,{_ONE_PLACE})*")
_SCHEME = re.compile(r"[a-z][a-z+]*://")
_USER_ALONE = re.compile(r"(?P<head>[a-z+]+://[^:@/?#]+)(?P<tail>@.*)", re.DOTALL)

HIDDEN = "***"


def masked(url: str) -> str:
    """The URL as people and logs may see it: no password, no options; nothing at all where it makes no sense."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return HIDDEN
    login, at, places = parts.netloc.rpartition("@")
    # A password with a sign that means something in URLs lies where no password belongs.
    misplaced = "@" in parts.path + parts.query + parts.fragment or _PLACES.fullmatch(places) is None
    if misplaced or _SCHEME.match(url) is None:
        return HIDDEN
    user, colon, _ = login.partition(":")
    # A name alone may be a password whose writer left out the colon.
    shown = f"{user}:{HIDDEN}" if colon else HIDDEN if at else ""
    return f"{parts.scheme}://{shown}{at}{places}{parts.path}"


def with_password(url: str, password: str) -> str:
    """The URL with the password of the user whom it names without one; as it is where it names none."""
    found = _USER_ALONE.fullmatch(url)
    return url if found is None else f"{found['head']}:{quote(password, safe='')}{found['tail']}"


def secrets_of(url: str) -> list[str]:
    """The passwords in the URL, as they are written there and as they are meant."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return []
    _, _, written = parts.netloc.rpartition("@")[0].partition(":")
    options = [value for name, value in parse_qsl(parts.query) if "password" in name]
    return [secret for secret in (written, unquote(written), *options) if secret]


def redacted(text: object, secrets: Iterable[str | None]) -> str:
    """The text of somebody else, without the secrets that he may repeat."""
    shown = str(text)
    for secret in filter(None, secrets):
        shown = shown.replace(secret, HIDDEN)
    return shown
