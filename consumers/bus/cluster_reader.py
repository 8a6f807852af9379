"""The books of a cluster: a reader for each node that has books, and a thread that assigns books to nodes."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from typing import Any

from bookbus.consumers.background_loop import BackgroundThread
from bookbus.consumers.bus.books import BusTable, NodeTable
from bookbus.consumers.bus.connection import BusConnection, BusConnectionError
from bookbus.consumers.bus.reader import BusReader, ConsumerIdentity, consumer_fields
from bookbus.consumers.bus.servers import CONTROL_ERRORS, NoPermissionError, ServerLocator, control_client
from bookbus.consumers.bus.session import OnChange
from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.consumers.shared_state import Flag
from bookbus.schemas.heartbeat import HEARTBEAT_TTL
from bookbus.schemas.redis_cluster import VIEW_COMMANDS, ClusterView, SlotMap
from bookbus.schemas.redis_url import HostPort, RedisAddress

logger = logging.getLogger(__name__)

_LIMIT = 0.5
_CHECK_INTERVAL = 1.0
_RETRY_INTERVAL = 0.1
"""Seconds from one check of the nodes to the next, without an error and with one."""

_SLOTS_EVERY = 5
"""Without an error, only one of so many checks asks for the slots: the nodes' readers notice slots that move."""


class ClusterReader:
    """Follows the books of a cluster from `start()` to `stop()`, each called once, also when their slots move."""

    def __init__(
        self,
        address: RedisAddress,
        table: BusTable,
        symbols: SymbolNames,
        wanted: Sequence[str] | None,
        on_change: OnChange,
    ) -> None:
        self.reconnect_count = 0
        self.error = "not connected"
        """Why not every node is connected; empty if all are."""
        self._address = address
        self._table = table
        self._symbols = symbols
        self._wanted = wanted
        self._on_change = on_change
        self._identity = ConsumerIdentity()
        self._client: Any = None
        self._slots = SlotMap()
        self._nodes: dict[HostPort, BusReader] = {}
        self._assigned: dict[HostPort, frozenset[str]] = {}
        self._failed: dict[HostPort, str] = {}
        """Nodes whose connection ended or could not be made, and why."""
        self._slots_error = self._list_error = self._open_error = ""
        self._listed = False
        self._may_write_heartbeat = True
        self._start_finished = Flag()
        self._wake = Flag()
        self._stopping = Flag()
        self._thread = BackgroundThread("bookbus-cluster", self._run, self._interrupt)

    @property
    def alive(self) -> bool:
        return self._thread.alive

    @property
    def forked(self) -> bool:
        return self._thread.forked

    def start(self) -> None:
        self._thread.start()

    def wait_ready(self, timeout: float) -> None:
        """Return once every book was read or found absent; after `timeout` seconds, also if some nodes are down.

        Raises BusConnectionError if no node can be reached.
        """
        if self._start_finished.wait(timeout) and not self.error:
            return
        if not any(not node.error for node in list(self._nodes.values())):
            raise BusConnectionError(self.error or f"{self._address.masked} has no books yet to be found")

    def stop(self) -> None:
        self._thread.stop()

    def _interrupt(self) -> None:
        self._stopping.set()
        self._wake.set()

    def _run(self) -> None:
        checks = 0
        try:
            while not self._stopping.is_set():
                healthy = not self.error and not any(node.ended for node in self._nodes.values())
                if not healthy or checks % _SLOTS_EVERY == 0:
                    self._ask_slots()
                if healthy or not self._listed:
                    self._list_books()
                self._assign_books()
                if healthy:
                    self._write_heartbeat()
                checks += 1
                if self.error:
                    # Not woken by readers that end: one that ends at once would keep this loop busy.
                    self._stopping.wait(_RETRY_INTERVAL)
                else:
                    self._wake.wait(_CHECK_INTERVAL)
                self._wake.clear()
        finally:
            for node in self._nodes.values():
                node.stop()
            self._delete_heartbeat()
            self.error = self.error or "stopped"
            self._start_finished.set()

    def _ask_slots(self) -> None:
        error, views = "", list[ClusterView]()
        for server in dict.fromkeys([*self._nodes, *self._address.hosts]):
            try:
                views.append(_ask_view(self._address, server))
            except (BusConnectionError, ValueError) as reason:
                error = str(reason)
            else:
                if views[-1].is_ok:
                    break
        self._slots_error = "" if views else error
        if views:
            self._slots = max(views, key=lambda view: view.rank).slots

    def _list_books(self) -> None:
        """Read the list of books; without a reply the known ones stay."""
        self._symbols.learn(self._table.feeders.published(self._table.exchange))
        try:
            if self._client is None:
                self._client = control_client(self._address, _LIMIT)
            self._symbols.learn(self._table.listed(self._client.smembers(self._table.names.books)))
            self._listed, self._list_error = True, ""
        except CONTROL_ERRORS:
            self._list_error = f"{self._address.masked} does not list the books"

    def _symbols_wanted(self) -> Iterable[str]:
        if self._wanted is None:
            return sorted(self._symbols.listed)
        return dict.fromkeys(self._symbols.standard(name) for name in self._wanted)

    def _assign_books(self) -> None:
        """Follow each book at the node that has its slot, after it is no longer followed at another."""
        assigned: dict[HostPort, set[str]] = defaultdict(set)
        self._open_error = ""
        unrouted = 0
        for symbol in self._symbols_wanted():
            server = self._slots.node_of(self._table.names.book(self._table.exchange, symbol).encode())
            if server is None:
                unrouted += 1
            else:
                assigned[server].add(symbol)
        for server in list(self._nodes):
            node = self._nodes[server]
            if node.ended or not self._assigned[server] <= assigned.get(server, set()):
                self._stop_node(server, node)
        for server, symbols in assigned.items():
            self._follow(server, frozenset(symbols))
        self._update_error(unrouted)

    def _stop_node(self, server: HostPort, node: BusReader) -> None:
        if node.ended:
            if server not in self._failed:
                logger.warning("%s; reconnecting", node.error)
            self._failed[server] = node.error
        node.stop()
        del self._nodes[server], self._assigned[server]

    def _follow(self, server: HostPort, symbols: frozenset[str]) -> None:
        if self._assigned.get(server) == symbols:
            return
        if server in self._nodes:
            self._assigned[server] = symbols
            self._nodes[server].follow(sorted(symbols))
            return
        try:
            node = BusReader(
                ServerLocator(self._address, server),
                NodeTable(self._table),
                self._symbols,
                sorted(symbols),
                self._on_change,
                part_of=self._identity,
                on_end=self._wake.set,
            )
            node.start()
        except (OSError, RuntimeError) as error:
            # No file descriptor or no thread left: perhaps there is some at the next check.
            self._open_error = f"cannot read {self._address.masked}: {error}"
        else:
            self._assigned[server], self._nodes[server] = symbols, node

    def _update_error(self, unrouted: int) -> None:
        # A node whose reader is being started again keeps the error of the last attempt.
        errors = [self._failed.get(server, node.error) for server, node in self._nodes.items() if node.error]
        if unrouted:
            errors.append(f"{unrouted} books are in slots that no node of {self._address.masked} has")
        if self._wanted is None and self._list_error:
            errors.append(self._list_error)
        errors[:0] = filter(None, (self._slots_error, self._open_error))
        if not errors:
            if self._failed:
                self.reconnect_count += 1
                logger.info("reconnected to all nodes of %s", self._address.masked)
            self._failed.clear()
        self.error = errors[0] if errors else ""
        if not errors or self._slots_error:
            self._start_finished.set()

    def _write_heartbeat(self) -> None:
        """Write this reader's hash, unless its user may not."""
        if not self._may_write_heartbeat or self._client is None:
            return
        lag = max((node.lag for node in self._nodes.values()), default=0.0)
        key = self._table.names.consumer(self._identity.id)
        try:
            fields = consumer_fields(self._identity, self._table, lag, None, self.reconnect_count)
            self._client.hset(key, mapping=fields)
            self._client.expire(key, HEARTBEAT_TTL)
        except CONTROL_ERRORS as error:
            self._may_write_heartbeat = not isinstance(error, NoPermissionError)
            logger.debug("cannot write the heartbeat of this reader: %s", type(error).__name__)

    def _delete_heartbeat(self) -> None:
        if self._client is not None:
            with suppress(*CONTROL_ERRORS):
                self._client.delete(self._table.names.consumer(self._identity.id))
            self._client.close()


def _ask_view(address: RedisAddress, server: HostPort) -> ClusterView:
    with closing(BusConnection(address.server_at(server), "bookbus-slots", _LIMIT)) as connection:
        info, slots = connection.ask(VIEW_COMMANDS, _LIMIT)
    return ClusterView.parse(info, slots, server)
