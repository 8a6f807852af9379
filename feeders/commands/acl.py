"""`acl`: users and fresh passwords for a server that others reach."""

import os
import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from bookbus.feeders.commands.options import PREFIX_DEFAULT, Prefix, fail
from bookbus.schemas.redis_names import RedisNames

ROLES = ("feeder", "runner", "viewer")

_ANYONE = "+ping +select +time"

# Which server of several is the right one; redis-py asks a cluster where a command has its keys.
_FINDING = "+role +cluster|info +cluster|slots +command +asking"
_READING = "+hget +hmget +hgetall +smembers +xrange +xrevrange +xread"
_SUBSCRIBING = "+subscribe +unsubscribe +ssubscribe +sunsubscribe"
_SUBMITTING = "+evalsha +script|load +hset +hget +hmget +expire +persist +publish +spublish +sadd +xadd +del +scan"

# A reader tells of itself, and of nothing else.
_ANNOUNCING = "+hset +expire +del"


def acl(
    prefix: Prefix = PREFIX_DEFAULT,
    out: Annotated[Path, typer.Option(envvar="BOOKBUS_SECRETS", help="Directory to write to.")] = Path("secrets"),
) -> None:
    """Create users with new random passwords for the server.

    The feeder writes books, the runner reads and subscribes, the viewer only reads. For Redis 7 or later, or Valkey.

    \b
      python -m feeders acl
      python -m feeders acl --prefix staging --out staging-secrets

    \b
    users.acl goes to the server:      valkey-server --aclfile secrets/users.acl
    runner.env to who reads the bus:   set -a; . secrets/runner.env
                                       python -m consumers tail BTC --redis redis://runner@127.0.0.1:6379/0
    """
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


def acl_file(names: RedisNames, passwords: Mapping[str, str]) -> str:
    """The text of the server's ACL file: a user for each of ROLES, with hashes of these passwords, and nobody else."""
    everything = f"{names.prefix}:*"
    rights = {
        "feeder": f"~{everything} &{everything} {_ANYONE} {_FINDING} {_SUBMITTING}",
        "runner": (
            f"%R~{everything} &{everything} {_ANYONE} {_FINDING} {_READING} {_SUBSCRIBING} +client|setname "
            f"(%W~{names.consumer('*')} {_ANNOUNCING})"
        ),
        "viewer": f"%R~{everything} {_ANYONE} {_FINDING} {_READING} +scan +client|setname +client|list",
    }
    users = [
        f"user {role} on #{sha256(passwords[role].encode()).hexdigest()} resetchannels -@all {rights[role]}"
        for role in ROLES
    ]
    return "\n".join(["user default off", *users]) + "\n"


def _write(path: Path, text: str, mode: int) -> None:
    # Never there with wider rights, not for a moment; the umask may have taken away too much.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
