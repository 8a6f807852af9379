"""Snapshot by request plus updates with a range of ids: when a book is the exchange's, and when it no longer is."""

from collections.abc import Sequence

import pytest

from bookbus.feeders.books import order_book
from bookbus.feeders.books.events import BookLost, BookUnchanged, BookUpdated, Event, KnownWindowLeft, SnapshotNeeded
from bookbus.feeders.books.order_book import DepthChange
from bookbus.feeders.books.synchronizer import RangeSync
from tests.support.depth import ASKS, BIDS, Depth, depth_snapshot, depth_update

NATIVE = "BTCUSDT"
LIMIT = 100
DEEP = 1_000
FIRST_SNAPSHOT_NEEDED = SnapshotNeeded(NATIVE, LIMIT, urgent=True)
LINE, OTHER_LINE, THIRD_LINE = 0, 1, 2


def new_sync(*lines: int, depth: int = 2, limit: int = LIMIT, deep: int | None = None) -> RangeSync:
    """No deepening unless `deep` is given."""
    return RangeSync(NATIVE, depth, set(lines or (LINE,)), limit, deep or limit)


def waiting_with(*updates: Depth, lines: Sequence[int] = (LINE,)) -> RangeSync:
    """A sync whose subscription works, with these updates buffered."""
    sync = new_sync(*lines)
    sync.start()
    for update in updates:
        assert not sync.receive_update(update, LINE)
    return sync


def live_at(
    update_id: int,
    *lines: int,
    bids: Sequence[DepthChange] = BIDS,
    asks: Sequence[DepthChange] = ASKS,
    depth: int = 2,
    limit: int = LIMIT,
) -> RangeSync:
    sync = new_sync(*lines, depth=depth, limit=limit)
    sync.start()
    sync.receive_snapshot(depth_snapshot(update_id, bids, asks), limit)
    assert sync.update_id == update_id
    return sync


def line_down(sync: RangeSync, line: int, reason: str = "closed") -> Sequence[Event]:
    """As the protocol does it: the set of working lines is its own."""
    sync._lines.discard(line)
    return sync.line_down(line, reason)


def updated(update_id: int, exchange_us: int | None = None, **sides: Sequence[DepthChange]) -> BookUpdated:
    return BookUpdated(NATIVE, update_id, exchange_us, tuple(sides.get("bids", BIDS)), tuple(sides.get("asks", ASKS)))


# The official procedure.


def test_a_working_subscription_asks_for_a_snapshot_without_waiting_for_an_update() -> None:
    sync = new_sync()

    assert sync.start() == [FIRST_SNAPSHOT_NEEDED]
    assert sync.update_id is None


def test_an_update_before_the_acknowledgement_asks_and_the_acknowledgement_asks_no_more() -> None:
    sync = new_sync()

    assert sync.receive_update(depth_update(100), LINE) == [FIRST_SNAPSHOT_NEEDED]
    assert list(sync.start()) == []
    assert list(sync.receive_update(depth_update(101), LINE)) == []
    assert sync.receive_snapshot(depth_snapshot(99), LIMIT) == [updated(101)]


def test_a_quiet_symbol_is_live_by_its_snapshot_alone() -> None:
    sync = waiting_with()

    assert sync.receive_snapshot(depth_snapshot(100), LIMIT) == [updated(100)]


def test_the_book_is_the_snapshot_with_the_buffered_updates_applied_in_one_step() -> None:
    sync = waiting_with(
        depth_update(99, 100, bids=[(99.0, 9.0)]),
        depth_update(101, 104, bids=[(98.5, 3.0)]),
        depth_update(105, bids=[(99.0, 0.0)], exchange_us=1_700),
    )

    events = sync.receive_snapshot(depth_snapshot(100), LIMIT)

    assert events == [updated(105, 1_700, bids=((98.5, 3.0), (98.0, 2.0)))]


@pytest.mark.parametrize(("first", "survivor"), [(-2, 1), (0, 1), (-7, 1), (-1, 1)], ids=lambda offset: f"{offset:+d}")
def test_bridging_as_real_exchanges_do_it(first: int, survivor: int) -> None:
    """The snapshot's id is the end of a buffered update and in the range of none of those that remain."""
    snapshot_id = 5_000
    sync = waiting_with(
        depth_update(snapshot_id + first, snapshot_id),
        depth_update(snapshot_id + survivor, snapshot_id + 9, bids=[(99.5, 1.0)]),
    )

    events = sync.receive_snapshot(depth_snapshot(snapshot_id), LIMIT)

    assert events == [updated(snapshot_id + 9, bids=((99.5, 1.0), (99.0, 1.0)))]


WORKED_EXAMPLE = (
    depth_update(100, 104, bids=[(97.0, 1.0)]),
    depth_update(105, 105, bids=[(98.5, 1.0)]),
    depth_update(106, 110, asks=[(101.5, 1.0)]),
)


@pytest.mark.parametrize(
    ("snapshot_id", "bids", "asks"),
    [
        (99, ((99.0, 1.0), (98.5, 1.0)), ((101.0, 1.0), (101.5, 1.0))),  # contiguous with the first
        (104, ((99.0, 1.0), (98.5, 1.0)), ((101.0, 1.0), (101.5, 1.0))),  # ends where the first does
        (105, BIDS, ((101.0, 1.0), (101.5, 1.0))),
        (107, BIDS, ((101.0, 1.0), (101.5, 1.0))),  # inside the last
        (110, BIDS, ASKS),  # at the newest
    ],
)
def test_worked_example_bridges(snapshot_id: int, bids: Sequence[DepthChange], asks: Sequence[DepthChange]) -> None:
    sync = waiting_with(*WORKED_EXAMPLE)

    assert sync.receive_snapshot(depth_snapshot(snapshot_id), LIMIT) == [updated(110, bids=bids, asks=asks)]
    assert sync.receive_update(depth_update(111), LINE) == [BookUnchanged(NATIVE, 111)]


def test_worked_example_with_a_snapshot_ahead_of_everything_buffered() -> None:
    sync = waiting_with(*WORKED_EXAMPLE)

    assert sync.receive_snapshot(depth_snapshot(200), LIMIT) == [updated(200)]
    assert list(sync.receive_update(depth_update(111, 115, bids=[(99.5, 1.0)]), LINE)) == []
    assert sync.receive_update(depth_update(116, 201), LINE) == [BookUnchanged(NATIVE, 201)]


def test_a_stale_snapshot_is_asked_for_again_and_the_buffer_kept() -> None:
    sync = waiting_with(*WORKED_EXAMPLE)

    assert sync.receive_snapshot(depth_snapshot(98), LIMIT) == [FIRST_SNAPSHOT_NEEDED]
    assert sync.update_id is None
    assert [event.update_id for event in sync.receive_snapshot(depth_snapshot(99), LIMIT)] == [110]  # type: ignore[attr-defined]


def test_a_snapshot_may_be_stale_many_times() -> None:
    sync = waiting_with(*WORKED_EXAMPLE)

    for snapshot_id in (1, 50, 98, 98):
        assert sync.receive_snapshot(depth_snapshot(snapshot_id), LIMIT) == [FIRST_SNAPSHOT_NEEDED]


def test_updates_missing_from_the_buffer_ask_for_a_newer_snapshot() -> None:
    sync = waiting_with(depth_update(100, 104), depth_update(106, 110))

    assert sync.receive_snapshot(depth_snapshot(104), LIMIT) == [FIRST_SNAPSHOT_NEEDED]
    assert sync.receive_snapshot(depth_snapshot(108), LIMIT) == [updated(110)]


def test_an_answer_nobody_waits_for_changes_nothing() -> None:
    sync = live_at(100)

    assert list(sync.receive_snapshot(depth_snapshot(200, bids=[(1.0, 1.0)]), LIMIT)) == []
    assert sync.update_id == 100
    assert sync.book.bids.top == BIDS


def test_what_came_before_the_request_left_still_meets_its_answer() -> None:
    sync = waiting_with(depth_update(101), depth_update(102))

    sync.snapshot_requested()

    assert sync.receive_snapshot(depth_snapshot(100), LIMIT) == [updated(102)]


def test_a_request_that_leaves_after_its_connection_was_lost_changes_nothing() -> None:
    sync = waiting_with(depth_update(101))
    line_down(sync, LINE)

    sync.snapshot_requested()

    assert list(sync.receive_snapshot(depth_snapshot(100), LIMIT)) == []
    assert sync.update_id is None


def test_the_buffer_keeps_the_newest_updates_and_never_more_than_its_limit() -> None:
    sync = waiting_with(*[depth_update(update_id) for update_id in range(1, 1_001)])

    assert sync._buffer is not None
    assert len(sync._buffer) == 100
    assert sync.receive_snapshot(depth_snapshot(899), LIMIT) == [FIRST_SNAPSHOT_NEEDED]
    assert sync.receive_snapshot(depth_snapshot(900), LIMIT) == [updated(1_000)]


# Live.


def test_an_update_that_follows_is_applied_and_published_with_its_time() -> None:
    sync = live_at(110)

    events = sync.receive_update(depth_update(111, 115, bids=[(99.0, 5.0)], exchange_us=1_700), LINE)

    assert events == [updated(115, 1_700, bids=((99.0, 5.0), (98.0, 2.0)))]


def test_an_update_below_the_published_levels_moves_the_id_only() -> None:
    sync = live_at(110)

    assert sync.receive_update(depth_update(111, bids=[(50.0, 1.0)]), LINE) == [BookUnchanged(NATIVE, 111)]
    assert sync.update_id == 111


def test_an_update_that_overlaps_the_book_is_applied() -> None:
    sync = live_at(110)

    assert sync.receive_update(depth_update(105, 112, bids=[(98.0, 0.0)]), LINE) == [updated(112, bids=((99.0, 1.0),))]


@pytest.mark.parametrize(("first", "last"), [(105, 109), (106, 110), (110, 110)])
def test_an_update_already_in_the_book_is_ignored(first: int, last: int) -> None:
    sync = live_at(110)

    assert list(sync.receive_update(depth_update(first, last, bids=[(99.0, 7.0)]), LINE)) == []
    assert (sync.update_id, sync.book.bids.top) == (110, BIDS)


def test_a_gap_loses_the_book_and_asks_for_a_snapshot() -> None:
    sync = live_at(110)

    events = sync.receive_update(depth_update(112, 115), LINE)

    assert events == [BookLost(NATIVE, "expected update 111, received 112"), FIRST_SNAPSHOT_NEEDED]
    assert sync.update_id is None


def test_after_a_gap_the_book_is_lost_once_and_comes_back_from_the_update_that_showed_it() -> None:
    sync = live_at(110)
    sync.receive_update(depth_update(112, 115, bids=[(99.0, 4.0)]), LINE)

    assert list(sync.receive_update(depth_update(117, 118), LINE)) == []
    assert sync.receive_snapshot(depth_snapshot(110), LIMIT) == [FIRST_SNAPSHOT_NEEDED]  # stale
    assert sync.receive_snapshot(depth_snapshot(111), LIMIT) == [FIRST_SNAPSHOT_NEEDED]  # 116 is missing too
    assert sync.receive_snapshot(depth_snapshot(116), LIMIT) == [updated(118)]


def test_after_a_gap_no_more_is_kept_than_at_the_start() -> None:
    sync = live_at(110)

    for update_id in range(112, 1_001):
        sync.receive_update(depth_update(update_id), LINE)

    assert sync._buffer is not None
    assert len(sync._buffer) == 100


def test_a_gap_concerns_its_own_symbol_only() -> None:
    lines = {LINE}
    first, second = (RangeSync(native, 2, lines, LIMIT, LIMIT) for native in ("BTCUSDT", "ETHUSDT"))
    for sync in (first, second):
        sync.start()
        sync.receive_snapshot(depth_snapshot(110), LIMIT)

    first.receive_update(depth_update(112), LINE)

    assert (first.update_id, second.update_id) == (None, 110)
    assert second.receive_update(depth_update(111), LINE) == [BookUnchanged("ETHUSDT", 111)]


@pytest.mark.parametrize("crossing", [depth_update(111, bids=[(101.0, 1.0)]), depth_update(111, asks=[(98.0, 1.0)])])
def test_a_crossed_book_is_lost_like_after_a_gap(crossing: Depth) -> None:
    sync = live_at(110)

    events = sync.receive_update(crossing, LINE)

    assert events == [BookLost(NATIVE, "bids and asks cross"), FIRST_SNAPSHOT_NEEDED]
    assert sync.update_id is None


def test_after_a_crossing_no_snapshot_older_than_the_update_is_taken_for_the_book() -> None:
    sync = live_at(110)
    sync.receive_update(depth_update(111, bids=[(101.0, 1.0)]), LINE)

    assert sync.receive_snapshot(depth_snapshot(109), LIMIT) == [FIRST_SNAPSHOT_NEEDED]
    assert sync.receive_snapshot(depth_snapshot(111, bids=[(99.0, 1.0)]), LIMIT) == [updated(111, bids=[(99.0, 1.0)])]


def test_sides_that_cross_within_one_update_and_part_again_are_fine() -> None:
    sync = live_at(110)

    events = sync.receive_update(depth_update(111, bids=[(101.0, 1.0)], asks=[(101.0, 0.0)]), LINE)

    assert events == [updated(111, bids=[(101.0, 1.0), (99.0, 1.0)], asks=[(102.0, 2.0)])]


def test_a_snapshot_that_crosses_is_not_taken() -> None:
    sync = waiting_with()

    events = sync.receive_snapshot(depth_snapshot(100, bids=[(102.0, 1.0)]), LIMIT)

    assert events == [FIRST_SNAPSHOT_NEEDED]
    assert sync.update_id is None


def test_after_a_snapshot_that_crosses_none_older_than_the_newest_update_is_taken() -> None:
    sync = waiting_with(depth_update(101), depth_update(102), depth_update(103))

    assert sync.receive_snapshot(depth_snapshot(100, bids=[(102.0, 1.0)]), LIMIT) == [FIRST_SNAPSHOT_NEEDED]
    assert sync.receive_snapshot(depth_snapshot(101), LIMIT) == [FIRST_SNAPSHOT_NEEDED]
    assert sync.receive_snapshot(depth_snapshot(102), LIMIT) == [updated(103)]


def test_one_sided_and_empty_books_are_books() -> None:
    sync = waiting_with()

    assert sync.receive_snapshot(depth_snapshot(100, bids=(), asks=()), LIMIT) == [updated(100, bids=(), asks=())]
    events = sync.receive_update(depth_update(101, asks=[(7.0, 1.0)]), LINE)
    assert events == [updated(101, bids=(), asks=[(7.0, 1.0)])]
    assert sync.receive_update(depth_update(102, asks=[(7.0, 0.0)]), LINE) == [updated(102, bids=(), asks=())]


# Ids that start again: the exchange was restarted behind the same connection.


def test_a_few_old_updates_in_a_row_are_no_restart() -> None:
    sync = live_at(110)
    sync.receive_update(depth_update(111), LINE)

    for _ in range(3):
        for old in range(80, 100):
            assert list(sync.receive_update(depth_update(old), LINE)) == []
        assert sync.receive_update(depth_update((sync.update_id or 0) + 1), LINE)

    assert sync.update_id == 114


def test_ids_that_stay_low_on_their_own_line_lose_the_book() -> None:
    sync = live_at(1_000)
    sync.receive_update(depth_update(1_001), LINE)

    events = [event for new in range(1, 22) for event in sync.receive_update(depth_update(new), LINE)]

    assert events == [BookLost(NATIVE, "update ids fell to 21"), FIRST_SNAPSHOT_NEEDED]
    assert sync.receive_snapshot(depth_snapshot(20), LIMIT) == [updated(21)]
    assert not sync.is_behind
    for update_id in range(22, 80):
        assert sync.receive_update(depth_update(update_id), LINE) == [BookUnchanged(NATIVE, update_id)]


def test_the_same_update_many_times_over_is_no_restart() -> None:
    sync = live_at(110)
    sync.receive_update(depth_update(111), LINE)

    assert [event for _ in range(30) for event in sync.receive_update(depth_update(111), LINE)] == []


def test_a_new_connection_may_start_with_lower_ids() -> None:
    sync = live_at(1_000)
    sync.receive_update(depth_update(1_001), LINE)
    line_down(sync, LINE)

    sync._lines.add(LINE)
    assert sync.start() == [FIRST_SNAPSHOT_NEEDED]
    assert [event for new in range(1, 31) for event in sync.receive_update(depth_update(new), LINE)] == []
    assert sync.receive_snapshot(depth_snapshot(30), LIMIT) == [updated(30)]


def test_ids_that_fall_leave_open_whether_the_book_is_the_newest() -> None:
    """In a quiet market it takes long until so many have fallen that the book is lost."""
    sync = live_at(1_000)
    sync.receive_update(depth_update(1_001), LINE)
    assert not sync.is_behind

    sync.receive_update(depth_update(7), LINE)
    assert sync.is_behind

    sync.receive_update(depth_update(1_002), LINE)
    assert not sync.is_behind


def test_what_a_slower_line_brings_late_leaves_nothing_open() -> None:
    sync = live_at(1_000, LINE, OTHER_LINE)
    for update_id in (1_001, 1_002):
        sync.receive_update(depth_update(update_id), LINE)

    sync.receive_update(depth_update(1_001), OTHER_LINE)

    assert not sync.is_behind


def test_the_end_of_a_line_whose_ids_fell_leaves_nothing_open() -> None:
    sync = live_at(1_000, LINE, OTHER_LINE)
    for update_id in (1_001, 7):
        sync.receive_update(depth_update(update_id), LINE)

    line_down(sync, LINE)

    assert sync.update_id == 1_001
    assert not sync.is_behind


def test_ids_that_start_again_while_a_snapshot_is_awaited_do_not_block_it() -> None:
    sync = waiting_with(depth_update(1_000), depth_update(1_001), depth_update(1), depth_update(2))

    assert sync.receive_snapshot(depth_snapshot(2), LIMIT) == [FIRST_SNAPSHOT_NEEDED]
    assert sync.receive_snapshot(depth_snapshot(2), LIMIT) == [updated(2)]


def test_a_slow_line_delivering_what_another_brought_long_ago_is_no_restart() -> None:
    sync = live_at(100, LINE, OTHER_LINE)
    sync.receive_update(depth_update(101), OTHER_LINE)
    for update_id in range(101, 201):
        sync.receive_update(depth_update(update_id), LINE)

    burst = [event for old in range(102, 201) for event in sync.receive_update(depth_update(old), OTHER_LINE)]

    assert burst == []
    assert sync.update_id == 200


def test_a_snapshot_far_ahead_of_the_stream_is_no_restart() -> None:
    sync = waiting_with(depth_update(100))
    sync.receive_snapshot(depth_snapshot(200), LIMIT)

    late = [event for old in range(101, 201) for event in sync.receive_update(depth_update(old), LINE)]

    assert late == []
    assert sync.receive_update(depth_update(201), LINE) == [BookUnchanged(NATIVE, 201)]


# Deepening: a second, larger snapshot while the book is live.


def deepening_at(update_id: int, *lines: int) -> RangeSync:
    """Live by a snapshot of two levels a side, with a deeper one asked for."""
    sync = new_sync(*lines, depth=1, limit=2, deep=DEEP)
    sync.start()
    assert sync.receive_snapshot(depth_snapshot(update_id), 2) == [
        updated(update_id, bids=BIDS[:1], asks=ASKS[:1]),
        SnapshotNeeded(NATIVE, DEEP, urgent=False),
    ]
    sync.snapshot_requested()
    return sync


DEEP_BIDS = (*BIDS, (97.0, 3.0), (96.0, 4.0))


def test_a_deeper_snapshot_of_the_same_levels_says_nothing_new_and_asks_no_more() -> None:
    sync = deepening_at(100)

    assert sync.receive_snapshot(depth_snapshot(100, bids=DEEP_BIDS), DEEP) == [BookUnchanged(NATIVE, 100)]
    assert sync.book.bids.levels() == DEEP_BIDS
    assert list(sync.receive_snapshot(depth_snapshot(100), DEEP)) == []


def test_a_deeper_snapshot_of_an_earlier_id_never_takes_the_book_back() -> None:
    sync = deepening_at(100)
    sync.receive_update(depth_update(101, 105, bids=[(98.0, 0.0)]), LINE)
    sync.receive_update(depth_update(106, 110, bids=[(97.5, 1.0)]), LINE)

    assert sync.receive_snapshot(depth_snapshot(105, bids=[(99.0, 1.0), (97.0, 3.0)]), DEEP) == [
        BookUnchanged(NATIVE, 110)
    ]
    assert sync.book.bids.levels() == ((99.0, 1.0), (97.5, 1.0), (97.0, 3.0))


def test_a_deeper_snapshot_of_a_later_id_takes_the_book_ahead() -> None:
    sync = deepening_at(100)

    events = sync.receive_snapshot(depth_snapshot(107, bids=[(100.0, 1.0)]), DEEP)

    assert events == [updated(107, bids=[(100.0, 1.0)], asks=ASKS[:1])]
    assert list(sync.receive_update(depth_update(101, 105), LINE)) == []
    assert sync.receive_update(depth_update(106, 110), LINE) == [BookUnchanged(NATIVE, 110)]


@pytest.mark.parametrize("old", [[], [depth_update(90, 95)]], ids=["quiet", "after an old update"])
def test_a_deeper_snapshot_from_before_the_book_is_asked_for_again_while_the_book_stays_live(old: list[Depth]) -> None:
    sync = deepening_at(100)
    for update in old:
        sync.receive_update(update, LINE)

    assert sync.receive_snapshot(depth_snapshot(97), DEEP) == [SnapshotNeeded(NATIVE, DEEP, urgent=False)]
    assert (sync.update_id, sync.book.bids.top) == (100, BIDS[:1])
    assert sync.receive_snapshot(depth_snapshot(100, bids=DEEP_BIDS), DEEP) == [BookUnchanged(NATIVE, 100)]


def test_a_live_book_keeps_nothing_for_a_request_that_has_not_left() -> None:
    sync = new_sync(depth=1, limit=2, deep=DEEP)
    sync.start()
    sync.receive_snapshot(depth_snapshot(100), 2)

    sync.receive_update(depth_update(101), LINE)
    assert sync._buffer is None
    sync.snapshot_requested()
    sync.receive_update(depth_update(102), LINE)

    assert sync._buffer is not None
    assert [update.last_id for update, _ in sync._buffer] == [102]
    assert sync.receive_snapshot(depth_snapshot(101, bids=DEEP_BIDS), DEEP) == [BookUnchanged(NATIVE, 102)]


def test_an_answer_older_than_the_request_is_asked_for_again_and_met_by_what_is_kept() -> None:
    sync = deepening_at(100)
    sync.receive_update(depth_update(101), LINE)
    sync.receive_update(depth_update(102), LINE)

    assert sync.receive_snapshot(depth_snapshot(99), DEEP) == [SnapshotNeeded(NATIVE, DEEP, urgent=False)]
    assert sync.receive_snapshot(depth_snapshot(100, bids=DEEP_BIDS), DEEP) == [BookUnchanged(NATIVE, 102)]


def test_a_gap_while_deepening_starts_over_with_the_first_limit() -> None:
    sync = deepening_at(100)

    events = sync.receive_update(depth_update(102), LINE)

    assert events == [BookLost(NATIVE, "expected update 101, received 102"), SnapshotNeeded(NATIVE, 2, urgent=True)]


def test_while_a_deeper_answer_is_awaited_no_more_is_kept_than_while_the_first_is() -> None:
    sync = deepening_at(100)

    for update_id in range(101, 1_001):
        sync.receive_update(depth_update(update_id), LINE)

    assert sync._buffer is not None
    assert len(sync._buffer) == 100


def test_a_deeper_snapshot_that_crosses_loses_the_book() -> None:
    sync = deepening_at(100)

    assert sync.receive_snapshot(depth_snapshot(100, bids=[(102.0, 1.0)]), DEEP) == [
        BookLost(NATIVE, "bids and asks cross"),
        SnapshotNeeded(NATIVE, 2, urgent=True),
    ]


def test_the_deeper_answer_may_end_what_came_after_it_was_asked_for() -> None:
    sync = deepening_at(100)
    sync.receive_update(depth_update(102), LINE)

    assert sync.receive_snapshot(depth_snapshot(102, bids=DEEP_BIDS), DEEP) == [
        updated(102, bids=BIDS[:1], asks=ASKS[:1])
    ]
    assert list(sync.receive_snapshot(depth_snapshot(103, bids=[(1.0, 1.0)]), 2)) == []


def test_deepening_goes_on_while_one_line_waits_for_what_it_lacks() -> None:
    sync = deepening_at(100, LINE, OTHER_LINE)
    sync.receive_update(depth_update(102, bids=[(98.5, 1.0)]), LINE)

    assert sync.receive_snapshot(depth_snapshot(100, bids=DEEP_BIDS), DEEP) == [BookUnchanged(NATIVE, 100)]
    events = sync.receive_update(depth_update(101), OTHER_LINE)
    assert events == [BookUnchanged(NATIVE, 101), BookUnchanged(NATIVE, 102)]
    assert sync.book.bids.levels()[1] == (98.5, 1.0)


def test_what_waits_since_before_the_question_is_not_forgotten() -> None:
    sync = live_with_window(LINE, OTHER_LINE)
    sync.receive_update(depth_update(104, bids=[(50.0, 1.0)]), LINE)
    near_the_edge = depth_update(101, bids=falling_to_zero(100, 99, 98, 97, 96, 95, 94, 93))
    assert SnapshotNeeded(NATIVE, 10, urgent=True) in sync.receive_update(near_the_edge, OTHER_LINE)
    sync.snapshot_requested()

    sync.receive_snapshot(depth_snapshot(102, bids=falling(92, 91)), 10)

    assert sync.receive_update(depth_update(103), OTHER_LINE) == [
        BookUnchanged(NATIVE, 103),
        BookUnchanged(NATIVE, 104),
    ]


# The known window: how far from the touch the snapshot reached.


def falling(*prices: float) -> list[DepthChange]:
    return [(price, 1.0) for price in prices]


def falling_to_zero(*prices: float) -> list[DepthChange]:
    return [(price, 0.0) for price in prices]


@pytest.fixture
def deep_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_book, "DEEP", 1)


def live_with_window(*lines: int) -> RangeSync:
    """The best bid alone is published; nine more are known, the last at 91. The asks are whole.

    By `deep_windows` it is as if they were a thousand.
    """
    return live_at(100, *lines, bids=falling(*range(100, 90, -1)), asks=[(101.0, 1.0)], depth=1, limit=10)


def remove_bids(sync: RangeSync, *prices: float) -> list[Event]:
    """One update for each price. Returns what is not the book itself."""
    found: list[Event] = []
    for price in prices:
        events = sync.receive_update(depth_update((sync.update_id or 0) + 1, bids=[(price, 0.0)]), LINE)
        found.extend(event for event in events if not isinstance(event, BookUpdated))
    return found


def test_nearing_the_end_of_the_known_window_asks_for_a_snapshot_once() -> None:
    sync = live_with_window()

    assert remove_bids(sync, 100.0, 99.0, 98.0, 97.0, 96.0, 95.0) == []
    assert remove_bids(sync, 94.0, 93.0, 92.0) == [SnapshotNeeded(NATIVE, 10, urgent=True)]
    assert sync.update_id == 109


@pytest.mark.usefixtures("deep_windows")
def test_leaving_the_known_window_is_told_once_and_keeps_the_book_live() -> None:
    sync = live_with_window()
    events = sync.receive_update(depth_update(101, bids=[(50.0, 1.0), (40.0, 1.0)]), LINE)
    assert events == [BookUnchanged(NATIVE, 101)]

    left = remove_bids(sync, *range(100, 90, -1))

    assert left == [SnapshotNeeded(NATIVE, 10, urgent=True), KnownWindowLeft(NATIVE)]
    assert remove_bids(sync, 50.0) == []
    assert (sync.update_id, sync.book.bids.top) == (112, ((40.0, 1.0),))


@pytest.mark.usefixtures("deep_windows")
def test_the_asks_have_a_window_of_their_own() -> None:
    sync = live_at(100, bids=[(99.0, 1.0)], asks=falling(*range(101, 111)), depth=1, limit=10)

    nearing = sync.receive_update(depth_update(101, asks=falling_to_zero(*range(101, 110))), LINE)
    leaving = sync.receive_update(depth_update(102, asks=[(110.0, 0.0), (150.0, 1.0)]), LINE)

    assert nearing == [SnapshotNeeded(NATIVE, 10, urgent=True), updated(101, bids=[(99.0, 1.0)], asks=[(110.0, 1.0)])]
    assert leaving == [KnownWindowLeft(NATIVE), updated(102, bids=[(99.0, 1.0)], asks=[(150.0, 1.0)])]


@pytest.mark.usefixtures("deep_windows")
def test_a_fresh_snapshot_ends_the_episode_and_the_next_one_is_told_again() -> None:
    sync = live_with_window()
    remove_bids(sync, *range(100, 90, -1))
    sync.snapshot_requested()

    sync.receive_snapshot(depth_snapshot(110, bids=falling(*range(90, 80, -1)), asks=[(101.0, 1.0)]), 10)

    assert remove_bids(sync, 90.0) == []
    assert remove_bids(sync, *range(89, 80, -1)) == [SnapshotNeeded(NATIVE, 10, urgent=True), KnownWindowLeft(NATIVE)]


@pytest.mark.usefixtures("deep_windows")
def test_a_window_that_the_buffered_updates_left_is_told_with_the_snapshot() -> None:
    sync = new_sync(depth=1, limit=2)
    sync.start()
    sync.receive_update(depth_update(101, bids=[(99.0, 0.0), (98.0, 0.0)]), LINE)

    assert sync.receive_snapshot(depth_snapshot(100), 2) == [
        KnownWindowLeft(NATIVE),
        SnapshotNeeded(NATIVE, 2, urgent=True),
        BookUpdated(NATIVE, 101, None, (), tuple(ASKS[:1])),
    ]


@pytest.mark.usefixtures("deep_windows")
def test_a_snapshot_whose_window_is_all_but_left_when_it_comes_asks_for_the_next() -> None:
    sync = live_with_window()
    sync.receive_update(depth_update(101, bids=falling_to_zero(*range(100, 92, -1))), LINE)
    sync.snapshot_requested()
    sync.receive_update(depth_update(102, bids=[*falling_to_zero(*range(92, 83, -1)), (83.0, 1.0)]), LINE)

    assert sync.receive_snapshot(depth_snapshot(101, bids=falling(*range(92, 82, -1)), asks=[(101.0, 1.0)]), 10) == [
        SnapshotNeeded(NATIVE, 10, urgent=True),
        BookUnchanged(NATIVE, 102),
    ]


@pytest.mark.usefixtures("deep_windows")
def test_after_a_hurried_small_snapshot_the_deeper_one_is_asked_for_again() -> None:
    sync = deepening_at(100)
    fallen = [(99.0, 0.0), (98.0, 0.0), (97.0, 1.0)]
    assert SnapshotNeeded(NATIVE, 2, urgent=True) in sync.receive_update(depth_update(101, bids=fallen), LINE)

    assert sync.receive_snapshot(depth_snapshot(101, bids=[(97.0, 1.0), (96.0, 1.0)]), 2) == [
        BookUnchanged(NATIVE, 101),
        SnapshotNeeded(NATIVE, DEEP, urgent=False),
    ]


# A snapshot of fewer than a thousand levels that does not show the end of the side.


def test_beyond_the_edge_of_a_shallow_snapshot_the_book_is_lost_until_it_is_within_again() -> None:
    sync = live_with_window()
    sync.receive_update(depth_update(101, bids=[*falling_to_zero(*range(100, 91, -1))]), LINE)

    left = sync.receive_update(depth_update(102, bids=[(91.0, 0.0), (50.0, 1.0)]), LINE)
    within = sync.receive_update(depth_update(103, bids=[(92.0, 3.0)]), LINE)

    assert left == [
        KnownWindowLeft(NATIVE, shallow=True),
        BookLost(NATIVE, "published levels reach beyond those of a small snapshot"),
    ]
    assert within == [updated(103, bids=[(92.0, 3.0)], asks=[(101.0, 1.0)])]


def test_while_levels_may_be_missing_no_change_is_published() -> None:
    sync = live_with_window()
    remove_bids(sync, *range(100, 90, -1))

    assert sync.update_id is None
    assert list(sync.receive_update(depth_update(111, bids=[(50.0, 1.0)]), LINE)) == []
    assert list(sync.receive_update(depth_update(112, asks=[(101.0, 5.0)]), LINE)) == []
    assert list(line_down(sync, LINE)) == []


@pytest.mark.parametrize("levels", [1, 5, 19, 20])
def test_a_snapshot_of_fewer_levels_than_are_published_is_no_book(levels: int) -> None:
    sync = new_sync(depth=20, limit=levels)
    sync.start()
    bids, asks = falling(*range(100, 100 - levels, -1)), falling(*range(101, 101 + levels))

    events = sync.receive_snapshot(depth_snapshot(100, bids=bids, asks=asks), levels)

    covered = levels == 20
    assert any(isinstance(event, BookUpdated) for event in events) == covered
    assert (KnownWindowLeft(NATIVE, shallow=True) in events) == (not covered)
    assert (sync.update_id == 100) == covered


def test_a_shallow_snapshot_that_shows_the_end_of_its_sides_is_a_book() -> None:
    sync = live_at(100, bids=falling(100.0, 99.0), asks=falling(101.0), depth=20, limit=5)

    assert remove_bids(sync, 100.0, 99.0) == []
    assert sync.update_id == 102


def test_a_larger_snapshot_ends_what_a_shallow_one_did_not_cover() -> None:
    sync = new_sync(depth=3, limit=2, deep=DEEP)
    sync.start()
    uncovered = sync.receive_snapshot(depth_snapshot(100), 2)
    sync.snapshot_requested()

    bids, asks = falling(99.0, 98.0, 97.0), falling(101.0, 102.0, 103.0)
    events = sync.receive_snapshot(depth_snapshot(101, bids=bids, asks=asks), DEEP)

    assert uncovered == [KnownWindowLeft(NATIVE, shallow=True), SnapshotNeeded(NATIVE, DEEP, urgent=True)]
    assert events == [updated(101, bids=bids, asks=asks)]


def test_a_snapshot_with_the_same_levels_makes_a_lost_book_live_again() -> None:
    sync = live_at(100, bids=falling(100.0, 99.0), asks=[(101.0, 1.0)], depth=1, limit=2)
    sync.receive_update(depth_update(101, bids=[(100.0, 0.0), (99.0, 0.0), (50.0, 1.0)]), LINE)
    sync.snapshot_requested()

    events = sync.receive_snapshot(depth_snapshot(101, bids=falling(50.0, 49.0), asks=[(101.0, 1.0)]), 2)

    assert events == [updated(101, bids=falling(50.0), asks=[(101.0, 1.0)])]


def test_a_book_that_publishes_more_levels_than_a_thousand_needs_that_many() -> None:
    sync = new_sync(depth=1_500, limit=1_000)
    sync.start()
    bids = falling(*range(5_000, 4_000, -1))

    events = sync.receive_snapshot(depth_snapshot(100, bids=bids, asks=[(5_001.0, 1.0)]), 1_000)

    assert KnownWindowLeft(NATIVE, shallow=True) in events
    assert sync.update_id is None


def test_a_side_that_is_whole_has_no_window_to_leave() -> None:
    sync = live_at(100, bids=falling(100.0, 99.0), depth=2, limit=10)

    assert remove_bids(sync, 100.0, 99.0) == []


# Several lines, each in order, carry the same updates.


def test_what_both_lines_bring_is_taken_from_the_first() -> None:
    sync = live_at(100, LINE, OTHER_LINE)

    assert sync.receive_update(depth_update(101, bids=[(99.0, 3.0)]), LINE)
    assert list(sync.receive_update(depth_update(101, bids=[(99.0, 3.0)]), OTHER_LINE)) == []
    assert sync.receive_update(depth_update(102), OTHER_LINE) == [BookUnchanged(NATIVE, 102)]
    assert list(sync.receive_update(depth_update(102), LINE)) == []


def test_an_update_that_one_line_lost_is_brought_by_the_other_and_nothing_is_lost() -> None:
    sync = live_at(100, LINE, OTHER_LINE)

    assert list(sync.receive_update(depth_update(102, bids=[(98.0, 7.0)]), LINE)) == []
    assert list(sync.receive_update(depth_update(103, bids=[(99.0, 0.0)]), LINE)) == []
    assert sync.update_id == 100
    events = sync.receive_update(depth_update(101, bids=[(98.0, 1.0)]), OTHER_LINE)

    assert events == [
        updated(101, bids=[(99.0, 1.0), (98.0, 1.0)]),
        updated(102, bids=[(99.0, 1.0), (98.0, 7.0)]),
        updated(103, bids=[(98.0, 7.0)]),
    ]
    assert list(sync.receive_update(depth_update(102, bids=[(98.0, 7.0)]), OTHER_LINE)) == []


def test_a_hole_in_what_bridges_is_filled_by_the_line_that_still_may() -> None:
    sync = new_sync(LINE, OTHER_LINE)
    for update_id in (101, 103):
        sync.receive_update(depth_update(update_id), LINE)

    assert sync.receive_snapshot(depth_snapshot(100), LIMIT) == [updated(101)]
    assert sync.receive_update(depth_update(102), OTHER_LINE) == [
        BookUnchanged(NATIVE, 102),
        BookUnchanged(NATIVE, 103),
    ]


def test_two_losses_on_one_line_are_both_made_good_by_the_other() -> None:
    sync = live_at(100, LINE, OTHER_LINE)
    for update_id in (102, 104, 105):
        assert list(sync.receive_update(depth_update(update_id), LINE)) == []

    assert sync.receive_update(depth_update(101), OTHER_LINE) == [
        BookUnchanged(NATIVE, 101),
        BookUnchanged(NATIVE, 102),
    ]
    assert list(sync.receive_update(depth_update(102), OTHER_LINE)) == []
    assert sync.receive_update(depth_update(103), OTHER_LINE) == [
        BookUnchanged(NATIVE, 103),
        BookUnchanged(NATIVE, 104),
        BookUnchanged(NATIVE, 105),
    ]


def test_what_the_lines_brought_out_of_order_bridges_in_order() -> None:
    sync = new_sync(LINE, OTHER_LINE)
    sync.receive_update(depth_update(103, bids=[(99.0, 3.0)]), LINE)
    sync.receive_update(depth_update(101, bids=[(99.0, 1.0)]), OTHER_LINE)
    sync.receive_update(depth_update(102, bids=[(99.0, 2.0)]), OTHER_LINE)

    assert sync.receive_snapshot(depth_snapshot(100), LIMIT) == [updated(103, bids=[(99.0, 3.0), (98.0, 2.0)])]


def test_a_book_that_crosses_while_catching_up_is_lost_and_stays_lost() -> None:
    sync = live_at(100, LINE, OTHER_LINE)
    sync.receive_update(depth_update(102, bids=[(101.0, 1.0)]), LINE)
    sync.receive_update(depth_update(103, bids=[(101.0, 0.0)]), LINE)

    assert sync.receive_update(depth_update(101), OTHER_LINE) == [
        BookUnchanged(NATIVE, 101),
        BookLost(NATIVE, "bids and asks cross"),
        FIRST_SNAPSHOT_NEEDED,
    ]
    assert sync.update_id is None


def test_an_update_that_every_line_is_past_is_lost() -> None:
    sync = live_at(100, LINE, OTHER_LINE)
    sync.receive_update(depth_update(102), LINE)

    events = sync.receive_update(depth_update(103), OTHER_LINE)

    assert events == [BookLost(NATIVE, "expected update 101, received 103"), FIRST_SNAPSHOT_NEEDED]
    assert sync.receive_snapshot(depth_snapshot(101), LIMIT) == [updated(103)]


def test_nobody_waits_for_ever_for_a_line() -> None:
    sync = live_at(100, LINE, OTHER_LINE)

    events = [event for update_id in range(102, 500) for event in sync.receive_update(depth_update(update_id), LINE)]

    assert events == [BookLost(NATIVE, "expected update 101, received 202"), FIRST_SNAPSHOT_NEEDED]


def test_a_line_that_dies_while_it_is_waited_for_loses_the_book_at_once() -> None:
    sync = live_at(100, LINE, OTHER_LINE)
    sync.receive_update(depth_update(102), LINE)

    assert line_down(sync, OTHER_LINE) == [BookLost(NATIVE, "closed"), FIRST_SNAPSHOT_NEEDED]
    assert sync.receive_snapshot(depth_snapshot(101), LIMIT) == [updated(102)]


def test_a_third_line_is_waited_for_when_one_dies() -> None:
    sync = live_at(100, LINE, OTHER_LINE, THIRD_LINE)
    sync.receive_update(depth_update(102), LINE)

    assert list(line_down(sync, OTHER_LINE)) == []
    assert sync.receive_update(depth_update(101), THIRD_LINE) == [
        BookUnchanged(NATIVE, 101),
        BookUnchanged(NATIVE, 102),
    ]


def test_what_a_dead_line_brought_too_early_still_counts() -> None:
    sync = live_at(100, LINE, OTHER_LINE)
    sync.receive_update(depth_update(102), LINE)

    assert list(line_down(sync, LINE)) == []
    assert sync.receive_update(depth_update(101), OTHER_LINE) == [
        BookUnchanged(NATIVE, 101),
        BookUnchanged(NATIVE, 102),
    ]


def test_a_line_that_dies_beside_a_working_one_changes_nothing() -> None:
    sync = live_at(100, LINE, OTHER_LINE)

    assert list(line_down(sync, LINE)) == []
    assert sync.receive_update(depth_update(101), OTHER_LINE) == [BookUnchanged(NATIVE, 101)]


def test_the_end_of_the_last_line_loses_the_book_and_asks_nothing_yet() -> None:
    sync = live_at(100)

    assert line_down(sync, LINE, "connection reset") == [BookLost(NATIVE, "connection reset")]
    assert sync.update_id is None
    assert list(sync.line_down(OTHER_LINE, "again")) == []


def test_nothing_from_a_lost_connection_is_kept_for_the_next() -> None:
    sync = waiting_with(depth_update(100))
    line_down(sync, LINE)

    assert list(sync.receive_snapshot(depth_snapshot(100), LIMIT)) == []
    sync._lines.add(OTHER_LINE)
    assert sync.start() == [FIRST_SNAPSHOT_NEEDED]
    assert list(sync.receive_update(depth_update(205), OTHER_LINE)) == []
    assert sync.receive_snapshot(depth_snapshot(204), LIMIT) == [updated(205)]


def test_what_waited_for_a_line_is_gone_with_the_last_connection() -> None:
    sync = live_at(100, LINE, OTHER_LINE)
    sync.receive_update(depth_update(105), LINE)
    for line in (LINE, OTHER_LINE):
        line_down(sync, line)

    sync._lines.add(THIRD_LINE)
    sync.start()
    assert sync.receive_snapshot(depth_snapshot(101), LIMIT) == [updated(101)]


def test_a_second_subscription_to_a_live_book_asks_nothing() -> None:
    sync = live_at(100, LINE, OTHER_LINE)

    assert list(sync.start()) == []


def test_a_new_line_ahead_of_the_old_one_waits_for_it() -> None:
    """A planned change of connections: the new one may bring its first update before the old has caught up."""
    sync = live_at(100, LINE, OTHER_LINE)

    assert list(sync.receive_update(depth_update(103), OTHER_LINE)) == []
    assert sync.receive_update(depth_update(101), LINE) == [BookUnchanged(NATIVE, 101)]
    assert sync.receive_update(depth_update(102), LINE) == [BookUnchanged(NATIVE, 102), BookUnchanged(NATIVE, 103)]
    assert list(line_down(sync, LINE)) == []
    assert sync.receive_update(depth_update(104), OTHER_LINE) == [BookUnchanged(NATIVE, 104)]


def test_a_recording_without_lines_loses_the_book_at_the_first_gap() -> None:
    sync = RangeSync(NATIVE, 2, set(), LIMIT, LIMIT)
    sync.start()
    sync.receive_snapshot(depth_snapshot(100), LIMIT)

    assert sync.receive_update(depth_update(102), LINE) == [
        BookLost(NATIVE, "expected update 101, received 102"),
        FIRST_SNAPSHOT_NEEDED,
    ]


def test_a_book_is_behind_while_another_line_may_still_bring_what_is_missing() -> None:
    sync = live_at(100, LINE, OTHER_LINE)
    assert not sync.is_behind

    sync.receive_update(depth_update(102), LINE)
    assert sync.is_behind

    sync.receive_update(depth_update(101), OTHER_LINE)
    assert (sync.update_id, sync.is_behind) == (102, False)
