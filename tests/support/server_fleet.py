"""Several real servers that make one bus: a primary with replicas, watched by Sentinels, and a cluster."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError

from feeders.local_redis import LocalServer
from tests.support.waiting import wait_for

SERVICE = "bus"
LIMIT = 20.0
# Any other server than the one found first: BOOKBUS_TEST_SERVER=/usr/bin/redis-server
BINARY = Path(os.environ["BOOKBUS_TEST_SERVER"]) if "BOOKBUS_TEST_SERVER" in os.environ else None

_SENTINEL = """
sentinel monitor {service} 127.0.0.1 {port} 2
sentinel down-after-milliseconds {service} 1000
sentinel failover-timeout {service} 5000
"""


def ask(server: LocalServer, *command: Any) -> Any:
    """The answer of one server, with its errors raised."""
    with redis.Redis.from_url(server.url, socket_timeout=2.0, decode_responses=True) as client:
        return client.execute_command(*command)  # type: ignore[no-untyped-call]


def place(server: LocalServer) -> str:
    """Host and port, as in a list of them."""
    return f"127.0.0.1:{server.port}"


@dataclass
class Replicated:
    """A primary with replicas. Started from the first on; killed and started again as a test says."""

    servers: list[LocalServer]

    @property
    def primary(self) -> LocalServer | None:
        """Who calls itself the primary; None while nobody does, or several."""
        primaries = [server for server in self.servers if _role(server) == "master"]
        return primaries[0] if len(primaries) == 1 else None

    @property
    def replicas(self) -> list[LocalServer]:
        """Who follows the primary."""
        return [server for server in self.servers if _role(server) == "slave"]


@dataclass
class Watched(Replicated):
    """The same, watched by three Sentinels."""

    sentinels: list[LocalServer] = field(default_factory=list)

    def fail_over(self) -> None:
        """Have the Sentinels make another one the primary, although nothing is wrong with it."""
        wait_for(self._begins_failover, LIMIT, "Sentinels that know a replica to take over")

    def _begins_failover(self) -> bool:
        try:
            return bool(ask(self.sentinels[0], "SENTINEL", "FAILOVER", SERVICE))
        except RedisError:
            return False

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(map(place, self.sentinels))}/{SERVICE}/0"


@contextmanager
def replicated(replicas: int = 1) -> Iterator[Replicated]:
    with ExitStack() as stack:
        yield Replicated(_replicated(stack, replicas))


@contextmanager
def watched(replicas: int = 1) -> Iterator[Watched]:
    with ExitStack() as stack:
        servers = _replicated(stack, replicas)
        configuration = _SENTINEL.format(service=SERVICE, port=servers[0].port)
        sentinels = [
            stack.enter_context(LocalServer(configuration=configuration, options=["--sentinel"], binary=BINARY))
            for _ in range(3)
        ]
        for sentinel in sentinels:
            wait_for(lambda sentinel=sentinel: _knows_all(sentinel, replicas), LIMIT, "Sentinels that know all")  # type: ignore[misc]
        yield Watched(servers, sentinels)


def _replicated(stack: ExitStack, replicas: int) -> list[LocalServer]:
    # A replica asks again each second, so that tests need not wait; Redis and Valkey differ in which word they know.
    primary = stack.enter_context(LocalServer(binary=BINARY, options=["--repl-diskless-sync-delay", "0"]))
    following = ["--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0"]
    servers = [primary]
    servers += [stack.enter_context(LocalServer(binary=BINARY, options=following)) for _ in range(replicas)]
    for replica in servers[1:]:
        wait_for(lambda replica=replica: ask(replica, "ROLE")[3] == "connected", LIMIT, "replicas in step")  # type: ignore[misc]
    return servers


def _knows_all(sentinel: LocalServer, replicas: int) -> bool:
    state = ask(sentinel, "SENTINEL", "MASTER", SERVICE)
    known = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
    return int(known["num-slaves"]) == replicas and int(known["num-other-sentinels"]) == 2


def _role(server: LocalServer) -> str:
    try:
        return str(ask(server, "ROLE")[0])
    except (RedisError, OSError):
        return "away"
