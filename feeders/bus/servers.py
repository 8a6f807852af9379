"""Which server feeders write to: the one that a URL names, or the primary that Sentinels know."""

import random
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from bookbus.feeders.bus.connection import RedisConnectionError
from bookbus.feeders.servers.address import RedisAddress, parse_address
from bookbus.schemas.redis_url import BusServers, no_primary, parse_servers
from bookbus.schemas.url_secrets import masked, redacted, secrets_of

Locate = Callable[[], Awaitable[RedisAddress]]
"""Finds the server to write to now. Raises RedisConnectionError, with what is to be said of it, while there is none."""

SENTINEL_TIMEOUT = 0.5


def locator(url: str) -> Locate:
    """Finds the server that this URL stands for. Raises ValueError for a URL of anything else."""
    servers = parse_servers(url)
    if servers.kind == "cluster":
        raise ValueError("a cluster is many servers at once")
    if servers.kind == "sentinel":
        parse_address(servers.url(servers.places[0]))
        return lambda: _ask_sentinels(servers, url)
    refuse_replicas(servers)
    address = parse_address(url)

    async def always() -> RedisAddress:
        return address

    return always


def refuse_replicas(servers: BusServers) -> None:
    """Raises ValueError for a list of servers, which leaves open who of them is the primary."""
    if servers.kind == "server" and servers.nearest:
        raise ValueError("feeders write to one server: name the primary alone, or its Sentinels (redis+sentinel://)")


class Sentinels(Sentinel):
    """Says in one line that no primary is known."""

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        """The primary of a service. Raises MasterNotFoundError."""
        try:
            host, port = await super().discover_master(service_name)
        except MasterNotFoundError:
            raise MasterNotFoundError(no_primary(service_name, await self._answers())) from None
        return host, port

    async def _answers(self) -> str:
        """Why each of them failed us, of which the library tells only the kind."""
        told = []
        for sentinel in self.sentinels:
            try:
                await sentinel.sentinel_masters()
            except RedisError as error:
                told.append(str(error))
        return "\n".join(told)


def sentinels_of(servers: BusServers, **connection: Any) -> Sentinels:
    """A client of the Sentinels; `connection` is for the clients that it makes of the servers themselves."""
    options: dict[str, Any] = {**parse_url(servers.url(servers.places[0]))}
    username, password = servers.sentinel_login
    tls = {name: value for name, value in options.items() if name.startswith("ssl_")}
    if options.get("connection_class") is SSLConnection:
        tls["ssl"] = True
    # Another order each time: one of them that is cut off from the others is not asked for ever.
    places = random.sample(servers.places, len(servers.places))
    return Sentinels(  # type: ignore[no-untyped-call]
        places,
        sentinel_kwargs={
            **tls,
            "username": username,
            "password": password,
            "socket_timeout": SENTINEL_TIMEOUT,
            "socket_connect_timeout": SENTINEL_TIMEOUT,
            "retry": Retry(NoBackoff(), 0),
        },
        **connection,
    )


async def _ask_sentinels(servers: BusServers, url: str) -> RedisAddress:
    try:
        async with sentinels_of(servers) as sentinels:
            place = await sentinels.discover_master(servers.service)
    except (RedisError, OSError) as error:
        raise RedisConnectionError(f"{masked(url)}: {redacted(error, secrets_of(url))}") from None
    return parse_address(servers.url(place))
