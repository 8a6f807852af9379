"""Books of several exchanges merged into one."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.consumers.multi.consolidation import ConsolidatedBook, VenueLevel, consolidate
from bookbus.consumers.multi.venue_book import VenueBook, conversion
from bookbus.schemas.snapshot import Levels
from tests.support.builders import book
from tests.support.venue_books import level_pairs, venue_book

BINANCE = venue_book("binance", ((100.0, 1.0), (99.0, 2.0)), ((101.0, 1.5), (102.0, 2.5)))
UPBIT = venue_book("upbit", ((100.5, 0.5), (99.0, 3.0)), ((101.5, 0.7), (102.0, 0.1)))


def merged(*venues: VenueBook, max_skew: float = 1.0) -> ConsolidatedBook:
    return consolidate("BTC-USDT", venues, max_skew)


def test_levels_of_all_exchanges_are_in_the_order_of_their_price() -> None:
    book = merged(BINANCE, UPBIT)

    assert book.bids == (
        VenueLevel(100.5, 0.5, "upbit"),
        VenueLevel(100.0, 1.0, "binance"),
        VenueLevel(99.0, 2.0, "binance"),
        VenueLevel(99.0, 3.0, "upbit"),
    )
    assert book.asks == (
        VenueLevel(101.0, 1.5, "binance"),
        VenueLevel(101.5, 0.7, "upbit"),
        VenueLevel(102.0, 2.5, "binance"),
        VenueLevel(102.0, 0.1, "upbit"),
    )
    assert (book.best_bid(), book.best_ask()) == (book.bids[0], book.asks[0])
    assert book.out == {}


def test_one_price_is_one_level_with_the_quantity_of_all() -> None:
    book = merged(BINANCE, UPBIT)

    assert book.bid_levels() == ((100.5, 0.5), (100.0, 1.0), (99.0, 5.0))
    assert book.ask_levels() == ((101.0, 1.5), (101.5, 0.7), (102.0, 2.6))


def test_a_side_ends_where_one_exchange_publishes_no_further() -> None:
    short = venue_book("upbit", ((100.5, 0.5), (99.5, 3.0)), ((101.5, 0.7), (103.0, 0.1)), depth=2)

    book = merged(BINANCE, short)

    assert [level.price for level in book.bids] == [100.5, 100.0, 99.5]
    assert [level.price for level in book.asks] == [101.0, 101.5, 102.0, 103.0]
    assert book.depth == 3
    assert book.ask_levels() == ((101.0, 1.5), (101.5, 0.7), (102.0, 2.5))


def test_fewer_levels_than_the_depth_mean_that_all_books_end_there() -> None:
    book = merged(BINANCE, UPBIT)

    assert book.depth > max(len(book.bid_levels()), len(book.ask_levels()))


def test_an_exchange_with_a_reason_of_its_own_takes_no_part() -> None:
    stale = venue_book("upbit", UPBIT.bids, UPBIT.asks, reason="upbit BTC-KRW is stale: not confirmed for 6.0 s")

    book = merged(BINANCE, stale)

    assert book.out == {"upbit": "upbit BTC-KRW is stale: not confirmed for 6.0 s"}
    assert [part.exchange for part in book.parts] == ["binance"]
    assert (book.bid_levels(), book.ask_levels()) == (BINANCE.bids, BINANCE.asks)


def test_a_book_of_an_earlier_moment_takes_no_part() -> None:
    late = venue_book("upbit", UPBIT.bids, UPBIT.asks, age=1.7)

    assert merged(BINANCE, late).out == {"upbit": "binance and upbit were confirmed 1.6 s apart (limit 1 s)"}


def test_the_limit_itself_is_near_enough() -> None:
    late = venue_book("upbit", UPBIT.bids, UPBIT.asks, age=0.1 + 1.5)

    assert merged(BINANCE, late, max_skew=1.5).out == {}


def test_a_book_of_an_earlier_moment_has_no_say_in_what_the_asset_is_worth() -> None:
    late = venue_book("upbit", ((1.0, 1.0),), ((1.1, 1.0),), age=1.7)

    assert merged(BINANCE, late).out.keys() == {"upbit"}


def test_of_four_that_disagree_evenly_all_stay_out() -> None:
    others = [venue_book(name, ((7.0, 1.0),), ((7.1, 1.0),)) for name in ("bybit", "okx")]

    assert merged(BINANCE, UPBIT, *others).out.keys() == {"binance", "upbit", "bybit", "okx"}


def test_a_book_that_was_never_confirmed_is_of_no_moment() -> None:
    assert merged(BINANCE, venue_book("upbit", UPBIT.bids, UPBIT.asks, age=None)).out.keys() == {"upbit"}


def test_of_two_that_disagree_both_stay_out() -> None:
    other = venue_book("upbit", ((110.8, 1.0),), ((110.9, 1.0),))

    book = merged(BINANCE, other)

    assert book.out == {
        "binance": "mid prices of binance and upbit are 10.3% apart: different asset?",
        "upbit": "mid prices of upbit and binance are 10.3% apart: different asset?",
    }
    assert (book.bids, book.asks, book.best_bid(), book.best_ask()) == ((), (), None, None)


def test_mid_prices_ten_percent_apart_are_still_of_one_asset() -> None:
    one, other = (
        venue_book("binance", ((99.0, 1.0),), ((101.0, 1.0),)),
        venue_book("upbit", ((109.0, 1.0),), ((111.0, 1.0),)),
    )

    assert merged(one, other).out == {}


def test_of_three_the_one_that_disagrees_with_both_others_stays_out() -> None:
    stranger = venue_book("bybit", ((7.0, 1.0),), ((7.1, 1.0),))

    book = merged(BINANCE, stranger, UPBIT)

    assert book.out.keys() == {"bybit"}
    assert book.bids == merged(BINANCE, UPBIT).bids


@pytest.mark.parametrize("venues", [(), (venue_book("binance", (), (), reason="missing"),)])
def test_without_any_part_there_is_no_level(venues: tuple[VenueBook, ...]) -> None:
    book = merged(*venues)

    assert (book.bids, book.asks, book.parts) == ((), (), [])


@given(level_pairs(), level_pairs())
def test_the_order_of_the_exchanges_does_not_matter(one: tuple[Levels, Levels], other: tuple[Levels, Levels]) -> None:
    first, second = venue_book("binance", *one), venue_book("upbit", *other)

    there, back = merged(first, second), merged(second, first)

    assert (there.bid_levels(), there.ask_levels()) == (back.bid_levels(), back.ask_levels())
    assert there.depth == back.depth
    assert there.out.keys() == back.out.keys()


@given(st.lists(level_pairs(), min_size=1, max_size=4), st.integers(1, 12))
def test_every_level_is_some_exchanges_and_none_is_missing(pairs: list[tuple[Levels, Levels]], depth: int) -> None:
    venues = [
        venue_book(f"v{number}", bids[:depth], asks[:depth], depth=depth) for number, (bids, asks) in enumerate(pairs)
    ]

    book = merged(*venues)

    assert book.out == {}
    for side, sign, levels in ((0, -1, book.bid_levels()), (1, 1, book.ask_levels())):
        totals: dict[float, float] = {}
        for pair in pairs:
            for price, quantity in pair[side]:
                totals[price] = totals.get(price, 0.0) + quantity
        whole = tuple(sorted(totals.items(), key=lambda level: sign * level[0]))
        assert levels == whole[: len(levels)]
        assert len(levels) == min(book.depth, len(whole))


@given(level_pairs(), level_pairs())
def test_the_book_is_crossed_only_if_two_exchanges_cross(
    one: tuple[Levels, Levels], other: tuple[Levels, Levels]
) -> None:
    book = merged(venue_book("binance", *one), venue_book("upbit", *other))
    best_bid, best_ask = book.best_bid(), book.best_ask()

    assert best_bid is not None
    assert best_ask is not None
    assert best_bid.price == max(one[0][0][0], other[0][0][0])
    assert best_ask.price == min(one[1][0][0], other[1][0][0])


@given(level_pairs(), level_pairs(), st.integers(130_000, 140_000), st.integers(0, 300))
def test_conversion_never_crosses_books_that_do_not_cross_exactly(
    tether: tuple[Levels, Levels], shape: tuple[Levels, Levels], rate: int, spread: int
) -> None:
    bid, ask = rate / 100, (rate + spread) / 100
    won = tuple(tuple((price * 1350.0, quantity) for price, quantity in side) for side in shape)
    into = conversion(book("USDT-KRW", bids=((bid, 1.0),), asks=((ask, 1.0),)), "USDT")

    consolidated = merged(
        venue_book("binance", *tether), venue_book("upbit", into.bids(won[0]), into.asks(won[1])), max_skew=1.0
    )

    best_bid, best_ask = consolidated.best_bid(), consolidated.best_ask()
    exact_bid = max(Fraction(tether[0][0][0]), Fraction(won[0][0][0]) / Fraction(ask))
    exact_ask = min(Fraction(tether[1][0][0]), Fraction(won[1][0][0]) / Fraction(bid))
    assert best_bid is not None
    assert best_ask is not None
    assert (best_bid.price > best_ask.price) <= (exact_bid > exact_ask)
    assert best_bid.price == float(exact_bid)
    assert best_ask.price == float(exact_ask)
