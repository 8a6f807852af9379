"""Several real servers as one bus: a primary with replicas, with Sentinels, and a cluster."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import RedisError

from bookbus.feeders.redis_server import LocalServer, free_port
from bookbus.schemas.redis_cluster import SLOTS, slot_of
from tests.support.waiting import wait_for

SERVICE = "bus"
LIMIT = 20.0
# Another server binary than the default: BOOKBUS_TEST_SERVER=/usr/bin/redis-server
BINARY = Path(os.environ["BOOKBUS_TEST_SERVER"]) if "BOOKBUS_TEST_SERVER" in os.environ else None
MakeServer = Callable[..., LocalServer]
"""Creates a server with these options, not started."""
_PLAIN: MakeServer = partial(LocalServer, binary=BINARY)

_SENTINEL = """
sentinel monitor {service} 127.0.0.1 {port} 2
sentinel down-after-milliseconds {service} 1000
sentinel failover-timeout {service} 5000
"""


def ask(server: LocalServer, *command: Any) -> Any:
    """The reply of one server. Raises its errors."""
    with redis.Redis.from_url(server.url, socket_timeout=2.0, decode_responses=True) as client:
        return client.execute_command(*command)


def place(server: LocalServer) -> str:
    """Host and port, as in a URL."""
    return f"127.0.0.1:{server.port}"


@dataclass
class Replicated:
    """A primary with replicas, all started."""

    servers: list[LocalServer]

    @property
    def primary(self) -> LocalServer | None:
        """The server with the role of primary; None if there is none, or more than one."""
        primaries = [server for server in self.servers if _role(server) == "master"]
        return primaries[0] if len(primaries) == 1 else None

    @property
    def replicas(self) -> list[LocalServer]:
        """The servers with the role of replica."""
        return [server for server in self.servers if _role(server) == "slave"]


@dataclass
class Watched(Replicated):
    """The same with three Sentinels."""

    sentinels: list[LocalServer] = field(default_factory=list)

    def fail_over(self) -> None:
        """Have the Sentinels promote a replica while the primary is up."""
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
def replicated(replicas: int = 1, make: MakeServer = _PLAIN) -> Iterator[Replicated]:
    with ExitStack() as stack:
        yield Replicated(_replicated(stack, replicas, make))


@contextmanager
def watched(replicas: int = 1, make: MakeServer = _PLAIN) -> Iterator[Watched]:
    with ExitStack() as stack:
        servers = _replicated(stack, replicas, make)
        configuration = _SENTINEL.format(service=SERVICE, port=servers[0].port)
        sentinels = [stack.enter_context(make(configuration=configuration, options=["--sentinel"])) for _ in range(3)]
        for sentinel in sentinels:
            wait_for(lambda sentinel=sentinel: _knows_all(sentinel, replicas), LIMIT, "Sentinels that know all")  # type: ignore[misc]
        yield Watched(servers, sentinels)


@dataclass
class Cluster:
    """Primaries that share the slots, and one replica of each, in the same order."""

    primaries: list[LocalServer]
    replicas: list[LocalServer]

    @property
    def url(self) -> str:
        return f"redis+cluster://{','.join(map(place, self.primaries))}"

    @property
    def servers(self) -> list[LocalServer]:
        return self.primaries + self.replicas

    def owner(self, key: str) -> LocalServer | None:
        """The owner of a key's slot according to all servers that reply; None while they disagree."""
        slot = slot_of(key.encode())
        answers = {_owner_port(server, slot) for server in self.servers} - {None}
        return next((server for server in self.servers if {server.port} == answers), None)

    def move_slot(self, key: str, to: LocalServer) -> None:
        """Move the slot of a key with all its keys, like `redis-cli --cluster reshard`."""
        slot, source = slot_of(key.encode()), self.owner(key)
        assert source is not None
        source_id, target_id = ask(source, "CLUSTER", "MYID"), ask(to, "CLUSTER", "MYID")
        ask(to, "CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
        ask(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
        while keys := ask(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            ask(source, "MIGRATE", "127.0.0.1", to.port, "", 0, 2000, "KEYS", *keys)
        for server in (to, source):
            ask(server, "CLUSTER", "SETSLOT", slot, "NODE", target_id)


@contextmanager
def cluster(primaries: int = 3, make: MakeServer = _PLAIN) -> Iterator[Cluster]:
    with ExitStack() as stack:
        servers = [stack.enter_context(_cluster_node(make)) for _ in range(2 * primaries)]
        fleet = Cluster(servers[:primaries], servers[primaries:])
        bounds = [number * SLOTS // primaries for number in range(primaries + 1)]
        for server, first, end in zip(fleet.primaries, bounds, bounds[1:], strict=False):
            ask(server, "CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for server in servers[1:]:
            bus_port = server.options[server.options.index("--cluster-port") + 1]
            ask(servers[0], "CLUSTER", "MEET", "127.0.0.1", server.port, bus_port)
        wait_for(lambda: all(_cluster_info(one)["cluster_known_nodes"] == str(len(servers)) for one in servers), LIMIT)
        for primary, replica in zip(fleet.primaries, fleet.replicas, strict=True):
            primary_id = ask(primary, "CLUSTER", "MYID")
            wait_for(lambda: _replicates(replica, primary_id), LIMIT, "a replica that knows its primary")  # noqa: B023
        wait_for(
            lambda: all(_cluster_info(one)["cluster_state"] == "ok" for one in servers), LIMIT, "a complete cluster"
        )
        for replica in fleet.replicas:
            wait_for(lambda: ask(replica, "ROLE")[3] == "connected", LIMIT, "replicas in step")  # noqa: B023
        yield fleet


def _cluster_node(make: MakeServer) -> LocalServer:
    options = [
        "--cluster-enabled",
        "yes",
        "--cluster-port",
        str(free_port()),
        "--cluster-node-timeout",
        "1500",
        "--cluster-require-full-coverage",
        "no",
        "--repl-diskless-sync-delay",
        "0",
    ]
    return make(options=options)


def _replicates(replica: LocalServer, primary_id: str) -> bool:
    try:
        return bool(ask(replica, "CLUSTER", "REPLICATE", primary_id))
    except RedisError:
        return False


def _cluster_info(server: LocalServer) -> dict[str, str]:
    answer = ask(server, "CLUSTER", "INFO")
    return answer if isinstance(answer, dict) else dict(line.split(":") for line in answer.split())


def _owner_port(server: LocalServer, slot: int) -> int | None:
    try:
        ranges = ask(server, "CLUSTER", "SLOTS")
    except (RedisError, OSError):
        return None
    return next((int(primary[1]) for first, last, primary, *_ in ranges if first <= slot <= last), -1)


def _replicated(stack: ExitStack, replicas: int, make: MakeServer) -> list[LocalServer]:
    # Without this delay a replica synchronises at once, so that tests need not wait.
    primary = stack.enter_context(make(options=["--repl-diskless-sync-delay", "0"]))
    following = ["--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0"]
    servers = [primary]
    servers += [stack.enter_context(make(options=following)) for _ in range(replicas)]
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
