"""Whether the markets of a feed trade, asked of the exchange at intervals."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from bookbus.feeders.errors import MetadataError, RestError
from bookbus.feeders.rest_client import RestClient
from bookbus.feeders.venue import MarketStatus, Venue
from bookbus.schemas.instruments import TradingStatus

logger = logging.getLogger(__name__)

TRADING_INTERVAL = 30.0
"""Default seconds from one question to the next."""

_FORGET_AFTER = 10
"""Intervals without an answer after which it is no longer known that a market trades."""

_MOST_NAMED = 10
"""Symbols that one log line names."""


class WatchedFeed(Protocol):
    """What a watch needs of an exchange's feed."""

    venue: Venue
    rest: RestClient

    @property
    def natives(self) -> Sequence[str]:
        """The symbols it follows."""


class TradingWatch:
    """`statuses` has what the exchange last said of each native symbol; `on_change` is called after a change."""

    def __init__(
        self,
        feed: WatchedFeed,
        interval: float = TRADING_INTERVAL,
        on_change: Callable[[str, TradingStatus], None] = lambda _native, _status: None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.statuses: dict[str, TradingStatus] = {}
        self.unrecognised = 0
        """Answers about a market that had a status with no meaning here."""
        self._feed = feed
        self._interval = interval
        self._on_change = on_change
        self._clock = clock
        self._sleep = sleep
        self._answered_at = clock()
        self._failing = False
        self._named: set[str] = set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self.ask()
            await self._sleep(self._interval)

    async def ask(self) -> None:
        """Ask once, and take the answer."""
        exchange, natives = self._feed.venue.exchange.id, list(self._feed.natives)
        try:
            found = await self._feed.venue.fetch_trading(self._feed.rest, natives) if natives else {}
        except (RestError, MetadataError) as error:
            if not self._failing:
                logger.warning("%s does not say which markets trade, asking again: %s", exchange, error)
            self._failing = True
            self._forget()
            return
        if self._failing:
            logger.info("%s says again which markets trade", exchange)
        self._failing, self._answered_at = False, self._clock()
        followed = set(self._feed.natives)
        for native in [native for native in self.statuses if native not in followed]:
            del self.statuses[native]
        self._take({native: market for native, market in found.items() if native in followed})

    def _take(self, found: Mapping[str, MarketStatus]) -> None:
        changed: dict[MarketStatus, list[str]] = defaultdict(list)
        for native, market in found.items():
            if market.status == "unknown":
                self._count_unrecognised(native, market.word)
            before = self.statuses.get(native)
            if market.status == before:
                continue
            self.statuses[native] = market.status
            if not (market.status == "unknown" or (before is None and market.status == "trading")):
                changed[market].append(native)
            self._on_change(native, market.status)
        # One line for all of a kind: maintenance halts every market at once.
        for market, natives in changed.items():
            word = f" ({market.word})" if market.word else ""
            more = f" and {len(natives) - _MOST_NAMED} more" if len(natives) > _MOST_NAMED else ""
            names = " ".join(natives[:_MOST_NAMED]) + more
            logger.warning("%s: now %s%s: %s", self._feed.venue.exchange.id, market.status, word, names)

    def _count_unrecognised(self, native: str, word: str) -> None:
        self.unrecognised += 1
        if word not in self._named and len(self._named) < _MOST_NAMED:
            self._named.add(word)
            logger.warning(
                "%s: the status %r of %s is not known here, nor whether it trades",
                self._feed.venue.exchange.id,
                word,
                native,
            )

    def _forget(self) -> None:
        """An old answer must not say that a market trades; a halt holds until the exchange says something else."""
        if self._clock() - self._answered_at < _FORGET_AFTER * self._interval:
            return
        for native in [native for native, status in self.statuses.items() if status == "trading"]:
            self.statuses[native] = "unknown"
            self._on_change(native, "unknown")
