"""A client for what is not on the hot path, whatever servers the bus is made of."""

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from bookbus.feeders.bus.servers import refuse_replicas, sentinels_of
from bookbus.feeders.servers.address import parse_address
from bookbus.schemas.redis_url import parse_servers

TIMEOUT = 2.0

CONTROL_ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What such a client raises when the servers fail it."""


def control_client(url: str) -> "Redis":
    """Short timeouts, no blind retries; of Sentinels it is a client of the primary. ValueError repeats no secret."""
    servers = parse_servers(url)
    refuse_replicas(servers)
    parse_address(next(servers.urls()))
    if servers.kind == "server":
        return Redis.from_url(url, **_limits())
    options: dict[str, Any] = {**parse_url(servers.url(servers.places[0]))}
    tls = options.pop("connection_class", None) is SSLConnection
    for name in ("host", "port"):
        options.pop(name)
    options |= _limits() | ({"ssl": True} if tls else {})
    if servers.kind == "sentinel":
        return sentinels_of(servers, **options).master_for(servers.service)  # type: ignore[no-any-return]
    options.pop("db", None)
    nodes = [ClusterNode(host, port) for host, port in servers.places]
    # It has every method that is used here.
    # It asks who has a slot when a node is gone, and then tries again: that much is needed to find the others.
    options["retry"] = Retry(NoBackoff(), 2)
    return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)  # type: ignore[return-value]


def _limits() -> dict[str, Any]:
    return {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "retry": Retry(NoBackoff(), 0)}
