"""How far a book may be believed: from its stored state, its age and its feeder's life."""

from bookbus.consumers.reading import Observation
from bookbus.schemas.snapshot import BookStatus

MAX_AGE = 5.0
"""Seconds without confirmation after which a book counts as stale, unless asked otherwise."""


def judge(observation: Observation, max_age: float) -> tuple[BookStatus, str]:
    """The status of a book, and why it is not live (empty if it is)."""
    snapshot, age, trouble = observation.snapshot, observation.age, observation.trouble
    if snapshot is None:
        return BookStatus.MISSING, trouble or "no book was received yet"
    if snapshot.state == "closed":
        return BookStatus.CLOSED, "the feeder was stopped; these are its last levels"
    if snapshot.state == "suspect":
        lost = "its truth is unknown; these are the last known levels"
        if observation.feeder_alive is False:
            # Nobody works on it any more.
            return BookStatus.FEEDER_DOWN, f"{lost}; {trouble or 'no feeder that serves it is alive'}"
        return BookStatus.SUSPECT, f"{lost}; {trouble}" if trouble else lost
    if age is not None and age <= max_age:
        return BookStatus.LIVE, ""
    unconfirmed = "never confirmed" if age is None else f"not confirmed for {age:.1f} s (limit {max_age:g} s)"
    if observation.feeder_alive is False:
        return BookStatus.FEEDER_DOWN, f"{unconfirmed}, and no feeder that serves it is alive"
    return BookStatus.STALE, f"{unconfirmed}; {trouble}" if trouble else unconfirmed
