"""The private server of a soak run: its faults, and whether every book on it is live."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bookbus.feeders.redis_server import LocalServer
from bookbus.schemas.redis_names import RedisNames
from tests.chaos.soak.episodes import Bus

_PAUSE = 2.0
_TIMEOUT = 1.0
_LOOK_INTERVAL = 0.2


class SoakBus:
    """One persistent server; `symbols` are standard symbols by exchange."""

    def __init__(self, server: LocalServer, symbols: Mapping[str, Sequence[str]]) -> None:
        names = RedisNames()
        self._server = server
        self._names = [names.book(exchange, each) for exchange, some in symbols.items() for each in some]

    async def inject(self, action: Bus) -> None:
        """Inject a fault, and end it if it has a duration."""
        server = self._server
        match action:
            case "restart":
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
            case "crash":
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start)
            case "pause":
                server.pause()
                await asyncio.sleep(_PAUSE)
                server.resume()
            case _:
                await self._command(action)

    async def until_live(self, limit: float, is_possible: Callable[[], bool] = lambda: True) -> bool:
        """Wait until every book is live and was confirmed since this call. Returns False after `limit` seconds."""
        since, deadline = time.time_ns() // 1000, time.monotonic() + limit
        while time.monotonic() < deadline and is_possible():
            if await self._all_live(since):
                return True
            await asyncio.sleep(_LOOK_INTERVAL)
        return False

    async def _command(self, action: Bus) -> None:
        async with self._client() as redis:
            match action:
                case "kill clients":
                    await redis.client_kill_filter(_type="normal", skipme=True)
                case "kill subscribers":
                    await redis.client_kill_filter(_type="pubsub")
                case "flush data":
                    await redis.flushall()
                case "flush scripts":
                    await redis.script_flush()

    async def _all_live(self, since_us: int) -> bool:
        try:
            async with self._client() as redis, redis.pipeline(transaction=False) as pipeline:
                for name in self._names:
                    pipeline.hmget(name, "state", "confirmed_us")
                replies = await pipeline.execute()
        except (RedisError, OSError, TimeoutError):
            return False
        return all(state == b"live" and int(confirmed) > since_us for state, confirmed in replies)

    def _client(self) -> "Redis":
        return Redis.from_url(self._server.url, protocol=2, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
