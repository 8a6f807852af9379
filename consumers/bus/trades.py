"""Trades from the bus, read from their streams."""

import logging
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from bookbus.consumers.bus.servers import CONTROL_ERRORS, control_client
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import RedisAddress, redacted
from bookbus.schemas.trade import Trade, TradeError, trade_of

logger = logging.getLogger(__name__)

_LIMIT = 2.0
_BATCH = 1000


class TradeTail(Protocol):
    """The trades of one symbol since it was made, each once, in the exchange's order."""

    def take(self) -> list[Trade]:
        """The trades since the last call; never raises because of data."""

    @property
    def error(self) -> str:
        """Why trades may be missing; empty if none are known to be."""


@runtime_checkable
class TradeSource(Protocol):
    """A provider that has trades as well as books."""

    def trades(self, symbol: str) -> TradeTail:
        """The trades of a symbol from now on. Every caller gets its own tail."""


class BusTradeTail:
    """The trades added to one stream since this was made, read on each call.

    `start` finds where the stream ends; without it, the first `take` does. The connection is opened again when it was
    lost. While the server is down it returns no trades,
    and `error` says why; trades that the stream still holds come when the server is back.
    """

    def __init__(self, address: RedisAddress, names: RedisNames, exchange: str, symbol: str, native: str) -> None:
        self.error = ""
        self.skipped = 0
        """Entries that were no trade."""
        self._stream = names.trades(exchange, symbol)
        self._of = (exchange, symbol, native)
        # Any: redis-py types its replies as a union over protocol versions.
        self._client: Any = None
        self._address = address
        self._last = ""

    @property
    def trouble(self) -> str:
        """The former name of `error`."""
        return self.error

    def start(self) -> None:
        """Return the trades from now on. A server that does not answer is reported in `error`."""
        self._contained(self._find_end)

    def take(self) -> list[Trade]:
        """The trades since the last call."""
        return self._contained(self._take)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _contained(self, read: Callable[[], list[Trade]]) -> list[Trade]:
        """The result, or none and the reason in `error`."""
        try:
            trades = read()
        except CONTROL_ERRORS as error:
            if not self.error:
                logger.warning("no trades of %s: %s", self._stream, redacted(error, self._address.secrets))
            self.error = redacted(error, self._address.secrets)
            return []
        if self.error:
            logger.info("trades of %s are read again", self._stream)
            self.error = ""
        return trades

    def _find_end(self) -> list[Trade]:
        if self._client is None:
            self._client = control_client(self._address, _LIMIT, decode_responses=True)
        newest = self._client.xrevrange(self._stream, count=1)
        self._last = newest[0][0] if newest else "0-0"
        return []

    def _take(self) -> list[Trade]:
        if not self._last:
            return self._find_end()
        trades: list[Trade] = []
        while True:
            entries = [entry for _, found in self._client.xread({self._stream: self._last}, _BATCH) for entry in found]
            for entry_id, fields in entries:
                self._last = entry_id
                try:
                    trades.append(trade_of(*self._of, entry_id, fields))
                except TradeError as error:
                    self.skipped += 1
                    logger.debug("skipped: %s", error)
            if len(entries) < _BATCH:
                return trades
