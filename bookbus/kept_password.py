"""The password of the server, kept outside of its address: in a file or in the environment."""

from collections.abc import Mapping
from pathlib import Path

from bookbus.schemas.redis_url import with_password


def add_password(url: str, environ: Mapping[str, str]) -> str:
    """The URL, with a password from the environment if it names a user without one.

    `BOOKBUS_REDIS_PASSWORD_FILE` names a file and has priority over `BOOKBUS_REDIS_PASSWORD`. Raises ValueError if the
    file cannot be read.
    """
    password = environ.get("BOOKBUS_REDIS_PASSWORD", "")
    if path := environ.get("BOOKBUS_REDIS_PASSWORD_FILE"):
        try:
            password = Path(path).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "no text"
            raise ValueError(f"cannot read BOOKBUS_REDIS_PASSWORD_FILE {path}: {reason}") from None
    return with_password(url, password) if url and password else url
