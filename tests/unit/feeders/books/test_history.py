"""A book while it is recorded: what it was at each id, and when that cannot be said."""

from hypothesis import given
from hypothesis import strategies as st

from bookbus.feeders.books.events import BookLost, SnapshotNeeded
from bookbus.feeders.books.history import BookHistory, RecordedBook
from bookbus.feeders.books.order_book import DepthChange, OrderBook
from bookbus.feeders.books.synchronizer import RangeSync
from tests.support.depth import Depth, depth_snapshot, depth_update

INFINITE = float("inf")
BIDS = ((99.0, 1.0), (98.0, 2.0), (97.0, 3.0))
ASKS = ((101.0, 1.0), (102.0, 2.0))


def order_book(limit: int = 100) -> OrderBook:
    book = OrderBook(depth=2)
    book.replace(BIDS, ASKS, limit)
    return book


def record(*updates: Depth) -> BookHistory:
    """Of a book that stood at id 10, with these updates since."""
    recorded = BookHistory(order_book(), 10)
    for update in updates:
        recorded.add(update)
    return recorded


def whole(bids: tuple[DepthChange, ...] = BIDS, asks: tuple[DepthChange, ...] = ASKS) -> RecordedBook:
    return RecordedBook(dict(bids), dict(asks), -INFINITE, INFINITE)


def test_at_its_first_id_the_book_is_as_it_was() -> None:
    assert record(depth_update(11, bids=((99.0, 0.0),))).at(10) == whole()


def test_at_the_end_of_an_update_it_has_every_change_so_far() -> None:
    recorded = record(
        depth_update(11, 14, bids=((99.0, 0.0), (98.0, 5.0))),
        depth_update(15, asks=((100.0, 1.0),)),
        depth_update(16, 20, bids=((98.0, 0.0),)),
    )

    assert recorded.at(14) == whole(bids=((98.0, 5.0), (97.0, 3.0)))
    assert recorded.at(15) == whole(bids=((98.0, 5.0), (97.0, 3.0)), asks=((100.0, 1.0), *ASKS))
    assert recorded.last_id == 20


def test_inside_what_an_update_covers_nothing_is_known() -> None:
    recorded = record(depth_update(11, 14), depth_update(15, 19))

    assert [recorded.at(update_id) for update_id in (11, 13, 15, 18)] == [None] * 4


def test_before_its_first_id_and_after_its_last_nothing_is_known() -> None:
    recorded = record(depth_update(11))

    assert recorded.at(9) is None
    assert recorded.at(12) is None


def test_a_level_removed_that_was_not_there_changes_nothing() -> None:
    assert record(depth_update(11, bids=((50.0, 0.0),))).at(11) == whole()


def test_a_record_that_ended_says_nothing() -> None:
    recorded = record()
    recorded.end()

    assert recorded.is_over
    assert recorded.at(10) is None


def test_what_is_known_ends_where_the_snapshot_ended() -> None:
    recorded = BookHistory(order_book(limit=2), 10).at(10)

    assert recorded is not None
    assert (recorded.bid_edge, recorded.ask_edge) == (97.0, 102.0)


def test_published_levels_that_are_not_the_best_ones_show() -> None:
    book = order_book()
    book.bids.top = ((99.5, 1.0), (98.0, 2.0))

    recorded = BookHistory(book, 10).at(10)

    assert recorded is not None
    assert recorded.bids == {99.5: 1.0, 98.0: 2.0, 97.0: 3.0}


@given(
    st.lists(
        st.tuples(
            st.integers(1, 5),
            st.lists(
                st.tuples(st.sampled_from([96.0, 97.0, 98.0, 99.0]), st.sampled_from([0.0, 1.0, 2.0])), max_size=4
            ),
        ),
        max_size=8,
    )
)
def test_at_every_id_it_stood_at_the_record_equals_the_book(steps: list[tuple[int, list[DepthChange]]]) -> None:
    book, update_id = order_book(), 10
    recorded = BookHistory(book, update_id)
    states = {update_id: book.bids.levels()}
    for span, changes in steps:
        recorded.add(depth_update(update_id + 1, update_id + span, bids=changes))
        book.apply(changes, ())
        update_id += span
        states[update_id] = book.bids.levels()

    for known in range(10, update_id + 1):
        at = recorded.at(known)
        assert (None if at is None else at.bids) == (dict(states[known]) if known in states else None)


def live_sync(*lines: int, update_id: int = 10) -> RangeSync:
    sync = RangeSync("BTCUSDT", 2, set(lines or (0,)), 100, 100)
    sync.start()
    sync.receive_snapshot(depth_snapshot(update_id, BIDS, ASKS), 100)
    return sync


def recording(sync: RangeSync) -> BookHistory:
    recorded = sync.start_history()
    assert recorded is not None
    return recorded


def test_a_book_that_is_not_there_cannot_be_recorded() -> None:
    sync = RangeSync("BTCUSDT", 2, {0}, 100, 100)
    sync.start()

    assert sync.start_history() is None


def test_what_a_recorded_book_takes_is_in_its_record() -> None:
    sync = live_sync()
    recorded = recording(sync)
    sync.receive_update(depth_update(11, 12, bids=((98.0, 0.0),)), 0)
    sync.receive_update(depth_update(11, 12, bids=((98.0, 0.0),)), 0)
    sync.receive_update(depth_update(13), 0)

    assert recorded.last_id == 13
    assert recorded.at(12) == whole(bids=((99.0, 1.0), (97.0, 3.0)))


def test_what_another_line_brought_too_early_is_recorded_in_order() -> None:
    sync = live_sync(0, 1)
    recorded = recording(sync)
    sync.receive_update(depth_update(12, bids=((97.0, 0.0),)), 0)
    sync.receive_update(depth_update(11, bids=((98.0, 0.0),)), 1)

    assert recorded.at(11) == whole(bids=((99.0, 1.0), (97.0, 3.0)))
    assert recorded.at(12) == whole(bids=((99.0, 1.0),))


def test_a_gap_a_lost_line_and_a_new_snapshot_end_the_record() -> None:
    gap, line, replaced = live_sync(), live_sync(), live_sync()
    records = [recording(sync) for sync in (gap, line, replaced)]
    gap.receive_update(depth_update(12), 0)
    line._lines.clear()
    line.line_down(0, "closed")
    replaced.invalidate("wrong")
    replaced.receive_snapshot(depth_snapshot(11, BIDS, ASKS), 100)

    assert [recorded.is_over for recorded in records] == [True] * 3


def test_a_snapshot_in_place_of_a_live_book_ends_its_record() -> None:
    sync = RangeSync("BTCUSDT", 2, {0}, 100, 1_000)
    sync.start()
    sync.receive_snapshot(depth_snapshot(10, BIDS, ASKS), 100)
    recorded = recording(sync)
    sync.snapshot_requested()
    sync.receive_snapshot(depth_snapshot(10, BIDS, ASKS), 1_000)

    assert recorded.is_over


def test_a_record_that_ended_takes_nothing_more() -> None:
    sync = live_sync()
    recorded = recording(sync)
    recorded.end()
    sync.receive_update(depth_update(11), 0)

    assert recorded.last_id == 10
    assert recording(sync).at(11) is not None


def test_a_new_record_ends_the_one_before() -> None:
    sync = live_sync()
    first, second = recording(sync), recording(sync)

    assert (first.is_over, second.is_over) == (True, False)


def test_an_invalidated_book_is_lost_and_comes_back_by_a_snapshot() -> None:
    sync = live_sync()

    assert sync.invalidate("wrong") == [BookLost("BTCUSDT", "wrong"), SnapshotNeeded("BTCUSDT", 100, urgent=True)]
    assert sync.update_id is None
    sync.receive_update(depth_update(11), 0)
    sync.receive_snapshot(depth_snapshot(10, BIDS, ASKS), 100)
    assert sync.update_id == 11


def test_a_book_lost_already_is_not_lost_again() -> None:
    sync = live_sync()
    sync.invalidate("wrong")

    assert list(sync.invalidate("wrong")) == []
