"""Whole books in every message: the newest one counts, and any next one heals."""

import pytest

from bookbus.feeders.books.events import BookLost, BookUnchanged, BookUpdated
from bookbus.feeders.books.synchronizer import ReplaceSync
from tests.support.depth import ASKS, BIDS, depth_snapshot

NATIVE = "KRW-BTC"
LINE, OTHER_LINE = 0, 1


def new_sync(*lines: int, depth: int = 2) -> ReplaceSync:
    return ReplaceSync(NATIVE, depth, set(lines or (LINE,)))


def live_at(update_id: int, *lines: int) -> ReplaceSync:
    sync = new_sync(*lines)
    sync.receive_update(depth_snapshot(update_id), LINE)
    return sync


def test_the_first_book_is_published_with_the_exchanges_time_and_cut_to_the_depth() -> None:
    sync = new_sync(depth=1)

    assert sync.update_id is None
    assert sync.receive_update(depth_snapshot(100, exchange_us=1_700), LINE) == [
        BookUpdated(NATIVE, 100, 1_700, BIDS[:1], ASKS[:1])  # type: ignore[arg-type]
    ]
    assert sync.update_id == 100


def test_a_newer_book_replaces_every_level() -> None:
    sync = live_at(100)

    events = sync.receive_update(depth_snapshot(107, bids=[(50.0, 1.0)], asks=()), LINE)

    assert events == [BookUpdated(NATIVE, 107, None, ((50.0, 1.0),), ())]


def test_a_newer_book_with_the_same_published_levels_moves_the_id_only() -> None:
    sync = live_at(100)

    assert sync.receive_update(depth_snapshot(101, bids=[*BIDS, (1.0, 1.0)]), LINE) == [BookUnchanged(NATIVE, 101)]
    assert sync.update_id == 101


def test_another_book_with_the_same_id_is_taken() -> None:
    """Upbit's id is a time in milliseconds, and two books may fall into one."""
    sync = live_at(100)

    events = sync.receive_update(depth_snapshot(100, bids=[(99.0, 5.0)]), LINE)

    assert events == [BookUpdated(NATIVE, 100, None, ((99.0, 5.0),), tuple(ASKS))]


def test_of_two_books_with_the_same_id_a_slower_line_brings_none_back() -> None:
    first, second = depth_snapshot(100), depth_snapshot(100, bids=[(99.0, 5.0)])
    sync = new_sync(LINE, OTHER_LINE)
    for book in (first, second):
        sync.receive_update(book, LINE)

    assert [list(sync.receive_update(book, OTHER_LINE)) for book in (first, second)] == [
        [],
        [BookUnchanged(NATIVE, 100)],
    ]
    assert list(sync.receive_update(first, LINE)) == [BookUpdated(NATIVE, 100, None, tuple(BIDS), tuple(ASKS))]


def test_an_older_book_is_ignored() -> None:
    sync = live_at(100)

    assert list(sync.receive_update(depth_snapshot(99, bids=[(1.0, 1.0)]), LINE)) == []
    assert sync.update_id == 100


def test_the_faster_of_two_lines_wins_and_a_burst_of_the_slower_is_old() -> None:
    sync = live_at(100, LINE, OTHER_LINE)
    sync.receive_update(depth_snapshot(100), OTHER_LINE)
    for update_id in range(101, 201):
        assert sync.receive_update(depth_snapshot(update_id), LINE) == [BookUnchanged(NATIVE, update_id)]

    burst = [event for old in range(101, 200) for event in sync.receive_update(depth_snapshot(old), OTHER_LINE)]

    assert burst == []
    assert sync.update_id == 200


def test_ids_that_stay_low_on_their_own_line_are_a_new_beginning() -> None:
    sync = live_at(1_000)

    for update_id in range(1, 21):
        assert list(sync.receive_update(depth_snapshot(update_id), LINE)) == []
    lost, again = sync.receive_update(depth_snapshot(21), LINE)
    assert lost == BookLost(NATIVE, "update ids fell to 21")
    assert isinstance(again, BookUpdated)
    assert again.update_id == 21
    assert sync.receive_update(depth_snapshot(22), LINE) == [BookUnchanged(NATIVE, 22)]


def test_ids_that_fall_leave_open_whether_the_book_is_the_newest() -> None:
    sync = live_at(100)

    sync.receive_update(depth_snapshot(99, bids=[(1.0, 1.0)]), LINE)
    assert sync.is_behind

    sync.receive_update(depth_snapshot(101), LINE)
    assert not sync.is_behind


def test_a_few_old_books_in_a_row_are_no_new_beginning() -> None:
    sync = live_at(1_000)

    for update_id in range(1_001, 1_004):
        assert not [event for old in range(1, 21) for event in sync.receive_update(depth_snapshot(old), LINE)]
        assert sync.receive_update(depth_snapshot(update_id), LINE) == [BookUnchanged(NATIVE, update_id)]


@pytest.mark.parametrize("bid", [101.0, 102.0])
def test_a_crossed_book_is_lost_and_the_next_one_heals(bid: float) -> None:
    sync = live_at(100)

    assert sync.receive_update(depth_snapshot(101, bids=[(bid, 1.0)]), LINE) == [
        BookLost(NATIVE, "bids and asks cross")
    ]
    assert sync.update_id is None
    assert list(sync.receive_update(depth_snapshot(102, bids=[(bid, 1.0)]), LINE)) == []
    assert sync.receive_update(depth_snapshot(103), LINE) == [BookUpdated(NATIVE, 103, None, tuple(BIDS), tuple(ASKS))]


def test_empty_and_one_sided_books_are_books() -> None:
    sync = new_sync()

    assert sync.receive_update(depth_snapshot(1, (), ()), LINE) == [BookUpdated(NATIVE, 1, None, (), ())]
    assert sync.receive_update(depth_snapshot(2, BIDS, ()), LINE) == [BookUpdated(NATIVE, 2, None, tuple(BIDS), ())]
    assert sync.receive_update(depth_snapshot(3, (), ASKS), LINE) == [BookUpdated(NATIVE, 3, None, (), tuple(ASKS))]


def test_only_the_end_of_the_last_line_loses_the_book() -> None:
    sync = live_at(100, LINE, OTHER_LINE)

    sync._lines.discard(LINE)
    assert list(sync.line_down(LINE, "reset")) == []
    sync._lines.discard(OTHER_LINE)
    assert sync.line_down(OTHER_LINE, "reset") == [BookLost(NATIVE, "reset")]
    assert list(sync.line_down(OTHER_LINE, "reset")) == []


def test_the_first_book_of_a_new_connection_is_published_even_if_nothing_changed() -> None:
    sync = live_at(100)
    sync._lines.clear()
    sync.line_down(LINE, "reset")

    assert sync.receive_update(depth_snapshot(100), OTHER_LINE) == [
        BookUpdated(NATIVE, 100, None, tuple(BIDS), tuple(ASKS))
    ]


def test_a_new_connection_may_start_with_lower_ids() -> None:
    sync = live_at(100)
    sync._lines.clear()
    sync.line_down(LINE, "reset")

    assert sync.receive_update(depth_snapshot(7), OTHER_LINE) == [
        BookUpdated(NATIVE, 7, None, tuple(BIDS), tuple(ASKS))
    ]


def test_connections_come_and_go_and_leave_nothing_behind() -> None:
    sync = live_at(100)

    for line in range(1, 50):
        sync.line_down(line - 1, "reset")
        sync.receive_update(depth_snapshot(100 + line), line)

    assert list(sync._ids._newest) == [49]


def test_a_quote_names_its_topic_in_every_event() -> None:
    sync = ReplaceSync(NATIVE, 1, {LINE}, "quote")

    assert [event.topic for event in sync.receive_update(depth_snapshot(1), LINE)] == ["quote"]  # type: ignore[attr-defined]
    assert sync.receive_update(depth_snapshot(2), LINE) == [BookUnchanged(NATIVE, 2, "quote")]
    assert sync.receive_update(depth_snapshot(3, bids=[(101.0, 1.0)]), LINE) == [
        BookLost(NATIVE, "bids and asks cross", "quote")
    ]


def test_a_newer_book_may_equal_one_that_went_before() -> None:
    first, second, third = [(99.0, 1.0)], [(99.0, 2.0)], [(99.0, 3.0)]
    sync = live_at(100, LINE, OTHER_LINE)
    for bids in (first, second):
        sync.receive_update(depth_snapshot(100, bids=bids), LINE)

    assert sync.receive_update(depth_snapshot(101, bids=first), OTHER_LINE) == [
        BookUpdated(NATIVE, 101, None, tuple(first), tuple(ASKS))
    ]
    sync.receive_update(depth_snapshot(101, bids=second), OTHER_LINE)
    sync.receive_update(depth_snapshot(102, bids=third), OTHER_LINE)
    assert sync.receive_update(depth_snapshot(102, bids=first), LINE) == [
        BookUpdated(NATIVE, 102, None, tuple(first), tuple(ASKS))
    ]


def test_of_one_id_the_line_that_brought_the_newest_book_may_go_back_and_another_bring_a_further_one() -> None:
    first, second, third = [(99.0, 1.0)], [(99.0, 2.0)], [(99.0, 3.0)]
    sync = new_sync(LINE, OTHER_LINE)
    sync.receive_update(depth_snapshot(100, bids=first), LINE)

    for bids, line in ((second, OTHER_LINE), (first, OTHER_LINE), (third, LINE)):
        assert sync.receive_update(depth_snapshot(100, bids=bids), line) == [
            BookUpdated(NATIVE, 100, None, tuple(bids), tuple(ASKS))
        ]
