"""Requests to an exchange's REST interface, inside its limits."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping

import aiohttp

from bookbus.feeders.errors import RestBlockedError, RestError, RestRefusedError
from bookbus.schemas.redis_url import masked, redacted, secrets_of

logger = logging.getLogger(__name__)

_COUNT = re.compile(r"[0-9]{1,9}")
_BODY_IN_ERROR = 200
"""Characters of an answer shown in an error."""


class WeightBudget:
    """Request weight that all symbols of one address share, refilled evenly.

    `per_minute` is the exchange's limit; no more than `share` of it is used in any minute, since other programs on
    this address count too. What was left unused in the last `burst` seconds may be spent at once. `clock` and
    `sleep` are parameters for tests.
    """

    def __init__(
        self,
        per_minute: int,
        share: float = 0.5,
        burst: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.per_minute = per_minute
        self.spent = 0
        self._rate = per_minute * share / (60 + burst)
        self._capacity = self._rate * burst
        self._tokens = self._capacity
        self._clock = clock
        self._sleep = sleep
        self._filled_at = clock()
        self._closed_until = 0.0

    async def spend(self, weight: int, *, urgent: bool = True) -> None:
        """Wait until so much weight may be used. Other requests leave a third of the capacity to urgent ones."""
        reserve = 0.0 if urgent else self._capacity / 3
        while (wait := self._missing_seconds(weight + reserve)) > 0:
            await self._sleep(wait)
        self._tokens -= weight
        self.spent += weight

    def observe(self, used_this_minute: int) -> None:
        """The exchange's own count for this address, which may hold other programs' requests."""
        if used_this_minute > 0.8 * self.per_minute:
            self.close_for(60 - time.time() % 60)

    def close_for(self, seconds: float) -> None:
        """Send no request for this many seconds."""
        self._closed_until = max(self._closed_until, self._clock() + seconds)

    def _missing_seconds(self, weight: float) -> float:
        now = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if now < self._closed_until:
            return self._closed_until - now
        return max(0.0, (min(weight, self._capacity) - self._tokens) / self._rate)


class RestClient:
    """GET against one host. Connections are opened when needed; `close()` ends them."""

    def __init__(self, base_url: str, budget: WeightBudget, timeout: float = 10.0, used_header: str = "") -> None:
        """`used_header`: the answer's header with the weight used this minute, if there is one."""
        self.base_url = base_url.rstrip("/")
        self.budget = budget
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._used_header = used_header
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections; the next request opens others."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def url(self, path: str, parameters: Mapping[str, str | int]) -> str:
        """The address of a request without secrets, for errors and recordings."""
        query = "&".join(f"{key}={value}" for key, value in parameters.items())
        return f"{masked(self.base_url)}{path}" + (f"?{query}" if query else "")

    async def get(
        self,
        path: str,
        parameters: Mapping[str, str | int],
        weight: int,
        *,
        urgent: bool = True,
        patience: float | None = None,
    ) -> bytes:
        """The answer's body. Raises RestError, RestRefusedError or RestBlockedError.

        `patience` is the seconds to wait for it once the request has left, if fewer than usual.
        """
        await self.budget.spend(weight, urgent=urgent)
        if self._session is None:
            # An exchange may limit requests that carry an Origin header; aiohttp sends none.
            headers = {"User-Agent": "bookbus"}
            self._session = aiohttp.ClientSession(timeout=self._timeout, headers=headers, trust_env=True)
        url = self.url(path, parameters)
        try:
            timeout = self._timeout if patience is None else aiohttp.ClientTimeout(total=patience)
            async with self._session.get(self.base_url + path, params=dict(parameters), timeout=timeout) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = redacted(error, secrets_of(self.base_url)) or type(error).__name__
            raise RestError(f"{url}: {reason}") from error
        if _COUNT.fullmatch(used := answer.headers.get(self._used_header, "")):
            self.budget.observe(int(used))
        if answer.status != 200:
            self._refuse(url, answer.status, answer.headers.get("Retry-After"), body)
        return body

    def _refuse(self, url: str, status: int, retry_after: str | None, body: bytes) -> None:
        text = body[:_BODY_IN_ERROR].decode(errors="replace")
        if status in (418, 429):
            seconds = float(retry_after) if retry_after and _COUNT.fullmatch(retry_after) else 60.0
            self.budget.close_for(seconds)
            raise RestError(f"{url}: limit exceeded (HTTP {status}), no request for {seconds:g} s: {text}")
        if status == 451:
            raise RestBlockedError(
                f"{masked(self.base_url)} does not serve this location (HTTP 451): "
                f"choose another host with --rest-url: {text}"
            )
        if status == 403:
            self.budget.close_for(300.0)
            raise RestError(f"{url}: blocked by the exchange's firewall (HTTP 403), no request for 300 s")
        if 400 <= status < 500:
            raise RestRefusedError(f"{url}: refused (HTTP {status}): {text}")
        raise RestError(f"{url}: HTTP {status}: {text}")
