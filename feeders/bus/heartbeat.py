"""The feeder's heartbeat on Redis, and the list of its books."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from bookbus.feeders.bus.refusals import FIELDS, Refusals
from bookbus.feeders.bus.servers import CONTROL_ERRORS, ReadOnlyError, control_client
from bookbus.schemas.heartbeat import (
    HEARTBEAT_INTERVAL,
    HEARTBEAT_TTL,
    FeederHeartbeat,
    encode_heartbeat,
    heartbeat_fields,
)
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import redacted, secrets_of

logger = logging.getLogger(__name__)

_POLICY = "maxmemory_policy"
_TRADING_CHECK = 30.0
"""Seconds after which each trading status is written again."""

_LOSS_CALM = 60.0
"""Seconds without a loss of data after which the next one is logged."""


class Heartbeat:
    """Writes the feeder's hash once a second, which expires; detects from the replies that Redis lost its data.

    `make` returns what to write, `book_names` the names of the feeder's books, `trading` the trading status of those
    markets where it is known. `on_data_lost` should submit every book again.
    """

    def __init__(
        self,
        url: str,
        names: RedisNames,
        make: Callable[[], FeederHeartbeat],
        book_names: Callable[[], Sequence[str]],
        on_data_lost: Callable[[], None],
        refusals: Refusals | None = None,
        trading: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._redis = control_client(url)
        self._secrets = secrets_of(url)
        self._names = names
        self._make = make
        self._book_names = book_names
        self._on_data_lost = on_data_lost
        self._refusals = refusals
        self._trading = trading
        self._trading_written: dict[str, str] = {}
        self._trading_checked_at = -math.inf
        self._registered: frozenset[str] = frozenset()
        self._dropped: set[str] = set()
        # When the last successful write was sent: the server has the hash from then or later.
        self._written_at: float | None = None
        self._lost_at = -math.inf
        self._evicts = ""
        """The eviction policies that are not `noeviction`."""
        self._reported: set[type[BaseException]] = set()
        self._writing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            # In a separate task: redis-py sometimes swallows a cancellation, and this coroutine must end on one.
            self._writing = asyncio.create_task(self._beat())
            await asyncio.wait((self._writing,))
            try:
                self._writing.result()
                self._reported.clear()
            except CONTROL_ERRORS as error:
                # The publisher already reports a replica.
                if not isinstance(error, ReadOnlyError) and type(error) not in self._reported:
                    logger.warning("cannot write the heartbeat: %s", redacted(error, self._secrets))
                self._reported.add(type(error))
            await asyncio.sleep(HEARTBEAT_INTERVAL)

    def forget(self, book: str) -> None:
        """Take a book off the list: it is published no more."""
        self._registered -= {book}
        self._dropped.add(book)

    async def end(self) -> None:
        """Delete the hash: this feeder stopped on purpose. One that was refused leaves its reason until it expires."""
        if self._writing is not None:
            await asyncio.wait((self._writing,))
        beat = self._make()
        with contextlib.suppress(*CONTROL_ERRORS):
            if beat.refused:
                await write_refusal(self._redis, self._names, beat)
            else:
                await self._redis.delete(self._names.feeder(beat.feeder))
        await self._redis.aclose()

    async def _look_up_refused(self, refusals: Refusals) -> None:
        if keys := refusals.to_look_up():
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.hmget(key.name, *FIELDS)
                refusals.learn(zip(keys, await pipeline.execute(), strict=True))
        refusals.check_recovered()

    async def _beat(self) -> None:
        if self._refusals is not None:
            await self._look_up_refused(self._refusals)
        beat = self._make()
        key = self._names.feeder(beat.feeder)
        books = frozenset(self._book_names())
        new, dropped = sorted(books - self._registered), self._dropped - books
        sent_at = time.monotonic()
        await self._redis.publish(self._names.feeders, encode_heartbeat(beat))
        async with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.hset(key, mapping=heartbeat_fields(beat))  # type: ignore[arg-type]
            pipeline.expire(key, HEARTBEAT_TTL)
            if books:
                # Adding a known name shows whether the set is still there: in a cluster it may be on another node.
                pipeline.sadd(self._names.books, *(new or [min(books)]))
            added, _, *listed = await pipeline.execute()
        if dropped:
            await self._redis.srem(self._names.books, *dropped)
            self._dropped -= dropped
        self._registered = self._registered | books if new or listed != [1] else frozenset()
        if added and self._written_at is not None:
            # The hash was gone. Unless it expired, everything else may be gone too.
            if time.monotonic() - self._written_at < HEARTBEAT_TTL:
                self._report_loss()
            self._registered = frozenset()
            self._trading_written.clear()
            self._on_data_lost()
        if self._written_at is None:
            await self._check_policy()
        self._written_at = sent_at
        await self._write_trading(books)

    async def _write_trading(self, books: frozenset[str]) -> None:
        """Write the trading status into the hashes of books where it changed; a hash without a book gets none."""
        now = time.monotonic()
        wanted = {name: status for name, status in self._trading().items() if name in books}
        wanted = dict.fromkeys(self._trading_written.keys() & books, "unknown") | wanted
        if now - self._trading_checked_at > _TRADING_CHECK:
            # A single key may have been removed, or written by another feeder.
            self._trading_checked_at = now
            self._trading_written.clear()
        changed = [name for name, status in wanted.items() if self._trading_written.get(name) != status]
        if not changed:
            return
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in changed:
                pipeline.hget(name, "seq")
            stored = await pipeline.execute()
            present = [name for name, seq in zip(changed, stored, strict=True) if seq is not None]
            for name in present:
                pipeline.hset(name, "trading", wanted[name])
            if present:
                await pipeline.execute()
        self._trading_written |= {name: wanted[name] for name in present}

    def _report_loss(self) -> None:
        """Once, and again after some time without a loss: a server that evicts keys loses some each second."""
        now = time.monotonic()
        if now - self._lost_at > _LOSS_CALM:
            what = f"Redis evicts keys ({self._evicts})" if self._evicts else "Redis lost its data"
            logger.warning("%s: sending every book again", what)
        self._lost_at = now

    async def _check_policy(self) -> None:
        """Warn if the server drops keys when its memory is full: books and their list would be missing."""
        try:
            reply: Any = await self._redis.info("memory")
        except CONTROL_ERRORS as error:
            logger.debug("cannot read the server's eviction policy: %s", redacted(error, self._secrets))
            return
        # A cluster's client returns the reply of each node.
        parts = [reply, *reply.values()] if isinstance(reply, dict) else []
        policies = {str(part[_POLICY]) for part in parts if isinstance(part, dict) and _POLICY in part}
        self._evicts = ", ".join(sorted(policies - {"noeviction"}))
        if self._evicts:
            logger.warning(
                "Redis has maxmemory-policy %s and drops books when its memory is full: set noeviction", self._evicts
            )


async def write_refusal(redis: Any, names: RedisNames, beat: FeederHeartbeat) -> None:
    """Leave the heartbeat of a feeder that ends because it was refused, so that `health` shows why."""
    key = names.feeder(beat.feeder)
    await redis.hset(key, mapping=heartbeat_fields(beat))
    await redis.expire(key, HEARTBEAT_TTL)


async def read_heartbeats(url: str, names: RedisNames, *fields: str) -> dict[str, list[bytes | str | None]]:
    """These fields of the hash of every running feeder, by its key. None where a hash expired meanwhile."""
    redis = control_client(url)
    try:
        return await heartbeats_of(redis, names, *fields)
    finally:
        await redis.aclose()


async def heartbeats_of(redis: Any, names: RedisNames, *fields: str) -> dict[str, list[bytes | str | None]]:
    """The same with an open client."""
    keys = sorted([key async for key in redis.scan_iter(match=names.feeder("*"), count=1000)])
    return {_text(key): await redis.hmget(key, *fields) for key in keys}


def counters_of(*parts: object) -> dict[str, float]:
    """The numbers among the fields of these counters."""
    numbers: dict[str, float] = {}
    for part in parts:
        fields = msgspec.to_builtins(part)
        numbers |= {name: value for name, value in fields.items() if isinstance(value, int | float)}
    return numbers


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
