"""A client for what is asked now and then, whatever servers the bus is made of."""

import random
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from bookbus.schemas.redis_url import RedisUrl, no_primary, parse_redis_url

CONTROL_ERRORS = (redis.RedisError, RedisClusterException, OSError)
"""What such a client raises when the servers fail it."""

_SENTINEL_TIMEOUT = 0.5


def control_client(url: str | RedisUrl, timeout: float, *, decode_responses: bool = False) -> Any:
    """No blind retries. Of Sentinels it is a client of the primary, of several servers one of the first.

    A cluster is asked for its nodes at once: raises one of CONTROL_ERRORS if none answers.
    """
    address = parse_redis_url(url) if isinstance(url, str) else url
    retry, decode = Retry(NoBackoff(), 0), {"decode_responses": decode_responses}
    if address.kind == "server":
        return redis.Redis(**address.servers[0].client_arguments(timeout) | decode, retry=retry)
    options = address.login.client_arguments(timeout) | decode
    if address.kind == "sentinel":
        sentinels = sentinels_of(address, **options, retry=retry)
        return sentinels.master_for(address.service)  # type: ignore[no-untyped-call]
    del options["db"]
    nodes = [ClusterNode(host, port) for host, port in address.hosts]  # type: ignore[no-untyped-call]
    # It asks who has a slot when a node is gone, and then tries again: that much is needed to find the others.
    return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options, retry=Retry(NoBackoff(), 2))


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


def sentinels_of(url: RedisUrl, **connection: Any) -> Sentinels:
    """A client of the Sentinels; `connection` is for the clients that it makes of the servers themselves."""
    return Sentinels(  # type: ignore[no-untyped-call]
        # In random order: a Sentinel that is cut off from the others is not asked first every time.
        random.sample(url.hosts, len(url.hosts)),
        sentinel_kwargs={**url.sentinel_login.client_arguments(_SENTINEL_TIMEOUT), "retry": Retry(NoBackoff(), 0)},
        **connection,
    )
