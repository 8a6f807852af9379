"""A snapshot in the stream, then counted changes: when a book is the exchange's, and what several lines add."""

from collections.abc import Sequence

import pytest

from bookbus.feeders.books.events import BookLost, BookUnchanged, BookUpdated, Event, ResubscribeNeeded
from bookbus.feeders.books.synchronizer import CounterSync
from tests.support.depth import ASKS, BIDS, depth_snapshot, depth_update

NATIVE = "BTCUSDT"
LINE, OTHER_LINE, THIRD_LINE = 0, 1, 2


def live_at(update_id: int, *lines: int, known: Sequence[int] = ()) -> CounterSync:
    """A book by the first line's snapshot; the lines in `known` brought the same one."""
    sync = CounterSync(NATIVE, 2, set(lines or (LINE,)))
    for line in (LINE, *known):
        sync.receive_update(depth_snapshot(update_id), line)
    assert sync.update_id == update_id
    return sync


def line_down(sync: CounterSync, line: int) -> Sequence[Event]:
    sync._lines.discard(line)
    return sync.line_down(line, "closed")


def book(update_id: int) -> BookUpdated:
    return BookUpdated(NATIVE, update_id, None, tuple(BIDS), tuple(ASKS))


def lost(reason: str) -> list[Event]:
    return [BookLost(NATIVE, reason), ResubscribeNeeded(NATIVE)]


def test_an_empty_snapshot_is_a_book() -> None:
    sync = CounterSync(NATIVE, 2, {LINE})

    assert sync.receive_update(depth_snapshot(5, (), ()), LINE) == [BookUpdated(NATIVE, 5, None, (), ())]


def test_a_book_is_behind_from_a_change_that_came_too_early_until_the_next_one_follows() -> None:
    sync = live_at(10, LINE, OTHER_LINE)
    assert not sync.is_behind

    sync.receive_update(depth_update(12), LINE)
    assert sync.is_behind
    sync.receive_update(depth_update(11), OTHER_LINE)

    assert not sync.is_behind


def test_a_snapshot_ends_the_wait_for_a_change() -> None:
    sync = live_at(10, LINE, OTHER_LINE)
    sync.receive_update(depth_update(12), LINE)

    sync.receive_update(depth_snapshot(12), LINE)

    assert not sync.is_behind
    assert list(sync.receive_update(depth_update(14), OTHER_LINE)) == []


def test_a_lost_book_waits_for_no_change() -> None:
    sync = live_at(10, LINE, OTHER_LINE)
    sync.receive_update(depth_update(12), LINE)

    assert sync.receive_update(depth_update(12), OTHER_LINE) == lost("expected update 11, received 12")
    assert not sync.is_behind


def test_the_end_of_a_line_that_could_have_brought_a_missing_change_loses_the_book() -> None:
    sync = live_at(10, LINE, OTHER_LINE)
    sync.receive_update(depth_update(12), LINE)

    assert line_down(sync, OTHER_LINE) == lost("closed")


def test_the_end_of_a_line_leaves_the_wait_to_the_others() -> None:
    sync = live_at(10, LINE, OTHER_LINE, THIRD_LINE)
    sync.receive_update(depth_update(12), LINE)

    assert list(line_down(sync, OTHER_LINE)) == []
    assert sync.update_id == 10


def test_the_end_of_the_only_line_past_a_missing_change_ends_the_wait() -> None:
    sync = live_at(10, LINE, OTHER_LINE)
    sync.receive_update(depth_update(12), LINE)

    assert list(line_down(sync, LINE)) == []
    assert not sync.is_behind


def test_the_end_of_every_line_loses_the_book_without_a_subscription() -> None:
    sync = live_at(10)

    assert line_down(sync, LINE) == [BookLost(NATIVE, "closed")]
    assert list(sync.line_down(LINE, "closed")) == []


@pytest.mark.parametrize("update_id", [9, 10], ids=["older", "the same"])
def test_the_first_snapshot_of_a_further_line_is_ignored_unless_it_is_newer(update_id: int) -> None:
    sync = live_at(10, LINE, OTHER_LINE)

    assert list(sync.receive_update(depth_snapshot(update_id), OTHER_LINE)) == []
    assert sync.receive_update(depth_snapshot(10), OTHER_LINE) == [BookUnchanged(NATIVE, 10)]


def test_the_first_snapshot_of_a_further_line_that_is_newer_is_the_book() -> None:
    sync = live_at(10, LINE, OTHER_LINE)

    assert sync.receive_update(depth_snapshot(11), OTHER_LINE) == [BookUnchanged(NATIVE, 11)]


def test_a_later_snapshot_with_a_lower_id_loses_the_book_and_brings_another() -> None:
    sync = live_at(10, LINE, OTHER_LINE, known=[OTHER_LINE])

    assert sync.receive_update(depth_snapshot(9), OTHER_LINE) == [
        BookLost(NATIVE, "update ids fell to 9"),
        book(9),
    ]


def test_a_restart_by_a_further_line_is_no_old_snapshot() -> None:
    sync = live_at(10, LINE, OTHER_LINE)

    assert sync.receive_update(depth_snapshot(1), OTHER_LINE) == [BookLost(NATIVE, "update ids fell to 1"), book(1)]


def test_a_second_id_is_no_restart() -> None:
    sync = live_at(10, LINE, OTHER_LINE)

    assert list(sync.receive_update(depth_snapshot(2), OTHER_LINE)) == []


def test_the_next_connection_of_a_line_number_may_bring_an_older_first_snapshot() -> None:
    sync = live_at(10, LINE, OTHER_LINE, known=[OTHER_LINE])
    line_down(sync, OTHER_LINE)
    sync._lines.add(OTHER_LINE)

    assert list(sync.receive_update(depth_snapshot(9), OTHER_LINE)) == []
    assert sync.update_id == 10


def test_every_level_of_a_snapshot_is_known() -> None:
    sync = live_at(10)
    levels = [(100.0 - index, 1.0) for index in range(1000)]
    sync.receive_update(depth_snapshot(11, levels, ASKS), LINE)

    events = sync.receive_update(depth_update(12, bids=[(price, 0.0) for price, _ in levels[:-1]]), LINE)

    assert events == [BookUpdated(NATIVE, 12, None, (levels[-1],), tuple(ASKS))]
