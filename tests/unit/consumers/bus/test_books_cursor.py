"""The order of one book's messages."""

from bookbus.consumers.bus.books import BookCursor, Entry


def entry(seq: int, at: float = 0.0, data: bytes | None = None) -> Entry:
    return Entry(data or b"%d" % seq, seq, at, at, at)


def steady_at(seq: int, at: float = 0.0) -> BookCursor:
    cursor = BookCursor()
    cursor.await_hash()
    cursor.hash_read(entry(seq, at))
    cursor.caught_up()
    return cursor


def seq_of(cursor: BookCursor) -> int | None:
    return None if cursor.newest is None else cursor.newest.seq


def message(cursor: BookCursor, seq: int, count: int = 1, at: float = 0.0) -> None:
    if cursor.steady:
        cursor.take(b"%d" % seq, seq, count, at, at)
    else:
        assert count == 1
        cursor.offer(b"%d" % seq, seq, at, at)


def test_dense_messages_miss_nothing() -> None:
    cursor = steady_at(10)

    message(cursor, 11)
    message(cursor, 14, count=3)

    assert (seq_of(cursor), cursor.received, cursor.missed, cursor.resets) == (14, 5, 0, 0)


def test_a_gap_is_counted_as_the_updates_that_never_came() -> None:
    cursor = steady_at(10)

    message(cursor, 15, count=2)

    assert (seq_of(cursor), cursor.missed, cursor.resets) == (15, 3, 0)


def test_a_lower_seq_is_a_reset_and_is_taken() -> None:
    cursor = steady_at(10)

    message(cursor, 3)

    assert (seq_of(cursor), cursor.missed, cursor.resets) == (3, 0, 1)


def test_numbering_that_began_anew_at_the_clock_is_a_reset_and_no_loss() -> None:
    cursor = steady_at(1_700_000_000_000_000)

    message(cursor, 1_700_000_002_000_000, at=2.0)

    assert (cursor.missed, cursor.resets) == (0, 1)


def test_what_the_hash_has_told_is_dropped_when_it_comes_again() -> None:
    cursor = BookCursor()
    cursor.await_hash()
    cursor.hash_read(entry(10))

    message(cursor, 9)
    message(cursor, 10)
    message(cursor, 11)

    assert (seq_of(cursor), cursor.received, cursor.missed, cursor.resets) == (11, 2, 0, 0)


def test_a_message_newer_than_the_hash_that_is_read_after_it_stays() -> None:
    cursor = BookCursor()
    cursor.await_hash()
    message(cursor, 12)

    changed = cursor.hash_read(entry(11))

    assert (changed, seq_of(cursor), cursor.steady) == (False, 12, True)


def test_the_hash_wins_over_what_an_earlier_connection_told() -> None:
    cursor = steady_at(10)
    cursor.await_hash()

    cursor.hash_read(entry(4))
    cursor.caught_up()

    assert (seq_of(cursor), cursor.missed, cursor.resets) == (4, 0, 1)


def test_updates_between_the_old_connection_and_the_hash_are_missed_unless_they_still_come() -> None:
    cursor = steady_at(10)
    cursor.await_hash()
    cursor.hash_read(entry(15))

    message(cursor, 13)
    message(cursor, 14)
    message(cursor, 15)
    cursor.caught_up()

    assert (seq_of(cursor), cursor.received, cursor.missed) == (15, 4, 2)


def test_the_same_book_in_the_hash_only_confirms() -> None:
    cursor = steady_at(10)
    data = cursor.newest and cursor.newest.data
    cursor.await_hash()

    changed = cursor.hash_read(entry(10, at=7.0))

    assert not changed
    assert cursor.newest is not None
    assert (cursor.newest.data is data, cursor.newest.confirmed_at, cursor.received) == (True, 7.0, 1)


def test_an_absent_hash_leaves_the_last_book() -> None:
    cursor = steady_at(10)
    cursor.await_hash()

    cursor.hash_read(None)

    assert (seq_of(cursor), cursor.steady) == (10, True)


def test_a_confirmation_never_makes_a_book_older() -> None:
    cursor = steady_at(10, at=5.0)

    cursor.confirm(3.0)

    assert cursor.newest is not None
    assert cursor.newest.confirmed_at == 5.0


def test_late_messages_of_a_new_beginning_were_never_counted_as_missed() -> None:
    cursor = steady_at(1_700_000_000_000_000)
    cursor.await_hash()
    cursor.hash_read(entry(1_700_000_009_000_003, at=9.0))

    message(cursor, 1_700_000_009_000_001, at=9.0)
    message(cursor, 1_700_000_009_000_002, at=9.0)
    cursor.caught_up()

    assert (cursor.missed, cursor.resets, seq_of(cursor)) == (0, 1, 1_700_000_009_000_003)


def test_what_was_jumped_over_is_not_missed_before_everything_has_come() -> None:
    cursor = steady_at(10)
    cursor.await_hash()
    cursor.hash_read(entry(12))

    assert cursor.missed == 0

    cursor.caught_up()

    assert cursor.missed == 1
