"""Passwords and URLs: kept out of what people see, put in where they were kept apart."""

import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote, urlsplit

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
