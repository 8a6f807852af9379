"""The newest unsent submission of each book."""

from itertools import islice
from typing import Generic, Literal, TypeVar

import msgspec

from feeders.events import Topic
from schemas.snapshot import OrderBookSnapshot

SubmissionKind = Literal["new", "again", "state"]

Key = TypeVar("Key")


class Submission(msgspec.Struct, frozen=True):
    """What is to be told of one book.

    `new`: just decoded. `again`: as it was, and its connection has proved itself alive since. `state`: no longer
    (known to be) right, as `book.state` says.
    """

    kind: SubmissionKind
    topic: Topic
    book: OrderBookSnapshot


class Conflator(Generic[Key]):
    """Holds at most one submission a key, the newest; who waits longest is taken first."""

    def __init__(self) -> None:
        self._unsent: dict[Key, Submission] = {}

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
        return submission, unsent is not None

    def take(self, limit: int) -> list[tuple[Key, Submission]]:
        """Remove and return up to `limit` submissions."""
        unsent = self._unsent
        if len(unsent) <= limit:
            self._unsent = {}
            return list(unsent.items())
        taken = list(islice(unsent.items(), limit))
        for key, _ in taken:
            del unsent[key]
        return taken

    def drop_confirmations(self) -> int:
        """Forget every `again`: it spoke of a moment that has passed. Returns how many."""
        old = [key for key, submission in self._unsent.items() if submission.kind == "again"]
        for key in old:
            del self._unsent[key]
        return len(old)

    def clear(self) -> None:
        """Forget everything."""
        self._unsent.clear()
