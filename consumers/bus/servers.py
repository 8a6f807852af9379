"""Which server a reader follows: the one its URL names, the nearest of several, or the primary that Sentinels know."""

from collections.abc import Iterable
from contextlib import closing
from typing import Any

import hiredis
from redis.exceptions import RedisError

from bookbus.consumers.background_loop import boottime
from bookbus.consumers.bus.connection import BusAddress, BusConnectionError, BusLink, foreign
from bookbus.consumers.bus.control_client import sentinels_of
from bookbus.schemas.redis_url import HostPort, masked, parse_servers, redacted, secrets_of

_LIMIT = 0.5
_PROBES = 3
_NAME = "bookbus-probe"


class BusServers:
    """Finds the server to read from. Raises ValueError, which repeats no secret, for a URL of none."""

    def __init__(self, url: str) -> None:
        self.masked = masked(url)
        self._secrets = secrets_of(url)
        self.servers = parse_servers(url)
        # Refused now rather than when it is needed.
        self._addresses = [BusAddress.parse(single) for single in self.servers.urls()]

    @property
    def first(self) -> BusAddress:
        """The first one that the URL names."""
        return self._addresses[0]

    @property
    def may_move(self) -> bool:
        """Whether another server may become the right one."""
        return self.servers.kind == "sentinel" or self.servers.nearest

    def find(self) -> BusAddress:
        """The server to read from now. Raises BusConnectionError if none is known; it may be away all the same."""
        if self.servers.kind == "cluster":
            raise BusConnectionError(f"{self.masked} is many servers: name one of them, redis://host:port")
        if not self.may_move:
            return self.first
        candidates = self._addresses
        if self.servers.kind == "sentinel":
            candidates = [self._address(place) for place in self._ask_sentinels()]
        return self._nearest_of(candidates) if self.servers.nearest else candidates[0]

    def unfit(self, role: Any) -> str:
        """Why a server that answers this to ROLE is not, or no longer, to be read from; empty if it is."""
        if not isinstance(role, list) or role[:1] in ([], [b"master"]):
            return ""  # Who may not ask has to believe.
        if not self.servers.nearest:
            return "it is no longer the primary"
        return "" if role[3:4] == [b"connected"] else "it has lost its primary"

    def node(self, place: HostPort) -> "ClusterNode":
        """One node of the cluster."""
        return ClusterNode(self.servers.url(place))

    def _address(self, place: tuple[str, int]) -> BusAddress:
        return BusAddress.parse(self.servers.url(place))

    def _ask_sentinels(self) -> list[tuple[str, int]]:
        """The primary, and behind it the replicas if they count."""
        sentinels = sentinels_of(self.servers)
        try:
            found = [sentinels.discover_master(self.servers.service)]
            if self.servers.nearest:
                found += sentinels.discover_slaves(self.servers.service)  # type: ignore[no-untyped-call]
            return found
        except (RedisError, OSError) as error:
            raise BusConnectionError(f"{self.masked}: {redacted(error, self._secrets)}") from None
        finally:
            for client in sentinels.sentinels:
                client.close()

    def _nearest_of(self, candidates: Iterable[BusAddress]) -> BusAddress:
        known, troubles = [], []
        for number, address in enumerate(candidates):
            try:
                known.append((self._distance(address), number, address))
            except BusConnectionError as error:
                troubles.append(str(error))
        if not known:
            raise BusConnectionError(f"none of the servers of {self.masked} can be read from: {'; '.join(troubles)}")
        return min(known)[2]

    def _distance(self, address: BusAddress) -> float:
        """Seconds to the server and back. Raises BusConnectionError if it is away or unfit."""
        try:
            with closing(BusLink(address, _NAME, _LIMIT)) as link:
                (role,) = link.ask([("ROLE",)], _LIMIT)
                if trouble := self.unfit(role):
                    raise BusConnectionError(f"{address.masked}: {trouble}")
                return min(_round_trip(link) for _ in range(_PROBES))
        except hiredis.ProtocolError as error:
            raise foreign(address, error) from error


class ClusterNode(BusServers):
    """A primary of a cluster; when it is that no longer, others have its books."""

    @property
    def may_move(self) -> bool:
        """Always: how long to wait for an answer depends on it."""
        return True

    def find(self) -> BusAddress:
        """This node."""
        return self.first


def _round_trip(link: BusLink) -> float:
    sent = boottime()
    link.ask([("PING",)], _LIMIT)
    return boottime() - sent
