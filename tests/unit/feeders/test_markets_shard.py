"""`--shard 2/5`: several feeders share one exchange's symbols."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.feeders.markets import Shard, parse_selection, parse_shard
from bookbus.schemas.instruments import EXCHANGES, Instrument, InstrumentRegistry

BASES = [f"{first}{second}" for first in "ABCDEFGHIJ" for second in "KLMNOPQRST"]
MARKETS = InstrumentRegistry(
    EXCHANGES["binance"], [Instrument("binance", base, "USDT", f"{base}USDT", status="trading") for base in BASES]
)


@given(native=st.text(min_size=1), count=st.integers(1, 50))
def test_every_symbol_is_in_exactly_one_shard(native: str, count: int) -> None:
    assert sum(Shard(number, count).has(native) for number in range(1, count + 1)) == 1


def test_the_shards_of_a_selection_are_all_of_it_and_share_nothing() -> None:
    selection = parse_selection(["all:USDT"])

    parts = [
        {instrument.native for instrument in replace(selection, shard=Shard(number, 5)).choose(MARKETS, {})}
        for number in range(1, 6)
    ]

    assert sum(map(len, parts)) == len(set().union(*parts)) == len(BASES)
    assert min(map(len, parts)) > 0


def test_a_symbol_is_in_the_same_shard_in_every_process_and_release() -> None:
    natives = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")

    assert [next(number for number in range(1, 6) if Shard(number, 5).has(native)) for native in natives] == [
        3,
        4,
        1,
        3,
    ]


def test_without_a_shard_everything_is_chosen() -> None:
    assert len(parse_selection(["all:USDT"]).choose(MARKETS, {})) == len(BASES)


@pytest.mark.parametrize("text", ["0/5", "6/5", "2", "2/", "/5", "-1/5", "2/5/6", "a/b", "", "1/0", "2 / 5"])
def test_what_names_no_shard_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write 2/5"):
        parse_shard(text)


def test_a_shard_is_read_as_it_is_written() -> None:
    assert parse_shard("2/5") == Shard(2, 5)
    assert str(Shard(2, 5)) == "2/5"
