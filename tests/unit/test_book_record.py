"""A book while it is recorded: what it was at each id, and when that cannot be said."""

from hypothesis import given
from hypothesis import strategies as st

from feeders.book_record import BookRecord, RecordedBook
from feeders.order_book import DepthChange, OrderBook
from tests.support.depth import Depth, depth_update

INFINITE = float("inf")
BIDS = ((99.0, 1.0), (98.0, 2.0), (97.0, 3.0))
ASKS = ((101.0, 1.0), (102.0, 2.0))


def order_book(limit: int = 100) -> OrderBook:
    book = OrderBook(depth=2)
    book.replace(BIDS, ASKS, limit)
    return book


def record(*updates: Depth) -> BookRecord:
    """Of a book that stood at id 10, with these updates since."""
    recorded = BookRecord(order_book(), 10)
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
    recorded = BookRecord(order_book(limit=2), 10).at(10)

    assert recorded is not None
    assert (recorded.bid_edge, recorded.ask_edge) == (97.0, 102.0)


def test_published_levels_that_are_not_the_best_ones_show() -> None:
    book = order_book()
    book.bids.top = ((99.5, 1.0), (98.0, 2.0))

    recorded = BookRecord(book, 10).at(10)

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
    recorded = BookRecord(book, update_id)
    states = {update_id: book.bids.levels()}
    for span, changes in steps:
        recorded.add(depth_update(update_id + 1, update_id + span, bids=changes))
        book.apply(changes, ())
        update_id += span
        states[update_id] = book.bids.levels()

    for known in range(10, update_id + 1):
        at = recorded.at(known)
        assert (None if at is None else at.bids) == (dict(states[known]) if known in states else None)
