"""Who may do what on a bus that others reach: the users of a Redis or Valkey server, as its ACL file has them."""

from collections.abc import Mapping
from hashlib import sha256

from schemas.redis_names import RedisNames

# The last three tell which server of several is the right one.
_ANYONE = "+ping +select +time +role +cluster|info +cluster|slots"
_READING = "+hget +hmget +hgetall +smembers +xrange +xrevrange +xread"
_SUBSCRIBING = "+subscribe +unsubscribe +ssubscribe +sunsubscribe"
# The last two are for clusters: redis-py asks where a command has its keys, and follows a slot that is on the move.
_SUBMITTING = (
    "+evalsha +script|load +hset +hget +hmget +expire +persist +publish +spublish +sadd +xadd +del +scan "
    "+command +asking"
)
# A reader tells of itself, and of nothing else.
_ANNOUNCING = "+hset +expire +del"

ROLES = ("feeder", "runner", "viewer")


def acl_file(names: RedisNames, passwords: Mapping[str, str]) -> str:
    """The text of the server's ACL file: a user for each of ROLES, with hashes of these passwords, and nobody else."""
    everything = f"{names.prefix}:*"
    rights = {
        "feeder": f"~{everything} &{everything} {_ANYONE} {_SUBMITTING}",
        "runner": (
            f"%R~{everything} &{everything} {_ANYONE} {_READING} {_SUBSCRIBING} +client|setname "
            f"(%W~{names.consumer('*')} {_ANNOUNCING})"
        ),
        "viewer": f"%R~{everything} {_ANYONE} {_READING} +scan +client|setname +client|list",
    }
    users = [
        f"user {role} on #{sha256(passwords[role].encode()).hexdigest()} resetchannels -@all {rights[role]}"
        for role in ROLES
    ]
    return "\n".join(["user default off", *users]) + "\n"
