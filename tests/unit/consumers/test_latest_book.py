"""What is known of a book that is kept in this process."""

from bookbus.consumers.latest_book import LocalBook
from bookbus.consumers.reading import Counts, Observation
from tests.support.builders import book


def test_before_the_first_update_nothing_is_known() -> None:
    unknown = LocalBook()

    assert not unknown.lose(now=1.0)
    unknown.confirm(2.0)

    assert unknown.observe(3.0, None, "not started") == Observation(error="not started")
    assert unknown.counts() == Counts()


def test_a_confirmation_makes_the_book_younger_and_not_the_update() -> None:
    known, snapshot = LocalBook(), book()
    known.take(snapshot, now=10.0)

    known.confirm(12.0)
    known.confirm(11.0)

    assert known.observe(15.0, True, "") == Observation(snapshot, age=3.0, update_age=5.0, feeder_alive=True)


def test_a_lost_book_is_suspect_and_confirmed_by_nothing() -> None:
    known = LocalBook()
    known.take(book(update_id=7), now=10.0)

    assert known.lose(now=11.0)
    assert not known.lose(now=12.0)
    known.confirm(13.0)

    assert known.observe(14.0, True, "") == Observation(book(update_id=7, state="suspect"), 3.0, 3.0, True)
    assert known.counts().resets == 1


def test_updates_that_nobody_read_are_conflated() -> None:
    known = LocalBook()

    known.take(book(), now=1.0, count=3)
    known.observe(1.0, None, "")
    known.take(book(), now=2.0)
    known.take(book(), now=3.0, count=2)

    # Of the first three the last was read; of the other three nothing is lost yet but what was replaced.
    assert known.counts() == Counts(received=6, conflated=4)
