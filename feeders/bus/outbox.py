"""The newest unsent submission of each book."""

from itertools import islice
from typing import Generic, Literal, TypeVar

import msgspec

from bookbus.feeders.books.events import Topic
from bookbus.schemas.snapshot import OrderBookSnapshot

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
