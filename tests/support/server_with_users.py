"""A server with the users that `python -m feeders acl` creates, and no others."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from bookbus.feeders.__main__ import make_app
from bookbus.feeders.commands.acl import ROLES
from bookbus.feeders.redis_server import LocalServer

app = make_app()


@dataclass(frozen=True, slots=True)
class ServerWithUsers:
    """The server, and the generated password of each role."""

    server: LocalServer
    passwords: dict[str, str]

    def url(self, role: str) -> str:
        """The address with the role's name and password."""
        return self.url_without_password(role).replace("@", f":{self.passwords[role]}@")

    def url_without_password(self, role: str) -> str:
        """The address with the role's name alone."""
        return f"redis://{role}@127.0.0.1:{self.server.port}/0"


def generate(directory: Path, prefix: str = "md") -> dict[str, str]:
    """Write the files into this directory; the passwords by role."""
    result = CliRunner().invoke(app, ["acl", "--out", str(directory), "--prefix", prefix])
    assert result.exit_code == 0, result.output
    texts = {role: (directory / f"{role}.env").read_text() for role in ROLES}
    return {role: text.strip().removeprefix("BOOKBUS_REDIS_PASSWORD=") for role, text in texts.items()}


@contextmanager
def server_with_users(
    directory: Path, options: Sequence[str] = (), binary: Path | None = None
) -> Iterator[ServerWithUsers]:
    """A server started with the generated file."""
    passwords = generate(directory)
    with LocalServer(options=("--aclfile", str(directory / "users.acl"), *options), binary=binary) as server:
        yield ServerWithUsers(server, passwords)
