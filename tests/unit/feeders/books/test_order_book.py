"""Levels of one symbol: absolute quantities, the published top, pruning, and where knowledge ends."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.feeders.books.order_book import MAX_LEVELS, BookSide, DepthChange, OrderBook

DEPTH = 3
PLENTY = 100
"""A limit that no snapshot here reaches: the side is whole."""


def bid_side(*levels: DepthChange, depth: int = DEPTH, limit: int = PLENTY) -> BookSide:
    side = BookSide(1, depth)
    side.replace(levels, limit)
    return side


def ask_side(*levels: DepthChange, depth: int = DEPTH, limit: int = PLENTY) -> BookSide:
    side = BookSide(-1, depth)
    side.replace(levels, limit)
    return side


def book_of(bids: Sequence[DepthChange], asks: Sequence[DepthChange]) -> OrderBook:
    book = OrderBook(DEPTH)
    book.replace(bids, asks, PLENTY)
    return book


def test_bids_stand_highest_first_and_asks_lowest_first_whatever_the_order_they_came_in() -> None:
    levels = ((2.0, 20.0), (1.0, 10.0), (3.0, 30.0))

    assert bid_side(*levels).top == ((3.0, 30.0), (2.0, 20.0), (1.0, 10.0))
    assert ask_side(*levels).top == ((1.0, 10.0), (2.0, 20.0), (3.0, 30.0))


def test_top_holds_the_best_levels_only_and_all_levels_stay_known() -> None:
    side = bid_side((1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0))

    assert side.top == ((4.0, 1.0), (3.0, 1.0), (2.0, 1.0))
    assert side.levels() == ((4.0, 1.0), (3.0, 1.0), (2.0, 1.0), (1.0, 1.0))
    assert len(side) == 4


def test_a_quantity_replaces_the_one_before_and_is_not_added_to_it() -> None:
    side = bid_side((10.0, 5.0))

    touched = side.apply([(10.0, 2.0)])

    assert touched
    assert side.top == ((10.0, 2.0),)


def test_a_quantity_of_zero_removes_the_level_and_the_next_moves_up() -> None:
    side = ask_side((1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, 1.0))

    touched = side.apply([(2.0, 0.0)])

    assert touched
    assert side.top == ((1.0, 1.0), (3.0, 1.0), (4.0, 1.0))


def test_removing_an_unknown_level_changes_nothing() -> None:
    side = bid_side((10.0, 1.0))

    touched = side.apply([(11.0, 0.0), (9.0, 0.0)])

    assert not touched
    assert side.levels() == ((10.0, 1.0),)


def test_a_level_created_and_removed_in_one_update_leaves_nothing_behind() -> None:
    side = bid_side((10.0, 1.0))

    side.apply([(11.0, 1.0), (11.0, 0.0)])

    assert side.levels() == ((10.0, 1.0),)


def test_a_change_below_the_published_levels_does_not_touch_them() -> None:
    side = bid_side((10.0, 1.0), (9.0, 1.0), (8.0, 1.0), (7.0, 1.0))

    touched = side.apply([(7.0, 5.0), (6.0, 1.0), (7.5, 2.0), (7.0, 0.0)])

    assert not touched
    assert side.levels() == ((10.0, 1.0), (9.0, 1.0), (8.0, 1.0), (7.5, 2.0), (6.0, 1.0))


def test_a_change_of_the_last_published_level_touches_them() -> None:
    side = bid_side((10.0, 1.0), (9.0, 1.0), (8.0, 1.0), (7.0, 1.0))

    assert side.apply([(8.0, 5.0)])
    assert side.top[-1] == (8.0, 5.0)


def test_a_short_side_is_touched_by_every_new_level() -> None:
    side = bid_side((10.0, 1.0))

    assert side.apply([(1.0, 1.0)])
    assert side.top == ((10.0, 1.0), (1.0, 1.0))


@pytest.mark.parametrize("spelling", ["0.1", "0.10", "0.10000000", "1E-1"])
def test_a_price_is_one_level_however_it_is_written(spelling: str) -> None:
    side = ask_side((0.1, 1.0))

    side.apply([(float(spelling), 0.0)])

    assert side.levels() == ()


def test_levels_without_quantity_in_a_snapshot_are_no_levels() -> None:
    assert bid_side((10.0, 1.0), (9.0, 0.0)).levels() == ((10.0, 1.0),)
    assert bid_side((10.0, 0.0), limit=1).levels() == ()


def test_a_new_side_is_empty_and_takes_its_first_levels() -> None:
    side = BookSide(-1, DEPTH)

    assert (len(side), side.levels(), side.top, side.nears_edge, side.beyond_edge) == (0, (), (), False, False)
    assert side.apply([(2.0, 1.0), (1.0, 1.0)])
    assert side.top == ((1.0, 1.0), (2.0, 1.0))


def test_replacing_forgets_every_level_before() -> None:
    side = bid_side((10.0, 1.0), (9.0, 1.0))

    side.replace(((5.0, 1.0),), PLENTY)

    assert side.levels() == side.top == ((5.0, 1.0),)


def test_a_top_handed_out_never_changes() -> None:
    side = bid_side((10.0, 1.0))
    before = side.top

    side.apply([(10.0, 2.0), (11.0, 1.0)])

    assert before == ((10.0, 1.0),)


def test_an_empty_book_takes_its_first_levels_and_is_not_crossed() -> None:
    book = book_of((), ())

    assert (book.bids.top, book.asks.top, book.crossed) == ((), (), False)
    assert book.apply([(10.0, 1.0)], [])
    assert (book.bids.top, book.asks.top, book.crossed) == (((10.0, 1.0),), (), False)


def test_a_side_can_be_emptied() -> None:
    book = book_of([(10.0, 1.0)], [(11.0, 1.0)])

    touched = book.apply([], [(11.0, 0.0)])

    assert touched
    assert (book.bids.top, book.asks.top, book.crossed) == (((10.0, 1.0),), (), False)


@pytest.mark.parametrize(("bid", "crossed"), [(10.9, False), (11.0, True), (11.1, True)])
def test_a_best_bid_at_or_above_the_best_ask_crosses(bid: float, crossed: bool) -> None:
    assert book_of([(bid, 1.0)], [(11.0, 1.0)]).crossed is crossed


@pytest.mark.parametrize(
    ("bids", "asks", "touched"),
    [
        ([(10.0, 2.0)], [], True),
        ([], [(11.0, 2.0)], True),
        ([(10.0, 2.0)], [(11.0, 2.0)], True),
        ([(9.5, 0.0)], [(11.5, 0.0)], False),
        ([], [], False),
    ],
)
def test_a_book_is_touched_when_either_side_is(
    bids: Sequence[DepthChange], asks: Sequence[DepthChange], touched: bool
) -> None:
    assert book_of([(10.0, 1.0)], [(11.0, 1.0)]).apply(bids, asks) is touched


# Where knowledge ends.


def descending(best: float, count: int) -> list[DepthChange]:
    return [(best - index, 1.0) for index in range(count)]


def test_pruning_keeps_the_best_levels_wherever_the_snapshot_ended() -> None:
    side = bid_side(*descending(1_000_000.0, 1_000), limit=1_000)

    side.apply(descending(999_000.0, MAX_LEVELS))

    assert side.levels() == tuple(descending(1_000_000.0, MAX_LEVELS))


def test_pruning_does_not_spare_the_levels_of_the_snapshot_when_the_market_has_left_them() -> None:
    side = bid_side(*descending(1_000.0, 100), limit=100)

    side.apply(descending(1_000_000.0, MAX_LEVELS + 200))

    assert side.levels() == tuple(descending(1_000_000.0, MAX_LEVELS))


def test_pruning_waits_until_it_is_worth_it_and_works_on_asks_too() -> None:
    side = ask_side(*[(float(price), 1.0) for price in range(1, MAX_LEVELS + 201)])

    side.apply([(MAX_LEVELS + 201.0, 1.0)])
    assert len(side) == MAX_LEVELS + 201

    side.apply([(MAX_LEVELS + 202.0 + index, 1.0) for index in range(60)])
    assert side.levels() == tuple((float(price), 1.0) for price in range(1, MAX_LEVELS + 1))


def test_a_side_with_fewer_levels_than_asked_for_is_whole_and_has_no_edge() -> None:
    side = bid_side((10.0, 1.0), (9.0, 1.0), depth=5, limit=3)

    side.apply([(10.0, 0.0), (9.0, 0.0)])

    assert not side.nears_edge
    assert not side.beyond_edge


def test_a_side_replaced_by_a_whole_one_has_no_edge_any_more() -> None:
    side = bid_side((10.0, 1.0), (9.0, 1.0), depth=1, limit=2)

    side.replace(((5.0, 1.0),), PLENTY)

    assert side.edge == float("-inf")
    assert (side.nears_edge, side.beyond_edge) == (False, False)


def test_published_levels_near_the_edge_before_they_are_beyond_it() -> None:
    side = bid_side(*descending(100.0, 8), depth=2, limit=8)
    seen = []

    for price in (100.0, 99.0, 98.0, 97.0, 96.0, 95.0, 94.0):
        side.apply([(price, 0.0)])
        seen.append((side.nears_edge, side.beyond_edge))

    # The last level of the snapshot is 93, and 94 the last but a quarter of the six beyond the published two.
    assert seen == [(False, False)] * 5 + [(True, False), (True, True)]


def test_a_short_published_side_is_beyond_the_edge_of_a_side_that_was_not_whole() -> None:
    side = bid_side(*descending(100.0, 4), depth=3, limit=4)

    side.apply([(100.0, 0.0), (99.0, 0.0)])

    assert side.top == ((98.0, 1.0), (97.0, 1.0))
    assert side.beyond_edge


def test_an_emptied_side_that_was_not_whole_is_beyond_its_edge() -> None:
    side = ask_side((1.0, 1.0), (2.0, 1.0), depth=1, limit=2)

    side.apply([(1.0, 0.0), (2.0, 0.0)])

    assert side.top == ()
    assert side.beyond_edge


def test_levels_learnt_beyond_the_edge_do_not_move_it() -> None:
    side = ask_side((1.0, 1.0), (2.0, 1.0), depth=2, limit=2)

    side.apply([(9.0, 1.0), (1.0, 0.0)])

    assert side.top == ((2.0, 1.0), (9.0, 1.0))
    assert side.beyond_edge


def test_what_pruning_dropped_is_no_longer_known() -> None:
    side = bid_side(*descending(10_000.0, MAX_LEVELS), depth=2, limit=MAX_LEVELS + 1)
    assert side.edge == float("-inf")

    side.apply(descending(20_000.0, 300))
    *better, worst = side.levels()
    assert side.edge == worst[0]
    side.apply([(price, 0.0) for price, _ in better])

    assert (side.nears_edge, side.beyond_edge) == (True, True)


def test_a_level_that_pruning_dropped_may_be_told_of_again() -> None:
    side = bid_side(*descending(10_000.0, MAX_LEVELS), limit=MAX_LEVELS + 1)
    dropped = side.levels()[-1][0]
    side.apply(descending(20_000.0, 300))
    kept = side.levels()

    side.apply([(dropped, 0.0)])
    assert side.levels() == kept
    side.apply([(dropped, 1.0)])
    assert side.levels() == (*kept, (dropped, 1.0))


def test_publishing_as_many_levels_as_there_are_to_know_does_not_start_near_the_edge() -> None:
    side = bid_side(*descending(100.0, 10), depth=10, limit=10)

    assert not side.nears_edge


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("count", [1, 31, 32, 33, 34, 80])
def test_a_level_is_found_wherever_it_stands(sign: int, count: int) -> None:
    levels = {float(price): 1.0 for price in range(1, count + 1)}

    for price in (half / 2 for half in range(1, 2 * count + 2)):
        side = BookSide(sign, DEPTH)
        side.replace(list(levels.items()), limit=count + 1)
        for quantity in (2.0, 3.0, 0.0):
            side.apply([(price, quantity)])
            expected = {known: size for known, size in (levels | {price: quantity}).items() if size}
            assert side.levels() == tuple(sorted(expected.items(), reverse=sign > 0))


# Against a dict and a sort, for every input.

PRICES = st.integers(1, 30).map(float)
CHANGES = st.lists(st.tuples(PRICES, st.sampled_from([0.0, 0.0, 1.0, 2.0, 3.0])), max_size=12)


@given(
    sign=st.sampled_from([1, -1]),
    depth=st.integers(1, 8),
    start=st.dictionaries(PRICES, st.sampled_from([1.0, 2.0])),
    updates=st.lists(CHANGES, max_size=8),
)
def test_top_always_equals_a_sorted_reference_and_touched_tells_of_every_change(
    sign: int, depth: int, start: dict[float, float], updates: list[list[DepthChange]]
) -> None:
    side = BookSide(sign, depth)
    side.replace(list(start.items()), PLENTY)
    reference = dict(start)

    for changes in updates:
        before = side.top
        touched = side.apply(changes)
        reference.update(changes)
        reference = {price: quantity for price, quantity in reference.items() if quantity}
        expected = tuple(sorted(reference.items(), reverse=sign > 0))

        assert side.levels() == expected
        assert side.top == expected[:depth]
        assert touched or side.top == before


@given(
    limit=st.integers(1, 12),
    depth=st.integers(1, 4),
    truth=st.dictionaries(PRICES, st.sampled_from([1.0, 2.0])),
    updates=st.lists(CHANGES, max_size=8),
)
def test_published_levels_not_beyond_the_edge_are_the_best_there_are(
    limit: int, depth: int, truth: dict[float, float], updates: list[list[DepthChange]]
) -> None:
    side = BookSide(1, depth)
    side.replace(sorted(truth.items(), reverse=True)[:limit], limit)

    for changes in updates:
        side.apply(changes)
        truth.update(changes)

        if not side.beyond_edge:
            levels = sorted(((price, quantity) for price, quantity in truth.items() if quantity), reverse=True)
            assert side.top == tuple(levels[:depth])
