"""The true age of live books, and when a book counts as too old."""

import pytest

from bookbus.schemas.snapshot import Levels
from tests.support.true_age import TrueAges

SECOND = 1_000_000
TIMELINE = [(number * SECOND, 100 + number) for number in range(1, 21)]
"""The update id rises by one each second."""

Sides = tuple[Levels, Levels]


def sides(update_id: int) -> Sides:
    """Levels that differ from those at any other id."""
    return ((float(update_id), 1.0),), ()


def ages_of(*looks: tuple[int, int | None]) -> TrueAges:
    """Each look is a time in seconds and the update id that the reader calls live then."""
    now = [0]
    ages = TrueAges(limit=5.0, clock_us=lambda: now[0])
    for seconds, update_id in looks:
        now[0] = seconds * SECOND
        ages.see("BTCUSDT", update_id)
    return ages


def judged(ages: TrueAges, timeline: list[tuple[int, int]] = TIMELINE, levels: object = sides) -> TrueAges:
    for seen in ages.take().values():
        ages.judge(seen, timeline, levels)  # type: ignore[arg-type]
    return ages


def test_the_age_counts_from_the_next_book_of_the_exchange() -> None:
    ages = judged(ages_of((3, 103), (6, 103)))

    assert (ages.oldest, ages.stale) == (2.0, [])


def test_a_book_that_is_live_for_too_long_beside_newer_ones_is_stale() -> None:
    ages = judged(ages_of((3, 103), (10, 103)))

    assert ages.stale == ["BTCUSDT at 103 was live 6.0 s after the exchange's changed"]


def test_a_book_that_was_replaced_or_no_longer_live_in_time_is_not() -> None:
    assert judged(ages_of((3, 103), (8, 103), (15, 115))).stale == []
    assert judged(ages_of((3, 103), (8, 103), (15, None), (20, None))).stale == []


def test_a_book_that_comes_back_as_live_is_judged_again() -> None:
    assert judged(ages_of((3, 103), (4, None), (15, 103))).oldest == 11.0


def test_the_newest_book_of_a_quiet_exchange_is_never_too_old() -> None:
    ages = judged(ages_of((20, 120), (900, 120)))

    assert (ages.judged, ages.oldest, ages.stale) == (1, 0.0, [])


def test_books_with_the_same_published_levels_are_the_same_book() -> None:
    same = judged(ages_of((3, 103), (15, 103)), levels=lambda _: sides(0))
    later = judged(ages_of((3, 103), (15, 103)), levels=lambda update_id: sides(update_id >= 108))

    assert same.stale == []
    assert (later.oldest, len(later.stale)) == (7.0, 1)


def test_lower_ids_after_a_restart_of_the_exchange_are_newer_books() -> None:
    restarted = [*TIMELINE, (21 * SECOND, 5), (22 * SECOND, 6)]

    assert judged(ages_of((20, 120), (30, 120)), restarted).oldest == 9.0
    assert judged(ages_of((22, 6), (60, 6)), restarted).oldest == 0.0


@pytest.mark.parametrize(("update_id", "oldest"), [(1035, 2.0), (1, 9.0)])
def test_an_id_that_is_not_on_the_timeline_lies_between_two_or_before_all(update_id: int, oldest: float) -> None:
    tens = [(at, 10 * known) for at, known in TIMELINE]

    assert judged(ages_of((6, update_id) if oldest == 2.0 else (10, update_id)), tens).oldest == oldest


def test_what_was_judged_is_not_judged_again_until_it_is_seen_again() -> None:
    ages = judged(ages_of((3, 103), (4, 104), (5, 105)))
    before = ages.judged

    assert before == 3
    assert judged(ages).judged == before + 1  # what is still live


def test_the_first_book_after_the_ids_fell_counts_from_the_next_one() -> None:
    timeline = [*TIMELINE[:10], *((number * SECOND, number - 9) for number in range(11, 21))]

    assert judged(ages_of((10, 1), (11, 1)), timeline).oldest == 0.0
    assert judged(ages_of((10, 1), (13, 1)), timeline).oldest == 2.0
    assert judged(ages_of((10, 1), (18, 1)), timeline).stale == [
        "BTCUSDT at 1 was live 7.0 s after the exchange's changed"
    ]
