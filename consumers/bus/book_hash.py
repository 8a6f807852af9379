"""The hash of a book on the bus: which fields are read, and what they say."""

from typing import Any

from bookbus.consumers.bus.book_cursor import Entry
from bookbus.consumers.bus.books import BusBook
from bookbus.consumers.bus.liveness import ServerClock
from bookbus.schemas import wire

HASH_FIELDS = ("book", "confirmed_us", "published_us")


def entry_of(book: BusBook, reply: Any, clock: ServerClock, now: float) -> Entry | None:
    """The message in a reply to HMGET; None if there is none.

    A reply that should hold one and does not is counted, and `trouble` says why.
    """
    book.trouble = ""
    try:
        if isinstance(reply, Exception):
            raise wire.WireError(str(reply))
        if not isinstance(reply, list) or len(reply) != len(HASH_FIELDS):
            raise wire.WireError("no answer to what was asked")
        data, confirmed, published = reply
        if data is None:
            return None
        if not isinstance(data, bytes):
            raise wire.WireError("a book is text")
        confirmed_at = local_time(confirmed, clock, now)
        updated_at = min(local_time(published, clock, now), confirmed_at)
        return Entry(data, wire.seq_of(data), now, updated_at, confirmed_at)
    except wire.WireError as error:
        book.skipped += 1
        book.trouble = f"what is stored under {book.key.decode()} is no book: {error}"
        return None


def local_time(microseconds: bytes | None, clock: ServerClock, now: float) -> float:
    """The local time of one of the hash's times, never in the future. Raises WireError if it is none."""
    try:
        at = clock.local(int(microseconds or b""))
    except (ValueError, TypeError, OverflowError):
        raise wire.WireError("its times cannot be read") from None
    return now if at is None else min(at, now)
