"""The simulated Upbit's numbers and requests."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.feeders.simulator.upbit.exchange import UpbitSimulator
from bookbus.feeders.simulator.upbit.messages import (
    Form,
    Listing,
    RequestError,
    Subscription,
    TypeRequest,
    book_frame,
    double,
    grouped_book,
    parse_request,
    plain,
    split_code,
)


@pytest.mark.parametrize(
    ("units", "decimals", "as_double", "as_plain"),
    [
        (116_539_000, 0, "1.16539E8", "116539000"),
        (79_276, 8, "7.9276E-4", "0.00079276"),
        (304_000, 2, "3040.0", "3040"),
        (414, 1, "41.4", "41.4"),
        (9_999_999, 0, "9999999.0", "9999999"),
        (10_000_000, 0, "1.0E7", "10000000"),
        (100_000, 8, "0.001", "0.001"),
        (99_999, 8, "9.9999E-4", "0.00099999"),
        (0, 8, "0.0", "0"),
    ],
)
def test_numbers_are_spelled_in_two_ways(units: int, decimals: int, as_double: str, as_plain: str) -> None:
    assert (double(units, decimals), plain(units, decimals)) == (as_double, as_plain)


@given(units=st.integers(0, 10**14), decimals=st.integers(0, 8))
def test_both_spellings_are_the_same_number(units: int, decimals: int) -> None:
    number = units / 10**decimals

    assert json.loads(double(units, decimals)) == json.loads(plain(units, decimals)) == number


def test_a_market_that_was_prepared_shows_the_same_books_on_the_way_back() -> None:
    upbit = UpbitSimulator(("KRW-BTC",), levels=120, prepared=0.3, changes=3)
    market = upbit._markets["KRW-BTC"]
    shown = [(market.book.bids, market.book.asks)]
    texts = [market.texts]
    for slot in range(1, 13):
        market.flush(market.update_id + 100 * slot)
        shown.append((market.book.bids, market.book.asks))
        texts.append(market.texts)

    there, back = shown[:4], shown[3:7]
    assert there == back[::-1]
    assert shown[6:10] == there
    assert len({id(written) for written in texts}) == 4


def test_the_text_of_a_book_is_written_once_for_each_form() -> None:
    upbit = UpbitSimulator(("KRW-BTC",), levels=120)
    market = upbit._markets["KRW-BTC"]
    short, listed = Form(short=True, listed=False), Form(short=True, listed=True)

    text = book_frame(market, short, 5, 0, "REALTIME")

    assert book_frame(market, listed, 5, 0, "REALTIME") == f"[{text}]"
    assert len(market.texts) == 1


def test_grouped_prices_never_cross() -> None:
    book = UpbitSimulator(("KRW-BTC",), levels=120)._markets["KRW-BTC"].book

    for factor in (10, 100, 1000):
        bids, asks = grouped_book(book, factor, 30)
        assert bids[0][0] < asks[0][0]
        assert all(ticks % factor == 0 for ticks, _ in (*bids, *asks))
        assert [ticks for ticks, _ in bids] == sorted({ticks for ticks, _ in bids}, reverse=True)


@pytest.mark.parametrize(
    ("code", "market"), [("KRW-BTC", ("KRW-BTC", 30)), ("KRW-BTC.5", ("KRW-BTC", 5)), ("KRW-BTC.x", ("KRW-BTC", 30))]
)
def test_a_code_may_name_its_levels(code: str, market: tuple[str, int]) -> None:
    assert split_code(code) == market


def test_a_request_may_come_in_any_order() -> None:
    parts = [{"format": "SIMPLE_LIST"}, {"type": "orderbook", "codes": ["KRW-BTC"]}, {"ticket": "t"}]

    assert parse_request(json.dumps(parts)) == Subscription(
        (TypeRequest("orderbook", ("KRW-BTC",), 0.0, snapshot=True, realtime=True),), Form(short=True, listed=True)
    )
    assert parse_request('[{"ticket":"t"},{"method":"LIST_SUBSCRIPTIONS"}]') == Listing(
        "t", Form(short=False, listed=False)
    )


@given(st.text() | st.binary())
def test_any_message_has_an_answer(message: str | bytes) -> None:
    with suppress(RequestError):
        parse_request(message)
