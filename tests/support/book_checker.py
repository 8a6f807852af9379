"""Receives every message of the book channels and compares each live book with the exchange's own book."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from redis.asyncio import Redis

from bookbus.schemas import wire
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import Levels, OrderBookSnapshot

Truth = Callable[[str, int], tuple[Levels, Levels] | None]
"""Native symbol and update id -> true bids and asks; None if the id is unknown or no longer kept."""


@dataclass
class BookChecker:
    """What one subscriber of all channels received."""

    truth: Truth
    compared: int = 0
    unknown_ids: int = 0
    wrong: list[str] = field(default_factory=list)
    seen: Counter[str] = field(default_factory=Counter)
    states: dict[str, Counter[str]] = field(default_factory=dict)
    newest: dict[str, OrderBookSnapshot] = field(default_factory=dict)
    gaps: int = 0
    older_after_newer: int = 0

    def take(self, book: OrderBookSnapshot) -> None:
        """Check one message."""
        before = self.newest.get(book.symbol)
        self.newest[book.symbol] = book
        self.seen[book.symbol] += 1
        self.states.setdefault(book.symbol, Counter())[book.state] += 1
        if before is not None:
            self.gaps += max(0, book.seq - before.seq - 1)
            self.older_after_newer += book.update_id < before.update_id
        if book.state == "live":
            self._compare(book)

    def never_left_live(self, symbols: Iterable[str]) -> bool:
        """Whether these symbols were received, and only as live."""
        return all(set(self.states.get(symbol, {"missing": 1})) == {"live"} for symbol in symbols)

    def _compare(self, book: OrderBookSnapshot) -> None:
        true = self.truth(book.native, book.update_id)
        if true is None:
            self.unknown_ids += 1
            return
        self.compared += 1
        if (book.bids, book.asks) != (true[0][: book.depth], true[1][: book.depth]):
            self.wrong.append(f"{book.symbol} at {book.update_id}")


@contextlib.asynccontextmanager
async def book_checker(url: str, exchange: str, symbols: Iterable[str], truth: Truth):  # type: ignore[no-untyped-def]
    """A BookChecker that reads until the block ends."""
    names = RedisNames()
    redis: Redis = Redis.from_url(url, protocol=2)
    seen = BookChecker(truth)
    async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
        await pubsub.subscribe(*(names.book(exchange, symbol) for symbol in symbols))
        reading = asyncio.create_task(_read(pubsub, seen))
        try:
            yield seen
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
    await redis.aclose()


async def _read(pubsub, seen: BookChecker) -> None:  # type: ignore[no-untyped-def]
    async for message in pubsub.listen():
        seen.take(wire.decode(message["data"]))
