"""`acl`: users and new passwords for a Redis server that other machines reach."""

import os
import secrets
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from bookbus.command_line import PREFIX_DEFAULT, Prefix, fail
from bookbus.schemas.redis_names import RedisNames

ROLES = ("feeder", "runner", "viewer", "operator")

_EVERY_ROLE = "+ping +select +time"

# Roles and slots; redis-py asks a cluster for the key positions of each command.
_DISCOVERY = "+role +cluster|info +cluster|slots +command +asking"
_READ = "+hget +hmget +hgetall +hstrlen +smembers +xrange +xrevrange +xread"
_SUBSCRIBE = "+subscribe +unsubscribe +ssubscribe +sunsubscribe"
_PUBLISH = (
    "+evalsha +script|load +hset +hget +hmget +hgetall +hdel +expire +persist +publish +spublish "
    "+sadd +srem +smembers +xadd +del +scan "
    "+client|no-evict +info"
)

# Only on the hash of the reader itself.
_REGISTER = "+hset +expire +del"

# To find and end what blocks the server: a script that does not return, a client that uses too much.
_OPERATE = "+info +client|list +client|kill +script|kill +slowlog|get"


def acl(
    prefix: Prefix = PREFIX_DEFAULT,
    out: Annotated[Path, typer.Option(envvar="BOOKBUS_SECRETS", help="Directory to write to.")] = Path("secrets"),
) -> None:
    """Create users with new random passwords for the server.

    The feeder writes books, the runner reads and subscribes, the viewer only reads, the operator ends scripts and
    clients but sees no book. For Redis 7 or later, or Valkey.

    \b
      python -m feeders acl
      python -m feeders acl --prefix staging --out staging-secrets

    \b
    For the server:    valkey-server --aclfile secrets/users.acl
    For each reader:   set -a; . secrets/runner.env
                       python -m consumers tail BTC --redis redis://runner@127.0.0.1:6379/0
    """
    passwords = {role: secrets.token_urlsafe(32) for role in ROLES}
    try:
        users = acl_file(RedisNames(prefix), passwords)
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        # The server may run as another user; the file has hashes of long random passwords only.
        _write(out / "users.acl", users, 0o644)
        for role, password in passwords.items():
            _write(out / f"{role}.env", f"BOOKBUS_REDIS_PASSWORD={password}\n", 0o600)
    except ValueError as error:
        fail(str(error))
    except FileExistsError as error:
        fail(f"{error.filename} already exists: remove {out} for new passwords, then restart the server")
    except OSError as error:
        fail(f"cannot write {error.filename}: {error.strerror}")
    typer.echo(f"wrote {out / 'users.acl'} for the server, and one password each to")
    typer.echo("\n".join(f"  {out / role}.env" for role in ROLES))


def acl_file(names: RedisNames, passwords: Mapping[str, str]) -> str:
    """The text of the server's ACL file: one user for each of ROLES, with the hash of its password; no default user."""
    keys = f"{names.prefix}:*"
    # The channels of database 0, and those of all others.
    channels = f"&{keys} &{names.prefix}@*:*"
    rights = {
        "feeder": f"~{keys} {channels} {_EVERY_ROLE} {_DISCOVERY} {_PUBLISH}",
        "runner": (
            f"%R~{keys} {channels} {_EVERY_ROLE} {_DISCOVERY} {_READ} {_SUBSCRIBE} +scan +client|setname "
            f"(%W~{names.consumer('*')} {_REGISTER})"
        ),
        "viewer": f"%R~{keys} {_EVERY_ROLE} {_DISCOVERY} {_READ} +scan +client|setname +client|list",
        "operator": f"{_EVERY_ROLE} {_DISCOVERY} {_OPERATE}",
    }
    users = [
        f"user {role} on #{sha256(passwords[role].encode()).hexdigest()} resetchannels -@all {rights[role]}"
        for role in ROLES
    ]
    return "\n".join(["user default off", *users]) + "\n"


def _write(path: Path, text: str, mode: int) -> None:
    # Created with narrow rights, so that it is never readable to others; the umask may have removed too many.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
