"""The books of a cluster: a reader for each node that has some, and a thread that knows which node has which."""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from typing import Any

from redis.exceptions import NoPermissionError

from bookbus.consumers.background_loop import BackgroundThread
from bookbus.consumers.bus.books import BusTable, NodeTable
from bookbus.consumers.bus.connection import BusConnectionError, BusLink
from bookbus.consumers.bus.control_client import CONTROL_ERRORS, control_client
from bookbus.consumers.bus.heartbeat import ConsumerIdentity, consumer_fields
from bookbus.consumers.bus.reader import BusReader
from bookbus.consumers.bus.servers import BusServers
from bookbus.consumers.bus.session import OnChange
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.schemas.heartbeat import HEARTBEAT_TTL
from bookbus.schemas.redis_cluster import SlotMap
from bookbus.schemas.redis_url import HostPort

logger = logging.getLogger(__name__)

_LIMIT = 0.5
_DOUBT = 0.1
_CALM = 1.0
"""Seconds from one look at the nodes to the next, while all is well and while it is not."""

_LOOKS = 5
"""While all is well, every how many looks ask who has which slot: readers notice by themselves what moves."""


class ClusterReader:
    """Follows the books of a cluster from `start()` to `stop()`, each called once; goes where their slots go."""

    def __init__(
        self,
        url: str,
        table: BusTable,
        symbols: SymbolNames,
        wanted: Sequence[str] | None,
        on_change: OnChange,
    ) -> None:
        self.reconnect_count = 0
        self.trouble = "not connected"
        """What ails the connection to any node; empty if nothing does."""
        self._url = url
        self._servers = BusServers(url)
        self._table = table
        self._symbols = symbols
        self._wanted = wanted
        self._on_change = on_change
        self._identity = ConsumerIdentity()
        self._client: Any = None
        self._slots = SlotMap()
        self._nodes: dict[HostPort, BusReader] = {}
        self._following: dict[HostPort, frozenset[str]] = {}
        self._lost: dict[HostPort, str] = {}
        """Nodes whose connection ended or could not be made, and why."""
        self._away = self._unlisted = ""
        self._listed = False
        self._announces = True
        self._decided = threading.Event()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = BackgroundThread("bookbus-cluster", self._run, self._interrupt)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.alive

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def wait_ready(self, timeout: float) -> None:
        """Return once every book was read or found absent; at the limit, also if some nodes are away.

        Raises BusConnectionError if none can be reached.
        """
        if self._decided.wait(timeout) and not self.trouble:
            return
        if not any(not node.trouble for node in list(self._nodes.values())):
            raise BusConnectionError(self.trouble or f"{self._servers.masked} has no books yet to be found")

    def stop(self) -> None:
        """End all threads."""
        self._thread.stop()

    def _interrupt(self) -> None:
        self._stopping.set()
        self._wake.set()

    def _run(self) -> None:
        look = 0
        try:
            while not self._stopping.is_set():
                calm = not self.trouble and not any(node.ended for node in self._nodes.values())
                if not calm or look % _LOOKS == 0:
                    self._ask_slots()
                if calm or not self._listed:
                    self._ask_books()
                self._look_after_nodes()
                if calm:
                    self._announce()
                look += 1
                if self.trouble:
                    # Not woken: who ends again and again would have it turn without end.
                    self._stopping.wait(_DOUBT)
                else:
                    self._wake.wait(_CALM)
                self._wake.clear()
        finally:
            for node in self._nodes.values():
                node.stop()
            self._leave()
            self.trouble = self.trouble or "stopped"
            self._decided.set()

    def _ask_slots(self) -> None:
        trouble = f"no node of {self._servers.masked} answers"
        best: SlotMap | None = None
        for place in dict.fromkeys([*self._nodes, *self._servers.url.hosts]):
            try:
                whole, slots = _slots_of(self._servers, place)
            except (BusConnectionError, ValueError) as error:
                trouble = str(error)
                continue
            best = slots if whole or best is None else best
            if whole:
                break
        self._away = trouble if best is None else ""
        if best is not None:
            self._slots = best

    def _ask_books(self) -> None:
        """Which books there are; without an answer, those known until now."""
        try:
            if self._client is None:
                self._client = control_client(self._url, _LIMIT)
            self._symbols.learn(self._table.listed(self._client.smembers(self._table.names.books)))
            self._listed, self._unlisted = True, ""
        except CONTROL_ERRORS:
            self._unlisted = f"{self._servers.masked} does not tell which books there are"

    def _symbols_wanted(self) -> Iterable[str]:
        if self._wanted is None:
            return sorted(self._symbols.listed)
        return dict.fromkeys(self._symbols.standard(name) for name in self._wanted)

    def _look_after_nodes(self) -> None:
        """Have each node's books followed there, and nowhere else at the same time."""
        shares: dict[HostPort, set[str]] = defaultdict(set)
        unrouted = 0
        for symbol in self._symbols_wanted():
            place = self._slots.place(self._table.names.book(self._table.exchange, symbol).encode())
            if place is None:
                unrouted += 1
            else:
                shares[place].add(symbol)
        for place in list(self._nodes):
            node = self._nodes[place]
            if node.ended or not self._following[place] <= shares.get(place, set()):
                self._let_go(place, node)
        for place, share in shares.items():
            self._follow(place, frozenset(share))
        self._judge(unrouted)

    def _let_go(self, place: HostPort, node: BusReader) -> None:
        if node.ended:
            if place not in self._lost:
                logger.warning("%s; connecting again", node.trouble)
            self._lost[place] = node.trouble
        node.stop()
        del self._nodes[place], self._following[place]

    def _follow(self, place: HostPort, share: frozenset[str]) -> None:
        if self._following.get(place) == share:
            return
        self._following[place] = share
        if place in self._nodes:
            self._nodes[place].follow(sorted(share))
            return
        node = self._nodes[place] = BusReader(
            self._servers.node(place),
            NodeTable(self._table),
            self._symbols,
            sorted(share),
            self._on_change,
            part_of=self._identity,
            on_end=self._wake.set,
        )
        node.start()

    def _judge(self, unrouted: int) -> None:
        """Say what is wrong, if anything is."""
        # One that is tried again has nothing to tell yet.
        troubles = [self._lost.get(place, node.trouble) for place, node in self._nodes.items() if node.trouble]
        if unrouted:
            troubles.append(f"{unrouted} books are in slots that no node of {self._servers.masked} has")
        if self._wanted is None and self._unlisted:
            troubles.append(self._unlisted)
        if self._away:
            troubles.insert(0, self._away)
        if not troubles:
            if self._lost:
                self.reconnect_count += 1
                logger.info("connected to all nodes of %s again", self._servers.masked)
            self._lost.clear()
        self.trouble = troubles[0] if troubles else ""
        if not troubles or self._away:
            self._decided.set()

    def _announce(self) -> None:
        """Say that this reader lives, unless its user may not write that."""
        if not self._announces or self._client is None:
            return
        lag = max((node.lag for node in self._nodes.values()), default=0.0)
        key = self._table.names.consumer(self._identity.id)
        try:
            fields = consumer_fields(self._identity, self._table, lag, None, self.reconnect_count)
            self._client.hset(key, mapping=fields)
            self._client.expire(key, HEARTBEAT_TTL)
        except NoPermissionError:
            self._announces = False
        except CONTROL_ERRORS as error:
            logger.debug("cannot tell that this reader lives: %s", type(error).__name__)

    def _leave(self) -> None:
        if self._client is not None:
            with suppress(*CONTROL_ERRORS):
                self._client.delete(self._table.names.consumer(self._identity.id))
            self._client.close()


def _slots_of(servers: BusServers, place: HostPort) -> tuple[bool, SlotMap]:
    """Whether the cluster is whole in the eyes of a node, and who it thinks has which slot."""
    with closing(BusLink(servers.url.server(place), "bookbus-slots", _LIMIT)) as link:
        info, slots = link.ask([("CLUSTER", "INFO"), ("CLUSTER", "SLOTS")], _LIMIT)
    if not isinstance(info, bytes):
        raise BusConnectionError(f"{place[0]}:{place[1]} does not tell who has which slot: {info}")
    return b"cluster_state:ok" in info, SlotMap.parse(slots, place)
