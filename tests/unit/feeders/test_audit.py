"""A book of ours against the exchange's answer at the same id, level by level."""

import pytest

from bookbus.feeders.audit import compare
from bookbus.feeders.books.history import RecordedBook
from bookbus.schemas.heartbeat import SymbolAudit
from bookbus.schemas.snapshot import Levels
from tests.support.depth import Depth, depth_snapshot

INFINITE = float("inf")
BIDS: Levels = ((99.0, 1.0), (98.0, 2.0), (97.0, 3.0))
ASKS: Levels = ((101.0, 1.0), (102.0, 2.0))
LIMIT = 100


def ours(
    bids: Levels = BIDS, asks: Levels = ASKS, bid_edge: float = -INFINITE, ask_edge: float = INFINITE
) -> RecordedBook:
    return RecordedBook(dict(bids), dict(asks), bid_edge, ask_edge)


def theirs(bids: Levels = BIDS, asks: Levels = ASKS) -> Depth:
    return depth_snapshot(7, bids, asks)


def different(levels: int = 5, ghosts: int = 0, missing: int = 0, wrong: int = 0) -> SymbolAudit:
    return SymbolAudit(mismatched=1, levels=levels, ghosts=ghosts, missing=missing, wrong=wrong)


def test_equal_books_match_with_every_level_counted() -> None:
    assert compare(ours(), theirs(), LIMIT) == SymbolAudit(matched=1, levels=5)


@pytest.mark.parametrize(
    "book", [ours(bids=(*BIDS, (98.5, 1.0))), ours(asks=((101.5, 1.0), *ASKS))], ids=["bid", "ask"]
)
def test_a_level_of_ours_that_the_exchange_does_not_have_is_a_ghost(book: RecordedBook) -> None:
    assert compare(book, theirs(), LIMIT) == different(levels=6, ghosts=1)


@pytest.mark.parametrize("book", [ours(bids=BIDS[1:]), ours(asks=ASKS[:1])], ids=["bid", "ask"])
def test_a_level_of_the_exchange_that_we_do_not_have_is_missing(book: RecordedBook) -> None:
    assert compare(book, theirs(), LIMIT) == different(missing=1)


def test_another_quantity_is_wrong() -> None:
    assert compare(ours(bids=((99.0, 1.5), *BIDS[1:])), theirs(), LIMIT) == different(wrong=1)


def test_another_price_is_a_ghost_and_a_missing_level() -> None:
    assert compare(ours(asks=((101.25, 1.0), ASKS[1])), theirs(), LIMIT) == different(levels=6, ghosts=1, missing=1)


def test_levels_beyond_a_full_answer_are_not_compared() -> None:
    deeper = ours(bids=(*BIDS, (96.0, 1.0)), asks=(*ASKS, (103.0, 1.0), (104.0, 1.0)))

    assert compare(deeper, theirs(asks=(*ASKS, (103.0, 1.0))), limit=3) == SymbolAudit(matched=1, levels=6)


def test_an_answer_that_is_not_full_has_all_there_is() -> None:
    assert compare(ours(bids=(*BIDS, (1.0, 1.0))), theirs(), LIMIT) == different(levels=6, ghosts=1)


def test_levels_beyond_what_we_know_are_not_missing() -> None:
    book = ours(bids=BIDS[:2], asks=ASKS[:1], bid_edge=98.0, ask_edge=101.0)

    assert compare(book, theirs(), LIMIT) == SymbolAudit(matched=1, levels=3)


def test_the_edge_itself_is_known() -> None:
    book = ours(bids=BIDS[:1], bid_edge=98.0)

    assert compare(book, theirs(), LIMIT) == different(levels=4, missing=1)


def test_empty_sides_are_equal() -> None:
    assert compare(ours((), ()), theirs((), ()), LIMIT) == SymbolAudit(matched=1)


def test_an_empty_side_of_theirs_makes_all_of_ours_ghosts() -> None:
    assert compare(ours(), theirs(bids=()), LIMIT) == different(ghosts=3)
