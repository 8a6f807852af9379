"""`acl`: users and fresh passwords for a server that others reach."""

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from bookbus.feeders.commands.options import PREFIX_DEFAULT, Prefix, fail
from bookbus.feeders.servers.access_rules import ROLES, acl_file
from bookbus.schemas.redis_names import RedisNames

EXAMPLES = """
Users for the server, with fresh random passwords: a feeder writes books, a runner reads and subscribes, a viewer reads.
For Redis 7 or later, or Valkey.

\b
  python -m feeders acl
  python -m feeders acl --prefix staging --out staging-secrets

\b
users.acl goes to the server:      valkey-server --aclfile secrets/users.acl
runner.env to who reads the bus:   set -a; . secrets/runner.env
                                   python -m consumers tail BTC --redis redis://runner@127.0.0.1:6379/0
"""


def acl(
    prefix: Prefix = PREFIX_DEFAULT,
    out: Annotated[Path, typer.Option(envvar="BOOKBUS_SECRETS", help="Directory to write to.")] = Path("secrets"),
) -> None:
    """Users and fresh passwords for the server."""
    passwords = {role: secrets.token_urlsafe(32) for role in ROLES}
    try:
        users = acl_file(RedisNames(prefix), passwords)
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The server may run as another user, and learns hashes of long random passwords alone.
        _write(out / "users.acl", users, 0o644)
        for role, password in passwords.items():
            _write(out / f"{role}.env", f"BOOKBUS_REDIS_PASSWORD={password}\n", 0o600)
    except ValueError as error:
        fail(str(error))
    except FileExistsError as error:
        fail(f"{error.filename} is there already: remove {out} for new passwords, then restart the server")
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}")
    typer.echo(f"wrote {out / 'users.acl'} for the server, and a password each in")
    typer.echo("\n".join(f"  {out / role}.env" for role in ROLES))


acl.__doc__ = EXAMPLES


def _write(path: Path, text: str, mode: int) -> None:
    # Never there with wider rights, not for a moment; the umask may have taken away too much.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
