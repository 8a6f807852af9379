"""The books that the server takes from other feeders and not from this one, with the reason."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bookbus.feeders.bus.connection import Reply
from bookbus.feeders.bus.publish_script import CLAIMED, BookClaim, BookKey

logger = logging.getLogger(__name__)

FIELDS = ("update_id", "feeder", "network", "mode", "depth")
"""The fields of a book's hash that say why it is refused."""

BEHIND_AFTER = 5.0
"""Seconds in which a feeder that is merely later than another reaches the id that was stored before them."""

_MOST = 100
"""Books that are looked up at once."""


@dataclass(slots=True)
class _Refusal:
    looked_at: float = -1.0
    stored_id: int = 0
    stored_at: float | None = None
    """When `stored_id` was seen on the server; None before."""
    reason: str = ""


class Refusals:
    """What keeps books of this feeder from being published. `unaccepted` has the last reply for each such book.

    A book is refused if another feeder owns it with another claim, or if its ids stay below the stored ones. The feeder
    of a pair that is always second reaches each id a moment later and is not refused.
    """

    def __init__(
        self,
        claim: BookClaim,
        unaccepted: Mapping[BookKey, Reply],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._claim = claim
        self._unaccepted = unaccepted
        self._clock = clock
        self._refusals: dict[BookKey, _Refusal] = {}
        self._logged: set[str] = set()

    @property
    def reasons(self) -> dict[str, str]:
        """The reason by standard symbol."""
        found: dict[str, str] = {}
        for key, refusal in self._refusals.items():
            if refusal.reason and key in self._unaccepted and key.topic == "book":
                found[key.symbol] = refusal.reason
        for key, refusal in self._refusals.items():
            if refusal.reason and key in self._unaccepted and key.topic != "book":
                found.setdefault(key.symbol, f"{key.topic}: {refusal.reason}")
        return found

    def to_look_up(self) -> Sequence[BookKey]:
        """The books whose `FIELDS` are wanted now, those that were looked up least recently."""
        self._refusals = {key: self._refusals.get(key) or _Refusal() for key in self._unaccepted}
        return sorted(self._refusals, key=lambda key: self._refusals[key].looked_at)[:_MOST]

    def learn(self, answers: Iterable[tuple[BookKey, Sequence[bytes | str | None]]]) -> None:
        """Take the `FIELDS` of these books, and log what is refused since."""
        now = self._clock()
        for key, values in answers:
            refusal = self._refusals.get(key)
            reply = self._unaccepted.get(key)
            if refusal is None or reply is None:
                continue  # accepted meanwhile
            refusal.looked_at = now
            update_id, feeder, network, mode, depth = map(_text, values)
            if reply == CLAIMED:
                own, theirs = self._claim.of(key.topic), BookClaim(network, mode, _number(depth))
                refusal.reason = f"feeder {feeder} publishes it with {_words(theirs)}, this feeder has {_words(own)}"
                refusal.stored_at = None
            else:
                self._compare_ids(key, refusal, _number(update_id), feeder, now)
        self._log()

    def _compare_ids(self, key: BookKey, refusal: _Refusal, stored_id: int, feeder: str, now: float) -> None:
        if key.newest is None or key.newest.kind == "state":
            refusal.reason, refusal.stored_at = "", None  # not live: its state says so
            return
        own_id = key.newest.book.update_id
        if refusal.stored_at is None or own_id >= refusal.stored_id:
            refusal.reason, refusal.stored_id, refusal.stored_at = "", stored_id, now
        elif now - refusal.stored_at >= BEHIND_AFTER:
            refusal.reason = (
                f"its update id {own_id} does not reach {refusal.stored_id}, "
                f"which feeder {feeder} published {now - refusal.stored_at:.0f} s ago"
            )

    def _log(self) -> None:
        reasons = self.reasons
        if new := sorted(reasons.keys() - self._logged):
            logger.warning("%d books are refused: %s: %s", len(reasons), ", ".join(new[:5]), reasons[new[0]])
            self._logged |= reasons.keys()

    def check_recovered(self) -> None:
        """Log that nothing is refused any more."""
        if self._logged and not self.reasons:
            logger.warning("no book is refused any more")
            self._logged.clear()


def _words(claim: BookClaim) -> str:
    words = [f"network {claim.network}" if claim.network else "", f"mode {claim.mode}" if claim.mode else ""]
    return ", ".join(filter(None, (*words, f"depth {claim.depth}" if claim.depth else ""))) or "no claim"


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _text(value: bytes | str | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""
