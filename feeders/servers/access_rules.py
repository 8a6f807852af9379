"""Who may do what on a bus that others reach: the users of a Redis or Valkey server, as its ACL file has them."""

from collections.abc import Mapping
from hashlib import sha256

from bookbus.schemas.redis_names import RedisNames

_ANYONE = "+ping +select +time"
# Which server of several is the right one; redis-py asks a cluster where a command has its keys.
_FINDING = "+role +cluster|info +cluster|slots +command +asking"
_READING = "+hget +hmget +hgetall +smembers +xrange +xrevrange +xread"
_SUBSCRIBING = "+subscribe +unsubscribe +ssubscribe +sunsubscribe"
_SUBMITTING = "+evalsha +script|load +hset +hget +hmget +expire +persist +publish +spublish +sadd +xadd +del +scan"
# A reader tells of itself, and of nothing else.
_ANNOUNCING = "+hset +expire +del"

ROLES = ("feeder", "runner", "viewer")


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
