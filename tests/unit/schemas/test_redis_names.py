"""All Redis names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.schemas.redis_names import BookName, RedisNames

NAMES = RedisNames()
parts = st.text("aZ09-_.* \n\0é币", min_size=1)


def test_names_are_those_of_the_contract() -> None:
    assert NAMES.book("binance", "BTC-USDT") == "md:book:binance:BTC-USDT"
    assert NAMES.quote("binance", "BTC-USDT") == "md:quote:binance:BTC-USDT"
    assert NAMES.trades("upbit", "BTC-KRW") == "md:trades:upbit:BTC-KRW"
    assert NAMES.books == "md:books"
    assert NAMES.feeder("a1") == "md:feeder:a1"
    assert NAMES.feeders == "md:feeders"
    assert NAMES.consumer("c1") == "md:consumer:c1"


def test_prefix_stands_before_every_name() -> None:
    names = RedisNames("paper-2")

    assert names.book("binance", "BTC-USDT") == "paper-2:book:binance:BTC-USDT"
    assert names.books == "paper-2:books"


@pytest.mark.parametrize("prefix", ["", "a b", "a:b", "a*", "{a}", "a?", "[a]", "a\n", "a\\", "md@1"])
def test_prefix_that_redis_or_a_pattern_would_read_otherwise_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="prefix"):
        RedisNames(prefix)


def test_channels_outside_of_database_0_have_its_number() -> None:
    names = RedisNames("md", 3)

    assert names.channel(names.book("binance", "BTC-USDT")) == "md@3:book:binance:BTC-USDT"
    assert names.channel(names.quote("binance", "BTC-USDT")) == "md@3:quote:binance:BTC-USDT"
    assert names.feeders == "md@3:feeders"


def test_channels_of_database_0_have_the_names_of_their_keys() -> None:
    assert NAMES.channel(NAMES.book("binance", "BTC-USDT")) == "md:book:binance:BTC-USDT"


def test_keys_have_the_same_names_in_every_database() -> None:
    names = RedisNames("md", 3)

    assert names.book("binance", "BTC-USDT") == NAMES.book("binance", "BTC-USDT")
    assert (names.books, names.feeder("a")) == ("md:books", "md:feeder:a")


@pytest.mark.parametrize(
    ("url", "database"),
    [
        ("redis://h:1/0", 0),
        ("redis://h:1", 0),
        ("redis://h:1/2", 2),
        ("redis://h?db=4", 4),
        ("unix:///r.sock?db=3", 3),
        ("redis+sentinel://h:1/bus/5", 5),
        ("redis+cluster://h:1", 0),
    ],
)
def test_the_database_is_that_of_the_url(url: str, database: int) -> None:
    assert RedisNames.on(url, "paper") == RedisNames("paper", database)


@given(exchange=parts, symbol=parts)
def test_book_name_tells_its_exchange_and_symbol(exchange: str, symbol: str) -> None:
    assert NAMES.parse_book(NAMES.book(exchange, symbol)) == BookName(exchange, symbol)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "md:book",
        "md:book:",
        "md:book:binance",
        "md:book:binance:",
        "md:book::BTC-USDT",
        "md:quote:binance:BTC-USDT",
        "other:book:binance:BTC-USDT",
        "md:books",
    ],
)
def test_what_is_no_book_of_this_prefix_is_none(name: str) -> None:
    assert NAMES.parse_book(name) is None
