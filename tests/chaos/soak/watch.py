"""Receives every message of the book channels and records suspect books."""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bookbus.schemas import wire
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.snapshot import OrderBookSnapshot
from tests.chaos.soak.episodes import Episode

_RETRY = 0.05


@dataclass(frozen=True, slots=True)
class Suspect:
    """A book that a feeder marked suspect; `at` is the feeder's clock."""

    at: float
    exchange: str
    native: str


@dataclass(slots=True)
class Played:
    """An episode, from its first fault until all books were live again."""

    episode: Episode
    begin: float
    end: float | None = None

    def explains(self, suspect: Suspect) -> bool:
        """Whether it may have made this book suspect."""
        episode = self.episode
        if suspect.at < self.begin or (self.end is not None and suspect.at > self.end):
            return False
        touched = episode.touches is None or suspect.native in episode.touches
        return episode.exchange == suspect.exchange and touched


def unexplained(suspects: Sequence[Suspect], played: Sequence[Played]) -> list[Suspect]:
    """Suspect books that no episode explains."""
    return [suspect for suspect in suspects if not any(each.explains(suspect) for each in played)]


class Watch:
    """A subscriber that reconnects; messages during an outage are lost."""

    def __init__(self, url: str, symbols: Mapping[str, Sequence[str]]) -> None:
        names = RedisNames()
        self._url = url
        self._channels = [names.book(exchange, each) for exchange, some in symbols.items() for each in some]
        self.suspects: list[Suspect] = []
        self.messages = 0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with contextlib.suppress(RedisError, OSError):
                await self._follow()
            await asyncio.sleep(_RETRY)

    async def _follow(self) -> None:
        redis: Redis = Redis.from_url(self._url, protocol=2)
        try:
            async with redis.pubsub(ignore_subscribe_messages=True) as pubsub:
                await pubsub.subscribe(*self._channels)
                async for message in pubsub.listen():
                    self._take(wire.decode(message["data"]))
        finally:
            await redis.aclose()

    def _take(self, book: OrderBookSnapshot) -> None:
        self.messages += 1
        if book.state == "suspect":
            self.suspects.append(Suspect(book.published_us / 1e6, book.exchange, book.native))
