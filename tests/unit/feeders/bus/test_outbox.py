"""What waits to be sent: the newest of each book, oldest first."""

from hypothesis import given
from hypothesis import strategies as st

from bookbus.feeders.bus.outbox import Conflator
from bookbus.feeders.bus.publish_script import Submission, SubmissionKind
from tests.support.builders import book


def submission(kind: SubmissionKind, update_id: int) -> Submission:
    return Submission(kind, "book", book(update_id=update_id))


def test_the_newest_of_a_book_replaces_what_was_not_sent() -> None:
    conflator: Conflator[str] = Conflator()

    first = conflator.put("a", submission("new", 1))
    second = conflator.put("a", submission("new", 2))

    assert first == (submission("new", 1), False)
    assert second == (submission("new", 2), True)
    assert conflator.take(10) == [("a", submission("new", 2))]
    assert len(conflator) == 0


def test_who_waits_longest_is_taken_first_however_often_it_was_replaced() -> None:
    conflator: Conflator[str] = Conflator()
    conflator.put("a", submission("new", 1))
    conflator.put("b", submission("new", 1))
    conflator.put("a", submission("new", 2))

    assert conflator.take(1) == [("a", submission("new", 2))]
    assert "b" in conflator
    assert "a" not in conflator


def test_keys_that_are_not_ready_keep_their_turn() -> None:
    conflator: Conflator[str] = Conflator()
    for key in ("a", "b", "c", "d"):
        conflator.put(key, submission("new", 1))

    assert [key for key, _ in conflator.take(2, lambda key: key != "b")] == ["a", "c"]
    assert [key for key, _ in conflator.take(2)] == ["b", "d"]


def test_a_repetition_of_what_was_never_sent_is_still_new() -> None:
    conflator: Conflator[str] = Conflator()
    conflator.put("a", submission("new", 1))

    held, _ = conflator.put("a", submission("again", 3))

    assert held == submission("new", 3)
    assert conflator.take(1) == [("a", held)]


def test_a_loss_replaces_the_book_and_the_next_book_replaces_the_loss() -> None:
    conflator: Conflator[str] = Conflator()
    conflator.put("a", submission("new", 1))
    conflator.put("a", submission("state", 1))
    assert conflator.take(1) == [("a", submission("state", 1))]

    conflator.put("a", submission("state", 1))
    conflator.put("a", submission("again", 2))

    assert conflator.take(1) == [("a", submission("again", 2))]


def test_a_loss_before_lower_ids_is_kept_and_goes_first() -> None:
    conflator: Conflator[str] = Conflator()
    conflator.put("b", submission("new", 9))
    conflator.put("a", submission("state", 9))

    assert conflator.put("a", submission("new", 1)) == (submission("new", 1), False)
    assert conflator.put("a", submission("new", 2)) == (submission("new", 2), True)

    assert conflator.take(1) == [("b", submission("new", 9))]
    assert conflator.take(1) == [("a", submission("state", 9)), ("a", submission("new", 2))]
    assert conflator.take(1) == []


def test_confirmations_can_be_dropped_and_nothing_else_is() -> None:
    conflator: Conflator[str] = Conflator()
    conflator.put("a", submission("again", 1))
    conflator.put("b", submission("new", 1))
    conflator.put("c", submission("state", 1))

    assert conflator.drop_confirmations() == 1

    assert [key for key, _ in conflator.take(10)] == ["b", "c"]


def test_a_cleared_conflator_is_empty() -> None:
    conflator: Conflator[str] = Conflator()
    conflator.put("a", submission("state", 2))
    conflator.put("a", submission("new", 1))

    conflator.clear()

    assert conflator.take(10) == []
    conflator.put("a", submission("new", 3))
    assert conflator.take(10) == [("a", submission("new", 3))]


@given(st.lists(st.one_of(st.sampled_from("abcd"), st.integers(0, 3))))
def test_what_is_taken_is_the_newest_and_what_is_not_was_replaced(steps: list[str | int]) -> None:
    """A letter is a put of that key, a number a take of up to so many."""
    conflator: Conflator[str] = Conflator()
    newest: dict[str, int] = {}
    replaced = taken = 0
    for update_id, step in enumerate(steps):
        if isinstance(step, str):
            replaced += conflator.put(step, submission("new", update_id))[1]
            newest[step] = update_id
        else:
            for key, held in conflator.take(step):
                assert held.book.update_id == newest.pop(key)
                taken += 1

    assert len(conflator) == len(newest)
    assert taken + replaced + len(conflator) == sum(isinstance(step, str) for step in steps)
