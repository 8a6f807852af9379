"""Slots of a Redis cluster: parsing a node's replies, and which node serves a key."""

from binascii import crc_hqx
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bookbus.schemas.redis_url import HostPort

SLOTS = 16384
VIEW_COMMANDS = (("CLUSTER", "INFO"), ("CLUSTER", "SLOTS"))
"""The commands whose replies make a `ClusterView`."""


def slot_of(key: bytes) -> int:
    """The slot of a key or channel without braces in its name, which is how ours are."""
    return crc_hqx(key, 0) % SLOTS


class SlotMap:
    """The primary of each slot; never changes."""

    def __init__(self, nodes: Iterable[tuple[int, HostPort]] | Mapping[int, HostPort] = ()) -> None:
        self._nodes = dict(nodes)

    @classmethod
    def parse(cls, reply: Any, asked: HostPort) -> "SlotMap":
        """The reply to CLUSTER SLOTS. Raises ValueError for anything else."""
        nodes: dict[int, HostPort] = {}
        try:
            for first, last, (host, port, *_), *_ in reply:
                # A node that does not know its own host name leaves it empty: use the one that was asked.
                node = (host.decode() if host not in (None, b"", b"?") else asked[0], int(port))
                nodes.update(dict.fromkeys(range(first, last + 1), node))
        except (TypeError, ValueError, AttributeError):
            raise ValueError(f"{asked[0]}:{asked[1]} sends no list of slots: {reply!s:.100}") from None
        return cls(nodes)

    @property
    def nodes(self) -> frozenset[HostPort]:
        return frozenset(self._nodes.values())

    def node_of(self, key: bytes) -> HostPort | None:
        """The node that has a key; None if its slot has none."""
        return self._nodes.get(slot_of(key))

    def moved(self, error: str, asked: HostPort) -> "SlotMap":
        """The same after the node `asked` replied `MOVED 3999 host:port`. Raises ValueError for anything else."""
        _, slot, where = error.split(" ")[:3]
        host, _, port = where.rpartition(":")
        return SlotMap({**self._nodes, int(slot): (host or asked[0], int(port))})


class ClusterView(NamedTuple):
    """The cluster as one node sees it."""

    rank: tuple[bool, int]
    """Of several views the one with the highest rank holds: a node that is cut off from the others sees that the
    cluster failed, or an epoch that is over."""
    slots: SlotMap

    @classmethod
    def parse(cls, info: Any, slots: Any, asked: HostPort) -> "ClusterView":
        """The replies to `VIEW_COMMANDS`. Raises ValueError for anything else."""
        if not isinstance(info, bytes):
            raise ValueError(f"{asked[0]}:{asked[1]} does not describe the cluster: {info!s:.100}")
        fields = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
        rank = fields.get(b"cluster_state") == b"ok", int(fields.get(b"cluster_current_epoch", 0))
        return cls(rank, SlotMap.parse(slots, asked))

    @property
    def is_ok(self) -> bool:
        """Whether the node sees every slot served."""
        return self.rank[0]
