"""What a Redis server's error replies are, and telling of each kind once."""

import logging
import re
from collections import Counter

import hiredis

logger = logging.getLogger(__name__)

RECONNECT_KINDS = frozenset({"LOADING", "READONLY", "MASTERDOWN", "NOREPLICAS", "NOAUTH"})
"""The server is not, or no longer, the one to write to: ask again who is."""

_ADVICE = {
    "READONLY": "is a read-only replica, and feeders write to its primary: name that with --redis",
    "MOVED": "it is one node of a cluster: name it like redis+cluster://host:port",
}

# Servers before Redis 7 put what a command inside a script answered behind a text of their own.
_INSIDE_SCRIPT = re.compile(r" -([A-Z]{3,}) ")


def error_kind(error: hiredis.ReplyError) -> str:
    """The error's first word (`OOM`, `WRONGTYPE`, …); `ERR` for those without one of their own."""
    text = str(error)
    kind = text.partition(" ")[0]
    if kind == "ERR" and (inside := _INSIDE_SCRIPT.search(text)):
        return inside[1]
    return kind if kind.isupper() else "ERR"


def explain(error: hiredis.ReplyError) -> str:
    """What people are told of an error: what to do about it where that is known, else the server's words."""
    return _ADVICE.get(error_kind(error), str(error))


class ErrorLog:
    """Counts errors by kind; warns of a kind once, until all is well again."""

    def __init__(self, masked: str) -> None:
        self.by_kind: Counter[str] = Counter()
        self._masked = masked
        self._told: set[str] = set()

    def add(self, name: str, error: hiredis.ReplyError) -> str:
        """Count the error that `name` met with. Returns its kind."""
        kind = error_kind(error)
        self.by_kind[kind] += 1
        if kind not in self._told:
            self._told.add(kind)
            logger.warning("%s refuses %s: %s", self._masked, name, explain(error))
        return kind

    def well(self) -> None:
        """Nothing fails any more."""
        if self._told:
            logger.warning("%s takes everything again (was: %s)", self._masked, ", ".join(sorted(self._told)))
            self._told.clear()
