"""Which server feeders write to: the one that a URL names, or the primary that Sentinels know."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from bookbus.feeders.bus.connection import RedisConnectionError, RespConnection, open_connection, tls_context
from bookbus.feeders.reconnect import ReconnectPolicy
from bookbus.schemas.redis_cluster import SlotMap
from bookbus.schemas.redis_url import HostPort, RedisServer, RedisUrl, no_primary, parse_redis_url, redacted

logger = logging.getLogger(__name__)

Locate = Callable[[], Awaitable[RedisServer]]
"""Finds the server to write to now. Raises RedisConnectionError, with what is to be said of it, while there is none."""

SENTINEL_TIMEOUT = 0.5


def locator(url: RedisUrl | RedisServer) -> Locate:
    """Finds the one server to write to. Raises ValueError if the URL names several."""
    if isinstance(url, RedisUrl):
        require_primary(url)
        check_certificates(url)
        if url.kind == "cluster":
            raise ValueError("a cluster is many servers at once")
        if url.kind == "sentinel":
            return lambda: _ask_sentinels(url)
    server = url.servers[0] if isinstance(url, RedisUrl) else url

    async def always() -> RedisServer:
        return server

    return always


def require_primary(url: RedisUrl) -> None:
    """Raises ValueError for a list of servers, which does not say which of them is the primary."""
    if url.kind == "server" and url.nearest:
        raise ValueError("feeders write to one server: name the primary alone, or its Sentinels (redis+sentinel://)")


def check_certificates(url: RedisUrl) -> None:
    """Raises ValueError if the files that the URL names cannot be read."""
    if url.login.tls is not None:
        tls_context(url.login.tls)


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


def sentinels_of(url: RedisUrl, **connection: Any) -> Sentinels:
    """A client of the Sentinels; `connection` is for the clients that it makes of the servers themselves."""
    return Sentinels(  # type: ignore[no-untyped-call]
        # In random order: a Sentinel that is cut off from the others is not asked first every time.
        random.sample(url.hosts, len(url.hosts)),
        sentinel_kwargs={**url.sentinel_login.client_arguments(SENTINEL_TIMEOUT), "retry": Retry(NoBackoff(), 0)},
        **connection,
    )


async def _ask_sentinels(url: RedisUrl) -> RedisServer:
    try:
        async with sentinels_of(url) as sentinels:
            return url.server(await sentinels.discover_master(url.service))
    except (RedisError, OSError) as error:
        raise RedisConnectionError(f"{url.masked}: {redacted(error, url.secrets)}") from None


# Our own server on a near network: come back soon.
_POLICY = ReconnectPolicy(initial=0.1, maximum=1.0)
_MANY_FAILURES = 10


class RedisLink:
    """Connects, and connects again; tells once each why Redis is away, and once that it is back."""

    def __init__(
        self,
        locate: Locate,
        masked: str,
        on_open: Callable[[RespConnection], None],
        on_lost: Callable[[], None],
        *,
        reply_timeout: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._locate = locate
        self._masked = masked
        self._on_open = on_open
        self._on_lost = on_lost
        self._reply_timeout = reply_timeout
        self._sleep = sleep
        self._chance = chance
        self._failures = 0
        # Each cause once: a server that is back and refuses the password is another trouble than one that is away.
        self._told: set[str] = set()

    async def run(self) -> None:
        """Until cancelled; then leave once everything written is sent."""
        while True:
            cause = await self._stay_connected()
            self._failures += 1
            if str(cause) not in self._told:
                self._told.add(str(cause))
                logger.warning("%s; trying again until Redis takes books", cause)
            await self._sleep(_POLICY.delay(min(self._failures, _MANY_FAILURES), self._chance()))

    def well(self) -> None:
        """The server did what it was asked to: being connected alone does not prove it is the right one."""
        self._failures = 0
        if self._told:
            self._told.clear()
            logger.warning("%s answers again", self._masked)

    async def _stay_connected(self) -> RedisConnectionError:
        """Returns why the connection could not be made or ended."""
        try:
            connection = await open_connection(await self._locate(), reply_timeout=self._reply_timeout)
        except RedisConnectionError as error:
            return error
        try:
            self._on_open(connection)
            return await connection.wait_closed()
        finally:
            connection.close()
            self._on_lost()


class Router(Protocol):
    """Says which server serves which Redis name. A server is known by its host and port."""

    sharded: bool
    """Whether the servers are the nodes of a cluster, with shard channels."""

    @property
    def servers(self) -> frozenset[HostPort]:
        """Every server to be connected to, as far as they are known."""

    def address(self, server: HostPort) -> RedisUrl | RedisServer:
        """How to find this server: see `locator`."""

    def server_of(self, name: str) -> HostPort | None:
        """The server to write a name to; None while that is not known."""

    def follow(self, moves: Iterable[tuple[HostPort, str]]) -> None:
        """Correct the routes by MOVED replies, each with the server that sent it."""

    async def run(self, on_change: Callable[[], None], is_healthy: Callable[[], bool]) -> None:
        """Keep the routes up to date until cancelled; more often while the servers are not healthy."""


def router_of(url: str) -> Router:
    """The router for the servers that this URL names. Raises ValueError for a URL that feeders cannot write to."""
    address = parse_redis_url(url)
    return ClusterRouter(address) if address.kind == "cluster" else PrimaryRouter(address)


class PrimaryRouter:
    """Every name is on one server: the one that the URL names, or the primary that its Sentinels name."""

    sharded = False

    def __init__(self, url: RedisUrl) -> None:
        locator(url)
        self._url = url
        self._server = url.hosts[0]
        self.servers = frozenset({self._server})

    def address(self, server: HostPort) -> RedisUrl:
        return self._url

    def server_of(self, name: str) -> HostPort:
        return self._server

    def follow(self, moves: Iterable[tuple[HostPort, str]]) -> None:
        pass

    async def run(self, on_change: Callable[[], None], is_healthy: Callable[[], bool]) -> None:
        await asyncio.Event().wait()


_REFRESH_INTERVAL = 5.0
_UNHEALTHY_REFRESH_INTERVAL = 0.2
"""Seconds between two requests for the slots, while every node is healthy and while one is not."""


class ClusterRouter:
    """Every name is on the node of a cluster that serves its slot."""

    sharded = True

    def __init__(self, url: RedisUrl) -> None:
        check_certificates(url)
        self._url = url
        self._slots = SlotMap()
        self._refresh_now = asyncio.Event()
        self._failing = False

    @property
    def servers(self) -> frozenset[HostPort]:
        return self._slots.places

    def address(self, server: HostPort) -> RedisServer:
        return self._url.server(server)

    def server_of(self, name: str) -> HostPort | None:
        return self._slots.place(name.encode())

    def follow(self, moves: Iterable[tuple[HostPort, str]]) -> None:
        for server, reply in moves:
            with suppress(ValueError):
                self._slots = self._slots.moved(reply, server)
        # The other nodes may not all know yet.
        self._refresh_now.set()

    async def run(self, on_change: Callable[[], None], is_healthy: Callable[[], bool]) -> None:
        while True:
            await self._refresh(on_change)
            calm = self._slots.places and is_healthy()
            with suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH_INTERVAL if calm else _UNHEALTHY_REFRESH_INTERVAL):
                    await self._refresh_now.wait()
            self._refresh_now.clear()

    async def _refresh(self, on_change: Callable[[], None]) -> None:
        try:
            slots = await ask_slots(self._url, self._slots.places)
        except RedisConnectionError as error:
            if not self._failing:
                logger.warning("%s; trying again until one does", error)
            self._failing = True
            return
        if self._failing:
            logger.warning("%s answers again", self._url.masked)
            self._failing = False
        self._slots = slots
        on_change()


_TIMEOUT = 0.5


async def ask_slots(url: RedisUrl, known: Iterable[HostPort]) -> SlotMap:
    """The map of the node that knows most of the cluster. Raises RedisConnectionError if no node answers."""
    answers = await asyncio.gather(*(_ask(url, place) for place in {*url.hosts, *known}))
    found = [answer for answer in answers if isinstance(answer, tuple)]
    if not found:
        causes = sorted(str(answer) for answer in answers)
        raise RedisConnectionError(f"no node of {url.masked} tells who has which slot ({causes[0]})")
    return max(found, key=lambda answer: answer[0])[1]


async def _ask(url: RedisUrl, place: HostPort) -> tuple[tuple[bool, int], SlotMap] | str:
    """How much the node's word counts, and its map; else why there is none."""
    try:
        connection = await open_connection(url.server(place), connect_timeout=_TIMEOUT, reply_timeout=_TIMEOUT)
    except RedisConnectionError as error:
        return str(error)
    try:
        info, slots = await connection.call("CLUSTER", "INFO"), await connection.call("CLUSTER", "SLOTS")
        if not isinstance(info, bytes) or not isinstance(slots, list):
            refusal = slots if isinstance(info, bytes) else info
            return f"{place[0]}:{place[1]} answers {refusal!r:.100}"
        fields = dict(line.split(b":", 1) for line in info.split(b"\r\n") if b":" in line)
        # Who is cut off from the others knows that the cluster failed, or an epoch that is over.
        weight = fields.get(b"cluster_state") == b"ok", int(fields.get(b"cluster_current_epoch", 0))
        return weight, SlotMap.parse(slots, place)
    except (RedisConnectionError, ValueError) as error:
        return str(error)
    finally:
        connection.close()


TIMEOUT = 2.0

CONTROL_ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What such a client raises when the servers fail it."""


def control_client(url: str) -> "Redis":
    """Short timeouts, no blind retries; of Sentinels it is a client of the primary. ValueError repeats no secret."""
    address = parse_redis_url(url)
    require_primary(address)
    check_certificates(address)
    if address.kind == "server":
        return Redis(**address.servers[0].client_arguments(TIMEOUT), retry=Retry(NoBackoff(), 0))
    options = address.login.client_arguments(TIMEOUT)
    if address.kind == "sentinel":
        sentinels = sentinels_of(address, **options, retry=Retry(NoBackoff(), 0))
        return sentinels.master_for(address.service)  # type: ignore[no-any-return]
    del options["db"]
    nodes = [ClusterNode(host, port) for host, port in address.hosts]
    # It has every method that is used here.
    # It asks who has a slot when a node is gone, and then tries again: that much is needed to find the others.
    return RedisCluster(  # type: ignore[return-value]
        startup_nodes=nodes, require_full_coverage=False, **options, retry=Retry(NoBackoff(), 2)
    )
