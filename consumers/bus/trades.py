"""Trades from the bus, read from their streams."""

import logging
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from bookbus.consumers.bus.servers import CONTROL_ERRORS, control_client
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.redis_url import RedisAddress, redacted
from bookbus.schemas.trade import Trade, TradeError, TradeSeq, seq_of, trade_of

logger = logging.getLogger(__name__)

_LIMIT = 2.0
_BATCH = 1000


class TradeTail(Protocol):
    """The trades of one symbol since it was made, each once, in the order of the stream."""

    def take(self) -> list[Trade]:
        """The trades since the last call; never raises because of data."""

    @property
    def error(self) -> str:
        """Why trades may be missing from the last `take()`; empty if none are known to be."""

    @property
    def missed(self) -> int:
        """Trades that left the stream before they were read."""


@runtime_checkable
class TradeSource(Protocol):
    """A provider that has trades as well as books."""

    def trades(self, symbol: str) -> TradeTail:
        """The trades of a symbol from now on. Every caller gets its own tail."""


class BusTradeTail:
    """The trades added to one stream since this was made, read on each call.

    `start` finds where the stream ends; without it, the first `take` does. The connection is opened again when it was
    lost. While the server is down it returns no trades, and `error` says why; trades that the stream still holds come
    when the server is back. The stream holds the newest 10,000: those that left it unread are counted in `missed`. A
    server that lost its data, or a part of it when a replica took over, is counted in `resets`.
    """

    def __init__(self, address: RedisAddress, names: RedisNames, exchange: str, symbol: str, native: str) -> None:
        self.error = ""
        self.skipped = 0
        """Entries that were no trade."""
        self.missed = 0
        """Trades that left the stream before they were read."""
        self.resets = 0
        """How often the server lost trades: those not read before are missing, how many is not known."""
        self._seq: TradeSeq | None = None
        self._failing = False
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
        missed_before, resets_before = self.missed, self.resets
        try:
            trades = read()
        except CONTROL_ERRORS as error:
            self.error = redacted(error, self._address.secrets)
            if not self._failing:
                logger.warning("no trades of %s: %s", self._stream, self.error)
            self._failing = True
            return []
        if self._failing:
            logger.info("trades of %s are read again", self._stream)
            self._failing = False
        missed = self.missed - missed_before
        self.error = f"{missed} trades left {self._stream} before they were read" if missed else ""
        if missed:
            logger.warning("%s: read more often", self.error)
        if self.resets != resets_before:
            self.error = f"the server lost trades of {self._stream}: some may be missing"
            logger.warning("%s", self.error)
        return trades

    def _find_end(self) -> list[Trade]:
        if self._client is None:
            self._client = control_client(self._address, _LIMIT, decode_responses=True)
        newest = self._client.xrevrange(self._stream, count=1)
        self._last, fields = newest[0] if newest else ("0-0", {})
        self._seq = seq_of(fields) if newest else TradeSeq(0, 0)
        return []

    def _take(self) -> list[Trade]:
        if not self._last:
            return self._find_end()
        trades: list[Trade] = []
        while True:
            entries = [entry for _, found in self._client.xread({self._stream: self._last}, _BATCH) for entry in found]
            for entry_id, fields in entries:
                self._last = entry_id
                self._count_missed(seq_of(fields))
                try:
                    trades.append(trade_of(*self._of, entry_id, fields))
                except TradeError as error:
                    self.skipped += 1
                    logger.debug("skipped: %s", error)
            if len(entries) < _BATCH and (trades or entries or not self._went_back()):
                return trades

    def _went_back(self) -> bool:
        """Whether the stream ends before what was read; if so, go on from there.

        The server lost its data and its clock was set back, or a replica took over that lacked the last trades.
        """
        newest = self._client.xrevrange(self._stream, count=1)
        end, fields = newest[0] if newest else ("0-0", {})
        if _entry_order(end) >= _entry_order(self._last):
            return False
        self.resets += 1
        seq = seq_of(fields)
        if seq is not None and self._seq is not None and seq.epoch == self._seq.epoch:
            self._last, self._seq = end, seq
        else:
            self._last, self._seq = "0-0", TradeSeq(0, 0)
        return bool(newest)

    def _count_missed(self, seq: TradeSeq | None) -> None:
        """Count the trades between the last one and this one."""
        last, self._seq = self._seq, seq
        if seq is None or last is None:
            return
        # With another epoch the server lost its data: what the last one had after ours is not known.
        if last.number and (seq.epoch != last.epoch or seq.number <= last.number):
            self.resets += 1
        before = last.number if seq.epoch == last.epoch else 0
        self.missed += max(seq.number - before - 1, 0)


def _entry_order(entry_id: str) -> tuple[int, int]:
    milliseconds, _, number = entry_id.partition("-")
    return int(milliseconds), int(number)
