"""Books that no feeder stands behind any more: closed so that readers hear it, and taken off the list."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from bookbus.feeders.bus.heartbeat import heartbeats_of
from bookbus.feeders.bus.publish_script import script_sha, script_text
from bookbus.feeders.bus.servers import CONTROL_ERRORS, NoScriptError, ResponseError, control_client
from bookbus.schemas.heartbeat import HeartbeatError, parse_heartbeat_fields
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import parse_redis_url, redacted, secrets_of
from bookbus.schemas.wire import WireError, decode, encode_body

logger = logging.getLogger(__name__)

WATCH_TIME = 15.0
"""Seconds without a confirmation after which a book that no running feeder lists is closed."""
CLEAN_INTERVAL = 300.0
"""Seconds between two looks for names whose hash has expired."""

_BATCH = 200
_FIELDS = ("seq", "state", "feeder", "confirmed_us")


class _Seen(NamedTuple):
    """A book as last seen: one that is seen so again was neither changed nor confirmed meanwhile."""

    seq: str
    state: str
    feeder: str
    confirmed_us: str


async def remove_books(redis: Any, names: RedisNames, exchange: str, *, sharded: bool = False) -> None:
    """Close and remove every book, quote and trade of an exchange. May be interrupted and begun again.

    A book is removed only if it still is the feeder's that wrote it when this began.
    """
    removed = 0
    for topic in ("book", "quote"):
        found = await _scan(redis, names.of(topic, exchange, "*"))
        seen = await _look(redis, found)
        for name, book in seen.items():
            await _close(redis, names, name, book.feeder, sharded=sharded)
        for name, book in (await _look(redis, list(seen))).items():
            if book.feeder == seen[name].feeder:
                await redis.delete(name)
                removed += 1
    listed = [name for name in map(_text, await redis.smembers(names.books)) if _is_of(names, name, exchange)]
    left = await _look(redis, listed)
    await _unlist(redis, names, [name for name in listed if name not in left])
    for pattern in (names.trades(exchange, "*"), names.recent_trades(exchange, "*")):
        for name in await _scan(redis, pattern):
            await redis.delete(name)
    if removed:
        logger.warning("removed %d %s books and quotes of another network", removed, exchange)


class Sweeper:
    """Once after a feeder's start, closes what an earlier feeder left and no running one serves.

    That is what was not confirmed for WATCH_TIME seconds of watching and is in no heartbeat. Later only names whose
    hash has expired are taken off the list of books: the books of a feeder that fails while this one runs stay, so
    that readers see that it is down.
    """

    def __init__(
        self,
        url: str,
        names: RedisNames,
        exchange: str,
        may_write: Callable[[], bool],
        serves: Callable[[str, str], bool],
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        redis: Any = None,
    ) -> None:
        """`serves` says whether this feeder publishes a topic of a standard symbol."""
        self._url = url
        self._names = names
        self._exchange = exchange
        self._may_write = may_write
        self._serves = serves
        self._sleep = sleep
        self._redis: Any = redis or control_client(url)
        self._sharded = parse_redis_url(url).kind == "cluster"

    async def run(self) -> None:
        """Until cancelled."""
        try:
            swept = False
            while True:
                try:
                    await (self._clean() if swept else self.sweep())
                    swept = True
                except CONTROL_ERRORS as error:
                    logger.debug("cannot look for abandoned books: %s", redacted(error, secrets_of(self._url)))
                await self._sleep(CLEAN_INTERVAL if swept else WATCH_TIME)
        finally:
            await self._redis.aclose()

    async def sweep(self) -> None:
        """Close every abandoned book and quote, and take abandoned books off the list. Lasts WATCH_TIME seconds."""
        before = await self._everything()
        await self._sleep(WATCH_TIME)
        after = await self._unserved()
        if not self._may_write():
            return
        closed = []
        for name, seen in after.items():
            if before.get(name, "") != seen:
                continue
            if seen is not None and seen.state != "closed":
                if not await _close(self._redis, self._names, name, seen.feeder, sharded=self._sharded):
                    continue
                closed.append(name)
            if self._names.parse_book(name) is not None:
                await _unlist(self._redis, self._names, [name])
        if closed:
            shown = ", ".join(name.split(":", 1)[1] for name in sorted(closed)[:5])
            logger.warning("closed %d books that no feeder publishes any more: %s", len(closed), shown)

    async def _clean(self) -> None:
        before = await self._expired()
        await self._sleep(WATCH_TIME)
        gone = sorted(before & await self._expired())
        if self._may_write():
            await _unlist(self._redis, self._names, gone)

    async def _everything(self) -> dict[str, _Seen | None]:
        """Every book and quote of the exchange. None for a listed book without a hash."""
        found = await self._listed()
        for topic in ("book", "quote"):
            found += await _scan(self._redis, self._names.of(topic, self._exchange, "*"))
        seen = await _look(self._redis, dict.fromkeys(found))
        return {name: seen.get(name) for name in found}

    async def _unserved(self) -> dict[str, _Seen | None]:
        """Those of them that no running feeder lists."""
        found = await self._everything()
        served, feeders = await self._running()
        unserved: dict[str, _Seen | None] = {}
        for name, seen in found.items():
            symbol = name.rpartition(":")[2]
            if self._names.parse_book(name) is not None:
                abandoned = name not in served and not self._serves("book", symbol)
            else:
                # A heartbeat does not say whether its feeder publishes quotes.
                abandoned = seen is not None and seen.feeder not in feeders and not self._serves("quote", symbol)
            if abandoned:
                unserved[name] = seen
        return unserved

    async def _expired(self) -> set[str]:
        """Listed books without a hash that no running feeder lists."""
        served, _ = await self._running()
        listed = [name for name in await self._listed() if name not in served]
        seen = await _look(self._redis, listed)
        return {name for name in listed if name not in seen and not self._serves("book", name.rpartition(":")[2])}

    async def _listed(self) -> list[str]:
        listed = map(_text, await self._redis.smembers(self._names.books))
        return [name for name in listed if _is_of(self._names, name, self._exchange)]

    async def _running(self) -> tuple[set[str], set[str]]:
        """The books in the heartbeats of this exchange's feeders, and the ids of those."""
        served: set[str] = set()
        feeders: set[str] = set()
        beats = await heartbeats_of(self._redis, self._names, "exchange", "feeder", "states")
        for exchange, feeder, states in beats.values():
            if _text(exchange) != self._exchange:
                continue
            feeders.add(_text(feeder))
            try:
                known: Mapping[str, str] = parse_heartbeat_fields(("states",), (states,)).get("states", {})
            except HeartbeatError:
                continue
            served.update(self._names.book(self._exchange, symbol) for symbol in known)
        return served, feeders


async def _close(redis: Any, names: RedisNames, name: str, feeder: str, *, sharded: bool) -> bool:
    """Submit the last levels as closed, in the name of the feeder that wrote them. Whether the book is closed now."""
    try:
        book = decode(await redis.hget(name, "book") or b"")
    except (WireError, ResponseError):
        # No reader can read it either.
        return bool(await redis.delete(name))
    now_us = time.time_ns() // 1000
    body = encode_body(replace(book, state="closed"), feeder, now_us)
    best = [*(book.bids[0] if book.bids else ("", "")), *(book.asks[0] if book.asks else ("", ""))]
    arguments = (1, name, "state", feeder, book.update_id, "closed", now_us, *best, body)
    sha = script_sha(sharded=sharded, database=names.database)
    try:
        reply = await redis.evalsha(sha, *arguments)
    except NoScriptError:
        await redis.script_load(script_text(sharded=sharded, database=names.database).decode())
        reply = await redis.evalsha(sha, *arguments)
    return bool(reply)


async def _unlist(redis: Any, names: RedisNames, books: Sequence[str]) -> None:
    if books:
        await redis.srem(names.books, *books)


async def _scan(redis: Any, pattern: str) -> list[str]:
    return sorted({_text(key) async for key in redis.scan_iter(match=pattern, count=1000)})


async def _look(redis: Any, found: Iterable[str]) -> dict[str, _Seen]:
    """These hashes, without those that do not exist."""
    left, seen = list(found), {}
    while left:
        batch, left = left[:_BATCH], left[_BATCH:]
        async with redis.pipeline(transaction=False) as pipeline:
            for name in batch:
                pipeline.hmget(name, *_FIELDS)
            replies = await pipeline.execute(raise_on_error=False)
        for name, reply in zip(batch, replies, strict=True):
            if isinstance(reply, list) and reply[0] is not None:
                seen[name] = _Seen(*map(_text, reply))
    return seen


def _is_of(names: RedisNames, name: str, exchange: str) -> bool:
    book = names.parse_book(name)
    return book is not None and book.exchange == exchange


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
