"""A client for what is asked now and then, whatever servers the bus is made of."""

import random
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import SSLConnection, parse_url
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from bookbus.schemas.redis_url import BusServers, no_primary, parse_servers

CONTROL_ERRORS = (redis.RedisError, RedisClusterException, OSError)
"""What such a client raises when the servers fail it."""

_SENTINEL_TIMEOUT = 0.5


def control_client(url: str, timeout: float, *, decode_responses: bool = False) -> Any:
    """No blind retries. Of Sentinels it is a client of the primary, of several servers one of the first.

    A cluster is asked for its nodes at once: raises one of CONTROL_ERRORS if none answers.
    """
    servers = parse_servers(url)
    first = next(servers.urls())
    options = _options(first, timeout) | {"decode_responses": decode_responses}
    if servers.kind == "server":
        return redis.Redis.from_url(first, **_limits(timeout), decode_responses=decode_responses)
    if servers.kind == "sentinel":
        return sentinels_of(servers, **options).master_for(servers.service)  # type: ignore[no-untyped-call]
    options.pop("db", None)
    nodes = [ClusterNode(host, port) for host, port in servers.places]  # type: ignore[no-untyped-call]
    # It asks who has a slot when a node is gone, and then tries again: that much is needed to find the others.
    options["retry"] = Retry(NoBackoff(), 2)
    return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)


class Sentinels(Sentinel):
    """Says in one line that no primary is known."""

    def discover_master(self, service_name: str) -> Any:
        """The primary of a service. Raises MasterNotFoundError."""
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError:
            raise MasterNotFoundError(no_primary(service_name, self._answers())) from None

    def _answers(self) -> str:
        """Why each of them failed us, of which the library tells only the kind."""
        told = []
        for sentinel in self.sentinels:
            try:
                sentinel.sentinel_masters()
            except redis.RedisError as error:
                told.append(str(error))
        return "\n".join(told)


def sentinels_of(servers: BusServers, **connection: Any) -> Sentinels:
    """A client of the Sentinels; `connection` is for the clients that it makes of the servers themselves."""
    username, password = servers.sentinel_login
    tls = {name: value for name, value in _options(servers.url(servers.places[0]), 0).items() if name.startswith("ssl")}
    login = {"username": username, "password": password}
    # Another order each time: one of them that is cut off from the others is not asked for ever.
    places = random.sample(servers.places, len(servers.places))
    options = {**tls, **login, **_limits(_SENTINEL_TIMEOUT)}
    return Sentinels(places, sentinel_kwargs=options, **connection)  # type: ignore[no-untyped-call]


def _options(url: str, timeout: float) -> dict[str, Any]:
    """What a client of any server with this login needs to know."""
    options: dict[str, Any] = {**parse_url(url), **_limits(timeout)}  # type: ignore[no-untyped-call]
    if options.pop("connection_class", None) is SSLConnection:
        options["ssl"] = True
    for name in ("host", "port", "path"):
        options.pop(name, None)
    return options


def _limits(timeout: float) -> dict[str, Any]:
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": Retry(NoBackoff(), 0)}
