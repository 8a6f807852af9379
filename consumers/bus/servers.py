"""Which server a reader follows: the one its URL names, the nearest of several, or the primary that Sentinels know."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

from redis.exceptions import RedisError

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.bus.connection import BusConnectionError, BusLink, tls_context
from bookbus.consumers.bus.control_client import sentinels_of
from bookbus.schemas.redis_url import HostPort, RedisServer, parse_redis_url, redacted

_LIMIT = 0.5
_PROBES = 3
_NAME = "bookbus-probe"


class BusServers:
    """Finds the server to read from. Raises ValueError, which repeats no secret, for a URL of none."""

    def __init__(self, url: str) -> None:
        self.url = parse_redis_url(url)
        if self.url.login.tls is not None:
            # Raises now rather than when the context is needed.
            tls_context(self.url.login.tls)

    @property
    def masked(self) -> str:
        """The URL as it may be shown."""
        return self.url.masked

    @property
    def may_move(self) -> bool:
        """Whether another server may become the right one."""
        return self.url.kind == "sentinel" or self.url.nearest

    def find(self) -> RedisServer:
        """The server to read from now. Raises BusConnectionError if none is known; it may be away all the same."""
        if self.url.kind == "cluster":
            raise BusConnectionError(f"{self.masked} is many servers: name one of them, redis://host:port")
        servers = self._ask_sentinels() if self.url.kind == "sentinel" else self.url.servers
        return self._nearest_of(servers) if self.url.nearest else servers[0]

    def unfit(self, role: Any) -> str:
        """Why a server that answers this to ROLE is not, or no longer, to be read from; empty if it is."""
        if not isinstance(role, list) or role[:1] in ([], [b"master"]):
            return ""  # Who may not ask has to believe.
        if not self.url.nearest:
            return "it is no longer the primary"
        return "" if role[3:4] == [b"connected"] else "it has lost its primary"

    def node(self, place: HostPort) -> "ClusterNode":
        """One node of the cluster."""
        return ClusterNode(self.url.server(place))

    def _ask_sentinels(self) -> Sequence[RedisServer]:
        """The primary, and behind it the replicas if they count."""
        sentinels = sentinels_of(self.url)
        try:
            found = [sentinels.discover_master(self.url.service)]
            if self.url.nearest:
                found += sentinels.discover_slaves(self.url.service)  # type: ignore[no-untyped-call]
            return [self.url.server(host_port) for host_port in found]
        except (RedisError, OSError) as error:
            raise BusConnectionError(f"{self.masked}: {redacted(error, self.url.secrets)}") from None
        finally:
            for client in sentinels.sentinels:
                client.close()

    def _nearest_of(self, candidates: Iterable[RedisServer]) -> RedisServer:
        known, troubles = [], []
        for number, server in enumerate(candidates):
            try:
                known.append((self._distance(server), number, server))
            except BusConnectionError as error:
                troubles.append(str(error))
        if not known:
            raise BusConnectionError(f"none of the servers of {self.masked} can be read from: {'; '.join(troubles)}")
        return min(known)[2]

    def _distance(self, server: RedisServer) -> float:
        """Seconds to the server and back. Raises BusConnectionError if it is away or unfit."""
        with closing(BusLink(server, _NAME, _LIMIT)) as link:
            (role,) = link.ask([("ROLE",)], _LIMIT)
            if trouble := self.unfit(role):
                raise BusConnectionError(f"{server.masked}: {trouble}")
            return min(_round_trip(link) for _ in range(_PROBES))


class ClusterNode(BusServers):
    """A primary of a cluster; when it is that no longer, others have its books."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server

    @property
    def masked(self) -> str:
        """Its URL as it may be shown."""
        return self.server.masked

    @property
    def may_move(self) -> bool:
        """Always: how long to wait for an answer depends on it."""
        return True

    def find(self) -> RedisServer:
        """This node."""
        return self.server


def _round_trip(link: BusLink) -> float:
    sent = boottime()
    link.ask([("PING",)], _LIMIT)
    return boottime() - sent
