"""Which node of a cluster has which slot, and in which slot a key is."""

from binascii import crc_hqx
from collections.abc import Iterable
from typing import Any

from bookbus.schemas.redis_url import HostPort

SLOTS = 16384


def slot_of(key: bytes) -> int:
    """The slot of a key or channel without braces in its name, which is how ours are."""
    return crc_hqx(key, 0) % SLOTS


class SlotMap:
    """The primary of each slot, as one node knows it."""

    def __init__(self, places: Iterable[tuple[int, HostPort]] = ()) -> None:
        self._places = dict(places)

    @classmethod
    def parse(cls, reply: Any, asked: HostPort) -> "SlotMap":
        """What a node answers to CLUSTER SLOTS. Raises ValueError if that is no such answer."""
        slots = cls()
        try:
            for first, last, (host, port, *_), *_ in reply:
                # A node that does not know under which name it is reached leaves that to whoever asked it.
                place = (host.decode() if host not in (None, b"", b"?") else asked[0], int(port))
                slots._places.update(dict.fromkeys(range(first, last + 1), place))
        except (TypeError, ValueError, AttributeError):
            raise ValueError(f"no list of slots: {reply!r:.100}") from None
        return slots

    @property
    def places(self) -> frozenset[HostPort]:
        """Every node that has slots."""
        return frozenset(self._places.values())

    def place(self, key: bytes) -> HostPort | None:
        """Where a key is; None while nobody has its slot."""
        return self._places.get(slot_of(key))

    def moved(self, error: str, asked: HostPort) -> "SlotMap":
        """The same after a node answered `MOVED 3999 host:port`. Raises ValueError if that is not what it says."""
        _, slot, where = error.split(" ")[:3]
        host, _, port = where.rpartition(":")
        after = SlotMap()
        after._places = {**self._places, int(slot): (host or asked[0], int(port))}
        return after
