"""Trades that wait to be sent: none merged, all in order, never without limit."""

from collections import deque
from collections.abc import Iterator, Sequence

import hiredis

from bookbus.feeders.bus.connection import pack_argument, pack_command
from bookbus.feeders.publish_counters import PublisherCounters
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.trade import Trade

STREAM_LENGTH = 10_000

_SAME_ID = "equal or smaller"


class TradeQueue:
    """Holds up to `capacity` trades; what does not fit pushes out the oldest. All is counted."""

    def __init__(self, names: RedisNames, capacity: int, counters: PublisherCounters) -> None:
        self._names = names
        self._capacity = capacity
        self._unsent: deque[Trade] = deque()
        self._prefixes: dict[tuple[str, str], bytes] = {}
        self._counters = counters

    def __len__(self) -> int:
        return len(self._unsent)

    @property
    def full(self) -> bool:
        """Whether the next trade pushes out the oldest."""
        return len(self._unsent) >= self._capacity

    def put(self, trade: Trade) -> None:
        """Add the newest trade."""
        if self.full:
            self._unsent.popleft()
            self._counters.trades_dropped += 1
        self._unsent.append(trade)

    def take(self, limit: int) -> list[Trade]:
        """Remove and return up to `limit` trades, oldest first."""
        return [self._unsent.popleft() for _ in range(min(limit, len(self._unsent)))]

    def put_back(self, trades: Sequence[Trade]) -> None:
        """Return what was taken and not answered; the server tells by the ids what it had taken all the same."""
        room = self._capacity - len(self._unsent)
        kept = trades[len(trades) - min(room, len(trades)) :]
        self._counters.trades_dropped += len(trades) - len(kept)
        self._unsent.extendleft(reversed(kept))

    def take_out(self, exchange: str, symbol: str) -> list[Trade]:
        """Remove and return the trades of one symbol."""
        taken = [trade for trade in self._unsent if (trade.exchange, trade.symbol) == (exchange, symbol)]
        if taken:
            self._unsent = deque(
                trade for trade in self._unsent if (trade.exchange, trade.symbol) != (exchange, symbol)
            )
        return taken

    def pack(self, trade: Trade) -> bytes:
        """The command for the server, which refuses an id that is not greater than its last."""
        prefix = self._prefixes.get((trade.exchange, trade.symbol))
        if prefix is None:
            name = self._names.trades(trade.exchange, trade.symbol)
            # The id and five fields with their values follow.
            command = pack_command("XADD", name, "MAXLEN", "~", STREAM_LENGTH)
            prefix = command.replace(b"*5\r\n", b"*16\r\n", 1)
            self._prefixes[trade.exchange, trade.symbol] = prefix
        parts = [prefix, pack_argument(f"{trade.trade_id}-0")]
        for field, value in trade.fields().items():
            parts += (pack_argument(field), pack_argument(value))
        return b"".join(parts)

    def settle(self, trades: Sequence[Trade], replies: Sequence[object]) -> Iterator[tuple[str, hiredis.ReplyError]]:
        """Count what became of `trades`. Yields each error with the name of the stream; that trade is dropped."""
        for trade, reply in zip(trades, replies, strict=True):
            if not isinstance(reply, hiredis.ReplyError):
                self._counters.trades += 1
            elif _SAME_ID in str(reply):
                # A twin was first, or it was sent again after a lost connection.
                self._counters.trade_duplicates += 1
            else:
                self._counters.trades_dropped += 1
                yield self._names.trades(trade.exchange, trade.symbol), reply
