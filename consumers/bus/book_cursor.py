"""The order of one book's messages: which is the newest, and how many never came."""

from typing import NamedTuple

_STEADY_RATE = 50_000
_SLACK = 1_000
"""No server numbers more updates of one book a second, this much aside. A greater jump of `seq` is therefore no
loss: the server lost its data, and numbering began anew at its clock's microseconds."""


class Entry(NamedTuple):
    """One message with the local times of its receipt, of the update it tells, and of its last confirmation."""

    data: bytes
    seq: int
    received_at: float
    updated_at: float
    confirmed_at: float


class BookCursor:
    """Puts the messages of a channel and the hash of the same name into one order.

    The channel is subscribed first and the hash read second, so what the hash tells may come again on the channel.
    Between `hash_read` and `settle` (everything that was under way has come) such messages are dropped. Apart from
    that, what comes later is newer: a lower `seq` then means that the server began anew.
    """

    __slots__ = (
        "_fence",
        "_seen",
        "_skipped",
        "missed",
        "newest",
        "previous",
        "received",
        "resets",
        "steady",
    )

    def __init__(self) -> None:
        self.newest: Entry | None = None
        self.previous: Entry | None = None
        """What `newest` replaced, in case that cannot be decoded."""
        self.steady = True
        """Whether the order of messages is all there is to know: no hash is awaited, none was just read."""
        self.received = 0
        self.missed = 0
        self.resets = 0
        self._fence: int | None = None
        self._seen = False
        self._skipped = 0

    def await_hash(self) -> None:
        """The hash is about to be read; messages published from now on will come."""
        self.settle()
        self.steady = self._seen = False

    def take(self, data: bytes, seq: int, count: int, now: float, at: float) -> None:
        """`data`, published at `at`, is the last of `count` messages that came together."""
        newest = self.newest
        if newest is not None and seq != newest.seq + count:
            self._account(seq, newest, count, now)
        self.previous, self.newest = newest, Entry(data, seq, now, at, at)
        self.received += count

    def offer(self, data: bytes, seq: int, now: float, at: float) -> bool:
        """One message while not steady: taken unless the hash has told it. It must be known to be a book."""
        fence = self._fence
        if fence is None or seq > fence:
            self.take(data, seq, 1, now, at)
            self._seen = True
            return True
        if self._skipped and seq < fence:
            # It came after all, only later than the hash that it led to.
            self.received += 1
            self._skipped -= 1
        return False

    def hash_read(self, entry: Entry | None) -> bool:
        """What the hash holds; None if nothing usable. True if it replaces what was held; steady after `settle`."""
        newest = self.newest
        if entry is None or (newest is not None and self._seen and newest.seq > entry.seq):
            self.steady = True
            return False
        if newest is not None and newest.data == entry.data:
            self.confirm(entry.confirmed_at)
            self.steady = True
            return False
        self._fence = entry.seq
        if newest is not None:
            missed = self.missed
            self._account(entry.seq, newest, 1, entry.received_at)
            self._skipped, self.missed = self.missed - missed, missed
        self.previous, self.newest = newest, entry
        self.received += 1
        return True

    def settle(self) -> None:
        """Everything published before the hash was read has come."""
        self.missed += self._skipped
        self._skipped = 0
        self._fence = None
        self.steady = True

    def confirm(self, at: float) -> None:
        """Somebody vouched for the newest book at `at`."""
        if self.newest is not None and at > self.newest.confirmed_at:
            self.newest = self.newest._replace(confirmed_at=at)

    def _account(self, seq: int, newest: Entry, count: int, now: float) -> None:
        gap = seq - newest.seq - count
        if seq < newest.seq or gap > _SLACK + _STEADY_RATE * (now - newest.received_at):
            self.resets += 1
        elif gap > 0:
            self.missed += gap
