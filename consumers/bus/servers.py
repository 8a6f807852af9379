"""The servers that readers read from, and the clients of redis-py for what is asked now and then."""

import random
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import NoPermissionError as NoPermissionError
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.bus.connection import BusConnection, BusConnectionError, tls_context
from bookbus.schemas.redis_url import HostPort, RedisAddress, RedisServer, no_primary, parse_redis_url, redacted

CONTROL_ERRORS = (RedisError, RedisClusterException, OSError)
"""Errors of a control client."""

_DISCOVERY_TIMEOUT = 0.5
_PROBES = 3
_CLIENT_NAME = "bookbus-probe"


class ServerLocator:
    """Finds the server to read from. Raises ValueError, which repeats no secret, for an invalid URL."""

    def __init__(self, address: str | RedisAddress, node: HostPort | None = None) -> None:
        """`node` is the address of one node of the cluster that the URL names."""
        self.address = parse_redis_url(address) if isinstance(address, str) else address
        self._node = None if node is None else self.address.server_at(node)
        if self.address.login.tls is not None:
            # Raises now rather than when the context is needed.
            tls_context(self.address.login.tls)

    @property
    def masked(self) -> str:
        return self.address.masked if self._node is None else self._node.masked

    @property
    def may_move(self) -> bool:
        """Whether another server may take over; the slots of a node may move to other nodes."""
        return self._node is not None or self.address.kind == "sentinel" or self.address.nearest

    def locate(self) -> RedisServer:
        """The server to read from now, which may be down. Raises BusConnectionError if none is known."""
        if self._node is not None:
            return self._node
        if self.address.kind == "cluster":
            raise BusConnectionError(f"{self.masked} is many servers: name one of them, redis://host:port")
        servers = self._ask_sentinels() if self.address.kind == "sentinel" else self.address.servers
        return self._nearest_of(servers) if self.address.nearest else servers[0]

    def wrong_role(self, role: Any) -> str:
        """Why a server with this reply to ROLE is not, or no longer, the one to read from; empty if it is."""
        if not isinstance(role, list) or role[:1] in ([], [b"master"]):
            return ""  # A user who may not ask for the role cannot check it.
        if not self.address.nearest:
            return "it is no longer the primary"
        return "" if role[3:4] == [b"connected"] else "it has lost its primary"

    def _ask_sentinels(self) -> Sequence[RedisServer]:
        """The primary, followed by its replicas if they may be read from."""
        sentinels = _sentinels(self.address)
        try:
            found = [sentinels.discover_master(self.address.service)]
            if self.address.nearest:
                found += sentinels.discover_slaves(self.address.service)  # type: ignore[no-untyped-call]
            return [self.address.server_at(host_port) for host_port in found]
        except (RedisError, OSError) as error:
            raise BusConnectionError(f"{self.masked}: {redacted(error, self.address.secrets)}") from None
        finally:
            for client in sentinels.sentinels:
                client.close()

    def _nearest_of(self, servers: Iterable[RedisServer]) -> RedisServer:
        measured, errors = [], []
        for number, server in enumerate(servers):
            try:
                measured.append((self._round_trip(server), number, server))
            except BusConnectionError as error:
                errors.append(str(error))
        if not measured:
            raise BusConnectionError(f"none of the servers of {self.masked} can be read from: {'; '.join(errors)}")
        return min(measured)[2]

    def _round_trip(self, server: RedisServer) -> float:
        """Seconds of the fastest of some PINGs. Raises BusConnectionError if the server cannot be read from."""
        with closing(BusConnection(server, _CLIENT_NAME, _DISCOVERY_TIMEOUT)) as connection:
            (role,) = connection.ask([("ROLE",)], _DISCOVERY_TIMEOUT)
            if error := self.wrong_role(role):
                raise BusConnectionError(f"{server.masked}: {error}")
            times = []
            for _ in range(_PROBES):
                sent = boottime()
                connection.ask([("PING",)], _DISCOVERY_TIMEOUT)
                times.append(boottime() - sent)
            return min(times)


def control_client(address: RedisAddress, timeout: float, *, decode_responses: bool = False) -> Any:
    """A client that does not retry: of the primary that Sentinels know, or of the first of several servers.

    A client of a cluster asks for its nodes here: raises one of CONTROL_ERRORS if none answers.
    """
    decode = {"decode_responses": decode_responses}
    if address.kind == "server":
        return redis.Redis(**address.servers[0].client_arguments(timeout) | decode, retry=Retry(NoBackoff(), 0))
    options = address.login.client_arguments(timeout) | decode
    if address.kind == "sentinel":
        sentinels = _sentinels(address, **options, retry=Retry(NoBackoff(), 0))
        return sentinels.master_for(address.service)  # type: ignore[no-untyped-call]
    del options["db"]
    nodes = [ClusterNode(host, port) for host, port in address.hosts]  # type: ignore[no-untyped-call]
    # The retries are needed to find the other nodes after one is gone.
    return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options, retry=Retry(NoBackoff(), 2))


class _Sentinels(Sentinel):
    """Reports in one line that no primary is known."""

    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            raise MasterNotFoundError(no_primary(service_name, self._errors())) from None

    def _errors(self) -> str:
        """The error of each Sentinel; redis-py's own error has only their types."""
        errors = []
        for sentinel in self.sentinels:
            try:
                sentinel.sentinel_masters()
            except RedisError as error:
                errors.append(str(error))
        return "\n".join(errors)


def _sentinels(address: RedisAddress, **connection: Any) -> _Sentinels:
    """A client of the Sentinels; `connection` is for the clients that it makes of the servers themselves."""
    return _Sentinels(  # type: ignore[no-untyped-call]
        # In random order: a Sentinel that is cut off from the others is not asked first every time.
        random.sample(address.hosts, len(address.hosts)),
        sentinel_kwargs={**address.sentinel_login.client_arguments(_DISCOVERY_TIMEOUT), "retry": Retry(NoBackoff(), 0)},
        **connection,
    )
