"""The servers that feeders write to: one, the primary that Sentinels know, or the nodes of a cluster."""

import asyncio
import logging
import random
import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError as AuthenticationError
from redis.exceptions import NoPermissionError as NoPermissionError
from redis.exceptions import NoScriptError as NoScriptError
from redis.exceptions import ReadOnlyError as ReadOnlyError
from redis.exceptions import RedisClusterException, RedisError
from redis.exceptions import ResponseError as ResponseError

from bookbus.feeders.bus.connection import (
    RedisConnectionError,
    RespConnection,
    open_connection,
    pack_command,
    tls_context,
)
from bookbus.feeders.reconnect import ReconnectPolicy
from bookbus.schemas.redis_cluster import VIEW_COMMANDS, ClusterView, SlotMap
from bookbus.schemas.redis_url import HostPort, RedisAddress, RedisServer, no_primary, parse_redis_url, redacted

logger = logging.getLogger(__name__)

CONTROL_TIMEOUT = 2.0
SERVER_ERRORS = (RedisError, RedisClusterException, ConnectionError, TimeoutError)
CONTROL_ERRORS = (*SERVER_ERRORS, OSError)
"""Errors of a control client."""

_DISCOVERY_TIMEOUT = 0.5
_NO_EVICT = pack_command("CLIENT", "NO-EVICT", "ON")
# The server is ours and near: reconnect soon.
_POLICY = ReconnectPolicy(initial=0.1, maximum=1.0)
_MANY_FAILURES = 10
_HASHED = re.compile(r"[0-9a-f]{8}\.\d+")
_REFRESH_INTERVAL = 5.0
_UNHEALTHY_REFRESH_INTERVAL = 0.2
"""Seconds between two requests for the slots, while every node is healthy and while one is not."""


def parse_primary_url(url: str) -> RedisAddress:
    """The servers to write to. Raises ValueError, which repeats no secret, if feeders cannot write to what it names."""
    address = parse_redis_url(url)
    if address.kind == "server" and address.nearest:
        raise ValueError("feeders write to one server: name the primary alone, or its Sentinels (redis+sentinel://)")
    if address.login.tls is not None:
        # Raises now rather than when the context is needed.
        tls_context(address.login.tls)
    return address


class RedisLink:
    """Keeps one server connected; logs each cause of a failure once, and once that the server is back."""

    def __init__(
        self,
        address: RedisAddress | RedisServer,
        on_open: Callable[[RespConnection], None],
        on_lost: Callable[[], None],
        *,
        reply_timeout: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._address = address
        self._on_open = on_open
        self._on_lost = on_lost
        self._reply_timeout = reply_timeout
        self._sleep = sleep
        self._chance = chance
        self._failures = 0
        self._reported: set[str] = set()

    async def run(self) -> None:
        """Until cancelled; then close after everything written is sent."""
        while True:
            cause = str(await self._stay_connected())
            self._failures += 1
            if cause not in self._reported:
                self._reported.add(cause)
                logger.warning("%s; retrying until Redis takes books", cause)
            await self._sleep(_POLICY.delay(min(self._failures, _MANY_FAILURES), self._chance()))

    def report_success(self) -> None:
        """The server accepted a command; a connection alone does not show that it is the right server."""
        self._failures = 0
        if self._reported:
            self._reported.clear()
            logger.warning("%s answers again", self._address.masked)

    async def _stay_connected(self) -> RedisConnectionError:
        """Returns why the connection failed or ended."""
        try:
            connection = await open_connection(await _locate(self._address), reply_timeout=self._reply_timeout)
        except RedisConnectionError as error:
            return error
        # A server with `maxmemory-clients` closes large clients; a user or server without this command refuses it.
        connection.send(_NO_EVICT, 1, lambda _: None)
        try:
            self._on_open(connection)
            return await connection.wait_closed()
        finally:
            connection.close()
            self._on_lost()


class PrimaryRouter:
    """Every name is on one server: the one that the URL names, or the primary that its Sentinels name.

    It has one key for the outbox, wherever the primary is.
    """

    sharded = False

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._server = address.hosts[0]
        self.servers = frozenset({self._server})

    def address(self, server: HostPort) -> RedisAddress:
        return self._address

    def server_of(self, name: str) -> HostPort:
        return self._server

    def follow(self, moves: Iterable[tuple[HostPort, str]]) -> None:
        pass

    async def run(self, on_change: Callable[[], None], is_healthy: Callable[[], bool]) -> None:
        await asyncio.Event().wait()


class ClusterRouter:
    """Every name is on the node of a cluster that serves its slot."""

    sharded = True
    """Whether books are published on shard channels."""

    def __init__(self, address: RedisAddress) -> None:
        self._address = address
        self._slots = SlotMap()
        self._refresh_now = asyncio.Event()
        self._failing = False

    @property
    def servers(self) -> frozenset[HostPort]:
        """Every server to be connected to, as far as they are known."""
        return self._slots.nodes

    def address(self, server: HostPort) -> RedisServer:
        return self._address.server_at(server)

    def server_of(self, name: str) -> HostPort | None:
        """The server to write a Redis name to; None while that is not known."""
        return self._slots.node_of(name.encode())

    def follow(self, moves: Iterable[tuple[HostPort, str]]) -> None:
        """Correct the routes by MOVED replies, each with the server that sent it."""
        for server, reply in moves:
            with suppress(ValueError):
                self._slots = self._slots.moved(reply, server)
        # The other nodes may not all know yet.
        self._refresh_now.set()

    async def run(self, on_change: Callable[[], None], is_healthy: Callable[[], bool]) -> None:
        """Keep the routes up to date until cancelled; ask more often while the servers are not healthy."""
        while True:
            await self._refresh(on_change)
            healthy = self._slots.nodes and is_healthy()
            with suppress(TimeoutError):
                async with asyncio.timeout(_REFRESH_INTERVAL if healthy else _UNHEALTHY_REFRESH_INTERVAL):
                    await self._refresh_now.wait()
            self._refresh_now.clear()

    async def _refresh(self, on_change: Callable[[], None]) -> None:
        try:
            slots = await ask_slots(self._address, self._slots.nodes)
        except RedisConnectionError as error:
            if not self._failing:
                logger.warning("%s; retrying until one does", error)
            self._failing = True
            return
        if self._failing:
            logger.warning("%s answers again", self._address.masked)
            self._failing = False
        self._slots = slots
        on_change()


Router = PrimaryRouter | ClusterRouter


def router_of(url: str) -> Router:
    """The router for the servers that this URL names. Raises ValueError for a URL that feeders cannot write to."""
    address = parse_primary_url(url)
    return ClusterRouter(address) if address.kind == "cluster" else PrimaryRouter(address)


async def ask_slots(address: RedisAddress, known: Iterable[HostPort]) -> SlotMap:
    """The slots by the node with the best view of the cluster. Raises RedisConnectionError if no node answers."""
    answers = await asyncio.gather(*(_ask_view(address, node) for node in {*address.hosts, *known}))
    views = [answer for answer in answers if isinstance(answer, ClusterView)]
    if not views:
        errors = sorted(str(answer) for answer in answers)
        raise RedisConnectionError(f"no node of {address.masked} lists the slots ({errors[0]})")
    return max(views, key=lambda view: view.rank).slots


def control_client(url: str) -> Redis:
    """A client with short timeouts that does not retry; for Sentinels, of the primary they know.

    Raises ValueError, which repeats no secret, for an invalid URL.
    """
    address = parse_primary_url(url)
    if address.kind == "server":
        return Redis(**address.servers[0].client_arguments(CONTROL_TIMEOUT), retry=Retry(NoBackoff(), 0))
    options = address.login.client_arguments(CONTROL_TIMEOUT)
    if address.kind == "sentinel":
        sentinels = _sentinels(address, **options, retry=Retry(NoBackoff(), 0))
        return sentinels.master_for(address.service)  # type: ignore[no-any-return]
    del options["db"]
    if path := options.pop("ssl_ca_path", None):
        # The asynchronous cluster client has no option for a directory.
        options["ssl_ca_data"] = _certificates(path)
    nodes = [ClusterNode(host, port) for host, port in address.hosts]
    # The retries are needed to find the other nodes after one is gone; the client has every method that is used here.
    return RedisCluster(  # type: ignore[return-value]
        startup_nodes=nodes, require_full_coverage=False, **options, retry=Retry(NoBackoff(), 2)
    )


def _certificates(directory: str) -> str:
    """The certificates that OpenSSL would find there, by names like `9d66eef0.0`. Raises ValueError without any."""
    try:
        files = [file for file in sorted(Path(directory).iterdir()) if _HASHED.fullmatch(file.name)]
        found = "\n".join(file.read_text() for file in files)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"cannot read the certificates that the Redis URL names: {getattr(error, 'strerror', None) or 'no text'}"
        ) from None
    if not found:
        raise ValueError("ssl_ca_path names a directory without certificates: `openssl rehash` gives them their names")
    return found


class _Sentinels(Sentinel):
    """Reports in one line that no primary is known."""

    async def discover_master(self, service_name: str) -> HostPort:
        try:
            host, port = await super().discover_master(service_name)
        except MasterNotFoundError:
            raise MasterNotFoundError(no_primary(service_name, await self._errors())) from None
        return host, port

    async def _errors(self) -> str:
        """The error of each Sentinel; redis-py's own error has only their types."""
        errors = []
        for sentinel in self.sentinels:
            try:
                await sentinel.sentinel_masters()
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


async def _locate(address: RedisAddress | RedisServer) -> RedisServer:
    """The server to write to now. Raises RedisConnectionError if no Sentinel knows a primary."""
    if isinstance(address, RedisServer):
        return address
    if address.kind != "sentinel":
        return address.servers[0]
    try:
        async with _sentinels(address) as sentinels:
            return address.server_at(await sentinels.discover_master(address.service))
    except (RedisError, OSError) as error:
        raise RedisConnectionError(f"{address.masked}: {redacted(error, address.secrets)}") from None


async def _ask_view(address: RedisAddress, node: HostPort) -> ClusterView | str:
    """The cluster as a node sees it, or the error as text."""
    try:
        connection = await open_connection(
            address.server_at(node), connect_timeout=_DISCOVERY_TIMEOUT, reply_timeout=_DISCOVERY_TIMEOUT
        )
    except RedisConnectionError as error:
        return str(error)
    try:
        info, slots = [await connection.call(*command) for command in VIEW_COMMANDS]
        return ClusterView.parse(info, slots, node)
    except (RedisConnectionError, ValueError) as error:
        return str(error)
    finally:
        connection.close()
