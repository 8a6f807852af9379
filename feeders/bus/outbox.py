"""The newest unsent submission of each book."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

import hiredis

from bookbus.feeders.bus.connection import pack_argument, pack_command
from bookbus.feeders.bus.publish_script import Submission
from bookbus.schemas.redis_names import RedisNames
from bookbus.schemas.trade import Trade

Key = TypeVar("Key")


class Conflator(Generic[Key]):
    """Holds one submission a key, the newest; who waits longest is taken first.

    The loss of a book whose ids begin anew goes ahead of the next book, which would be refused without it.
    """

    def __init__(self) -> None:
        self._unsent: dict[Key, Submission] = {}
        self._losses: dict[Key, Submission] = {}

    def __len__(self) -> int:
        return len(self._unsent)

    def __contains__(self, key: Key) -> bool:
        return key in self._unsent

    def put(self, key: Key, submission: Submission) -> tuple[Submission, bool]:
        """Hold `submission`. Returns what is held now, and whether something unsent gave way to it."""
        unsent = self._unsent.get(key)
        if unsent is not None and unsent.kind == "new" and submission.kind == "again":
            # What was never sent is no confirmation yet, however often it is repeated.
            submission = Submission("new", submission.topic, submission.book)
        self._unsent[key] = submission
        if unsent is not None and unsent.kind == "state" and submission.book.update_id < unsent.book.update_id:
            self._losses[key] = unsent
            return submission, False
        return submission, unsent is not None

    def take(self, limit: int) -> list[tuple[Key, Submission]]:
        """Remove and return the submissions of up to `limit` keys."""
        unsent = self._unsent
        if len(unsent) <= limit:
            self._unsent = {}
            taken = list(unsent.items())
        else:
            taken = list(islice(unsent.items(), limit))
            for key, _ in taken:
                del unsent[key]
        return self._after_losses(taken) if self._losses else taken

    def drop_confirmations(self) -> int:
        """Forget every `again`: it spoke of a moment that has passed. Returns how many."""
        old = [key for key, submission in self._unsent.items() if submission.kind == "again"]
        for key in old:
            del self._unsent[key]
        return len(old)

    def remove(self, key: Key) -> Submission | None:
        """Forget one key. Returns what was held of it."""
        self._losses.pop(key, None)
        return self._unsent.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._unsent.clear()
        self._losses.clear()

    def _after_losses(self, taken: list[tuple[Key, Submission]]) -> list[tuple[Key, Submission]]:
        losses = [(key, self._losses.pop(key)) for key, _ in taken if key in self._losses]
        return losses + taken


@dataclass(slots=True)
class PublisherCounters:
    """What happened since the start."""

    accepted: int = 0
    confirmed: int = 0
    duplicates: int = 0
    conflated: int = 0
    errors: int = 0
    trades: int = 0
    trade_duplicates: int = 0
    trades_dropped: int = 0
    batches: int = 0
    written_bytes: int = 0


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

    def requeue(self, trades: Sequence[Trade]) -> None:
        """Return what was taken and not answered; the server tells by the ids what it had taken all the same."""
        room = self._capacity - len(self._unsent)
        kept = trades[len(trades) - min(room, len(trades)) :]
        self._counters.trades_dropped += len(trades) - len(kept)
        self._unsent.extendleft(reversed(kept))

    def evict(self, exchange: str, symbol: str) -> list[Trade]:
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
