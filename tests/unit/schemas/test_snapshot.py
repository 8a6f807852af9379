"""Figures of a snapshot, against examples computed by hand."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot, Side
from tests.support.builders import book

BOOK = book(
    bids=((99.0, 1.0), (98.0, 3.0), (97.0, 10.0)),
    asks=((101.0, 3.0), (102.0, 1.0), (104.0, 10.0)),
)
WITHOUT_BIDS = book(bids=())
WITHOUT_ASKS = book(asks=())


def test_best_prices_are_the_first_of_each_side() -> None:
    assert (BOOK.best_bid(), BOOK.best_ask()) == (99.0, 101.0)


def test_empty_side_has_no_best_price() -> None:
    assert WITHOUT_BIDS.best_bid() is None
    assert WITHOUT_ASKS.best_ask() is None


def test_mid_is_half_way_between_the_best_prices() -> None:
    assert BOOK.mid() == 100.0


def test_spread_is_told_in_hundredths_of_a_percent_of_the_mid() -> None:
    assert BOOK.spread_bps() == 200.0


def test_microprice_leans_to_the_side_that_is_thinner() -> None:
    # (99 x 3 + 101 x 1) / (1 + 3): three are for sale and one is wanted, so the price is nearer to the bid.
    assert BOOK.microprice() == 99.5


@pytest.mark.parametrize("one_sided", [WITHOUT_BIDS, WITHOUT_ASKS])
def test_one_sided_book_has_no_middle_and_no_depth(one_sided: OrderBookSnapshot) -> None:
    assert one_sided.mid() is None
    assert one_sided.spread_bps() is None
    assert one_sided.microprice() is None
    assert one_sided.depth_within(10) is None


@pytest.mark.parametrize(
    ("side", "quantity", "price"),
    [
        ("buy", 3.0, 101.0),
        ("buy", 4.0, (3 * 101 + 102) / 4),
        ("buy", 6.0, (3 * 101 + 102 + 2 * 104) / 6),
        ("sell", 0.5, 99.0),
        ("sell", 2.0, (99 + 98) / 2),
        ("sell", 14.0, (99 + 3 * 98 + 10 * 97) / 14),
    ],
)
def test_vwap_walks_the_other_side(side: Side, quantity: float, price: float) -> None:
    assert BOOK.vwap(side, quantity) == pytest.approx(price, rel=1e-12)


@pytest.mark.parametrize(("side", "quantity"), [("buy", 14.001), ("sell", 14.001)])
def test_vwap_of_more_than_the_levels_hold_is_unknown(side: Side, quantity: float) -> None:
    assert BOOK.vwap(side, quantity) is None


def test_vwap_of_an_empty_side_is_unknown() -> None:
    assert WITHOUT_ASKS.vwap("buy", 1.0) is None


@pytest.mark.parametrize("quantity", [0.0, -1.0, float("nan")])
def test_vwap_of_no_quantity_is_refused(quantity: float) -> None:
    with pytest.raises(ValueError, match="quantity must be above zero"):
        BOOK.vwap("buy", quantity)


@given(st.lists(st.floats(min_value=1e-8, max_value=1e8), min_size=1, max_size=20))
def test_vwap_of_exactly_all_levels_is_known(quantities: list[float]) -> None:
    asks = tuple((100.0 + index, quantity) for index, quantity in enumerate(quantities))

    price = book(asks=asks).vwap("buy", sum(quantities))

    assert price is not None
    assert 100.0 * (1 - 1e-9) <= price <= asks[-1][0] * (1 + 1e-9)


def test_depth_within_sums_the_levels_around_the_mid() -> None:
    # 250 bps of 100 is 97.5 to 102.5.
    assert BOOK.depth_within(250) == (4.0, 4.0)
    assert BOOK.depth_within(50) == (0.0, 0.0)
    assert BOOK.depth_within(1_000) == (14.0, 14.0)


def test_timestamp_is_the_exchange_s_time_in_seconds() -> None:
    assert book(exchange_us=1_700_000_000_250_000).timestamp == 1_700_000_000.25


def test_timestamp_is_the_receipt_where_the_exchange_gives_none() -> None:
    assert book(exchange_us=None, received_us=1_700_000_001_500_000).timestamp == 1_700_000_001.5


def test_snapshot_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        BOOK.seq = 1  # type: ignore[misc]


def test_a_changed_copy_leaves_the_original() -> None:
    changed = msgspec.structs.replace(BOOK, state="suspect")

    assert (changed.state, BOOK.state) == ("suspect", "live")


def test_statuses_are_their_own_text() -> None:
    assert [str(status) for status in BookStatus] == ["live", "suspect", "closed", "stale", "feeder_down", "missing"]
