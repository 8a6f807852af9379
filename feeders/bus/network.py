"""The network of an exchange that a prefix belongs to: which one a feeder's endpoint is, and the claim on Redis."""

import asyncio
import contextlib
import hashlib
import ipaddress
import logging
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import urlsplit

from bookbus.feeders.bus.cleanup import remove_books
from bookbus.feeders.bus.heartbeat import heartbeats_of
from bookbus.feeders.bus.servers import (
    CONTROL_ERRORS,
    AuthenticationError,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    control_client,
)
from bookbus.feeders.stall_detector import boot_clock
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import masked, parse_redis_url, redacted, secrets_of

logger = logging.getLogger(__name__)

LIVE = "live"
SIMULATOR = "simulator"
RECORDING = "recording"

CLAIM_INTERVAL = 1.0
TAKE_AFTER = 5.0
"""Seconds without a sign of the network that holds the claim after which another one takes it."""
HOLD_AFTER = 4.0
"""Seconds since the last claim after which a feeder that was paused or disconnected does not publish: less than
TAKE_AFTER.
"""

_POLL_INTERVAL = 0.5
_POLL_GAP = 1.5
_LOOP_GAP = 1.0
_BEAT_LIMIT = 2.5
"""Seconds within which a running feeder sends its next heartbeat."""

_PERMANENT_ERRORS = (AuthenticationError, NoPermissionError)

Networks = Mapping[str, Sequence[str]]
"""The hosts of each public network of an exchange."""


class NetworkTakenError(Exception):
    """Another network of the exchange owns the prefix; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ExchangeNetwork:
    """Feeders of equal networks may publish one book. `source` is empty where the name says it all."""

    name: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.source})" if self.source else self.name


def network_of(networks: Networks, url: str, host: str) -> ExchangeNetwork:
    """The network of a WebSocket or REST address as a feeder on `host` sees it."""
    parts = urlsplit(url)
    if not parts.hostname:
        return ExchangeNetwork(RECORDING)
    name = parts.hostname.rstrip(".").lower()
    for network, hosts in networks.items():
        if name in hosts:
            return ExchangeNetwork(network)
    with contextlib.suppress(ValueError):
        name = f"{name}:{parts.port}" if parts.port else name
    source = f"{name}{parts.path.rstrip('/')}"
    if _is_loopback(parts.hostname):
        # Spelled in one way; each machine has its own.
        return ExchangeNetwork(SIMULATOR, f"{source.replace(parts.hostname, 'localhost', 1)} on {host}")
    return ExchangeNetwork(parts.hostname.rstrip(".").lower(), source)


def choose_network(networks: Networks, name: str | None, ws_url: str, rest_url: str) -> ExchangeNetwork:
    """The network that a feeder publishes: the one that is named, else that of its WebSocket address.

    Raises ValueError if an address belongs to another network.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(f"--network {name!r:.80}: use letters, digits, '-', '_' or '.'")
    host = socket.gethostname()
    chosen = network_of(networks, ws_url, host) if name is None else ExchangeNetwork(name)
    for option, url in (("--ws-url", ws_url), ("--rest-url", rest_url)):
        found = network_of(networks, url, host).name
        # An unknown host is what --network says it is; without that, never one of the exchange's own.
        if found != chosen.name and (found in networks or (name is None and chosen.name in networks)):
            raise ValueError(
                f"{option} {masked(url)} is of network {found}, the feeder's is {chosen.name}: name --ws-url and "
                "--rest-url of one network, or --network if that host is a proxy of it"
            )
    return chosen


class NetworkClaim:
    """One feeder's part in the claim of its network: made at the start, kept once a second, released at the end.

    Nothing may be published unless `may_publish()`: after a pause or a lost connection another network may own the
    prefix. `on_hold` is called when publishing stops, `on_regained` when it may go on.
    """

    def __init__(
        self,
        url: str,
        names: RedisNames,
        exchange: str,
        network: ExchangeNetwork,
        feeder: str,
        *,
        networks: Networks,
        endpoint: str,
        clock: Callable[[], float] = boot_clock,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        redis: Any = None,
    ) -> None:
        """`endpoint` is how heartbeats call the source."""
        self.network = network
        self.feeder = feeder
        self.exchange = exchange
        self.refused = ""
        """Why this feeder publishes nothing; empty while it may."""
        self.on_hold: Callable[[], None] = lambda: None
        self.on_regained: Callable[[], None] = lambda: None
        self._url = url
        self._names = names
        self._networks = networks
        self._endpoint = endpoint
        self._clock = clock
        self._sleep = sleep
        self._redis: Any = redis or control_client(url)
        self._key = names.network(exchange)
        self._sharded = parse_redis_url(url).kind == "cluster"
        self._holding = self._ending = False
        self._claimed_at = self._seen_at = clock()
        self._watch: _Watch | None = None
        self._cleaning: asyncio.Task[None] | None = None

    def may_publish(self) -> bool:
        """Whether the prefix is surely this network's. Called before every write, and several times a second."""
        now = self._clock()
        gap, self._seen_at = now - self._seen_at, now
        if gap > _LOOP_GAP:
            self.doubt()
        return self._holding

    def doubt(self) -> None:
        """This process was paused or disconnected: if long ago claimed, claim again before anything is published."""
        if self._holding and self._clock() - self._claimed_at > HOLD_AFTER:
            self._hold()

    async def acquire(self) -> None:
        """Return once the prefix is this network's. Raises NetworkTakenError, or one of CONTROL_ERRORS."""
        reply = await self._call("look")
        if reply.status == "absent":
            await self._refuse_beside_feeders()
            reply = await self._call("claim")
        await self._apply(reply)
        while not self._holding:
            await self._sleep(_POLL_INTERVAL)
            await self._step()

    @contextlib.asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Acquire it, keep it during the block, and release it. Raises NetworkTakenError, also out of the block.

        On a server that takes no writes now the block begins without the claim, and nothing is published before it.
        Raises one of CONTROL_ERRORS if the user has no right to claim.
        """
        task, acquired = asyncio.current_task(), True
        try:
            try:
                await self.acquire()
            except _PERMANENT_ERRORS:
                raise
            except CONTROL_ERRORS as error:
                acquired, self.refused = False, _explained(error, self._url)
                logger.warning("%s: %s; retrying until Redis takes books", masked(self._url), self.refused)
            keeping = asyncio.create_task(self._keep(acquired))
            if task is not None:
                keeping.add_done_callback(lambda done: task.cancel() if not done.cancelled() else None)
            try:
                yield
            except asyncio.CancelledError:
                if not keeping.done() or task is None or task.uncancel():
                    raise
                raise keeping.exception() or NetworkTakenError("") from None
            finally:
                self._ending = True
                keeping.cancel()
                await asyncio.wait((keeping,))
        finally:
            await self._end()

    async def _keep(self, acquired: bool) -> None:
        """Until cancelled. Raises NetworkTakenError."""
        # redis-py sometimes swallows a cancellation, and this coroutine must end on one.
        while not self._ending:
            await self._sleep(CLAIM_INTERVAL if self._holding else _POLL_INTERVAL)
            try:
                if acquired:
                    await self._step()
                else:
                    await self.acquire()
                    acquired = True
                    logger.info("%s takes books", masked(self._url))
            except CONTROL_ERRORS as error:
                logger.debug("cannot claim the network: %s", redacted(error, secrets_of(self._url)))

    async def _step(self) -> None:
        watch, taken_over = self._watch, ""
        if watch is not None and watch.answered_at - watch.since >= TAKE_AFTER:
            taken_over = str(watch.claims)
        cleaned = self._cleaning is not None and self._cleaning.done()
        if cleaned and self._cleaning is not None:
            cleaning, self._cleaning = self._cleaning, None
            cleaning.result()
        await self._apply(await self._call("cleaned" if cleaned else "claim", taken_over))

    async def _apply(self, reply: "_Reply") -> None:
        now = self._clock()
        if reply.status == "held":
            self._watch = None
            self._claimed_at = reply.sent_at
            # A reply that was read only after a pause is of the time before.
            if now - reply.sent_at <= HOLD_AFTER:
                self._regain()
        elif reply.status == "cleaning":
            self._watch = None
            self._hold(f"the books of another network are being removed by {reply.feeder}")
            if reply.feeder == self.feeder and self._cleaning is None:
                logger.warning("removing the %s books of another network", self.exchange)
                self._cleaning = asyncio.create_task(
                    remove_books(self._redis, self._names, self.exchange, sharded=self._sharded)
                )
        else:
            self._hold(self._reason(str(ExchangeNetwork(reply.network, reply.source)), reply.feeder))
            self._observe(reply.claims, now)

    def _observe(self, count: int, now: float) -> None:
        """Watch the claim of another network, without a look at any other clock."""
        watch = self._watch
        if watch is None or now - watch.answered_at > _POLL_GAP:
            # Nothing is known of the time between.
            self._watch = _Watch(count, now, now)
        elif count != watch.claims:
            raise NetworkTakenError(self.refused)
        else:
            self._watch = watch._replace(answered_at=now)

    def _hold(self, reason: str = "the network has to be claimed again after a pause") -> None:
        self.refused = reason
        if self._holding:
            self._holding = False
            self.on_hold()

    def _regain(self) -> None:
        self.refused = ""
        if not self._holding:
            self._holding = True
            self.on_regained()

    def _reason(self, owner: str, feeder: str) -> str:
        return (
            f"{self.exchange} books under the prefix {self._names.prefix!r} are of network {owner}, which feeder "
            f"{feeder} publishes; books of network {self.network} need another --prefix or another --redis"
        )

    async def _refuse_beside_feeders(self) -> None:
        """Nobody has claimed: raise if feeders of another network run nevertheless, like those of an older version."""
        seen: dict[str, int] | None = None
        deadline = self._clock() + _BEAT_LIMIT
        while True:
            others = await self._foreign_feeders()
            beats = {feeder: beat for feeder, (beat, _) in others.items()}
            for feeder in beats if seen is not None else ():
                if seen is not None and beats[feeder] != seen.get(feeder):
                    self.refused = self._reason(others[feeder][1], feeder)
                    raise NetworkTakenError(self.refused)
            if not beats or self._clock() >= deadline:
                return
            seen = seen or beats
            await self._sleep(_POLL_INTERVAL)

    async def _foreign_feeders(self) -> dict[str, tuple[int, str]]:
        """The time of the last heartbeat, and the network, of each feeder of another network of this exchange."""
        found = {}
        fields = ("exchange", "endpoint", "network", "host", "refused", "feeder", "time_us")
        for values in (await heartbeats_of(self._redis, self._names, *fields)).values():
            exchange, endpoint, name, host, refused, feeder, time_us = map(_text, values)
            if exchange != self.exchange or refused or not endpoint or endpoint == self._endpoint:
                continue
            derived = network_of(self._networks, endpoint, host)
            owner = ExchangeNetwork(name, derived.source if name == derived.name else "") if name else derived
            if owner.name == self.network.name and self.network.source in ("", owner.source):
                continue
            found[feeder] = int(time_us) if time_us.isdigit() else 0, str(owner)
        return found

    async def _call(self, action: Literal["look", "claim", "cleaned", "release"], expected: str = "") -> "_Reply":
        sent_at = self._clock()
        arguments = (1, self._key, action, self.network.name, self.network.source, self.feeder, expected)
        try:
            reply = await self._redis.evalsha(_sha(), *arguments)
        except NoScriptError:
            await self._redis.script_load(_script().decode())
            reply = await self._redis.evalsha(_sha(), *arguments)
        status, network, source, feeder, count = reply
        return _Reply(_text(status), _text(network), _text(source), _text(feeder), int(count), sent_at)

    async def _end(self) -> None:
        if self._cleaning is not None:
            self._cleaning.cancel()
            await asyncio.wait((self._cleaning,))
        with contextlib.suppress(*CONTROL_ERRORS):
            if self._holding:
                await self._call("release")
        await self._redis.aclose()


class _Reply(NamedTuple):
    status: str
    network: str
    source: str
    feeder: str
    claims: int
    sent_at: float


class _Watch(NamedTuple):
    """A count of another network, and between which times it was seen not to rise."""

    claims: int
    since: float
    answered_at: float


@cache
def _script() -> bytes:
    return Path(__file__).with_name("network.lua").read_bytes()


@cache
def _sha() -> str:
    return hashlib.sha1(_script(), usedforsecurity=False).hexdigest()


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


def _explained(error: Exception, url: str) -> str:
    if isinstance(error, ReadOnlyError):
        return "is a read-only replica, and feeders write to its primary: name that with --redis"
    return redacted(error, secrets_of(url))


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
