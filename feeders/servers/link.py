"""Keeps one connection to Redis open, for as long as the process runs."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable

from bookbus.feeders.bus.connection import RedisConnectionError, RespConnection, open_connection
from bookbus.feeders.bus.servers import Locate
from bookbus.feeders.reconnect import ReconnectPolicy

logger = logging.getLogger(__name__)

# Our own server on a near network: come back soon.
_POLICY = ReconnectPolicy(initial=0.1, maximum=1.0)
_MANY_FAILURES = 10


class RedisLink:
    """Connects, and connects again; tells once each why Redis is away, and once that it is back."""

    def __init__(
        self,
        locate: Locate,
        masked: str,
        on_open: Callable[[RespConnection], None],
        on_lost: Callable[[], None],
        *,
        reply_timeout: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._locate = locate
        self._masked = masked
        self._on_open = on_open
        self._on_lost = on_lost
        self._reply_timeout = reply_timeout
        self._sleep = sleep
        self._chance = chance
        self._failures = 0
        # Each cause once: a server that is back and refuses the password is another trouble than one that is away.
        self._told: set[str] = set()

    async def run(self) -> None:
        """Until cancelled; then leave once everything written is sent."""
        while True:
            cause = await self._stay_connected()
            self._failures += 1
            if str(cause) not in self._told:
                self._told.add(str(cause))
                logger.warning("%s; trying again until Redis takes books", cause)
            await self._sleep(_POLICY.delay(min(self._failures, _MANY_FAILURES), self._chance()))

    def well(self) -> None:
        """The server did what it was asked to: being connected alone does not prove it is the right one."""
        self._failures = 0
        if self._told:
            self._told.clear()
            logger.warning("%s answers again", self._masked)

    async def _stay_connected(self) -> RedisConnectionError:
        """Returns why the connection could not be made or ended."""
        try:
            connection = await open_connection(await self._locate(), reply_timeout=self._reply_timeout)
        except RedisConnectionError as error:
            return error
        try:
            self._on_open(connection)
            return await connection.wait_closed()
        finally:
            connection.close()
            self._on_lost()
