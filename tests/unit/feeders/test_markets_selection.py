"""What `--symbols` stands for."""

import pytest

from bookbus.feeders.markets import parse_selection
from bookbus.schemas.instruments import EXCHANGES, Instrument, InstrumentRegistry, SymbolError, TradingStatus


def _registry(*listed: tuple[str, str, TradingStatus]) -> InstrumentRegistry:
    return InstrumentRegistry(
        EXCHANGES["binance"],
        [Instrument("binance", base, quote, base + quote, status=status) for base, quote, status in listed],
    )


MARKETS = _registry(
    ("BTC", "USDT", "trading"),
    ("ETH", "USDT", "trading"),
    ("OLD", "USDT", "halted"),
    ("NEW", "USDT", "unknown"),
    ("ETH", "BTC", "trading"),
)
TURNOVER = {"BTCUSDT": 10.0, "ETHUSDT": 30.0, "NEWUSDT": 20.0, "ETHBTC": 1.0}


def _chosen(text: str, registry: InstrumentRegistry = MARKETS) -> list[str]:
    return [instrument.symbol for instrument in parse_selection(text.split(",")).choose(registry, TURNOVER)]


def test_names_are_taken_as_they_are() -> None:
    assert _chosen("BTC,ethbtc") == ["BTC-USDT", "ETH-BTC"]


def test_all_of_a_quote_leaves_out_what_is_halted() -> None:
    assert set(_chosen("all:usdt")) == {"BTC-USDT", "ETH-USDT", "NEW-USDT"}


def test_top_takes_the_greatest_turnover_of_the_home_quote() -> None:
    assert _chosen("top:2") == ["ETH-USDT", "NEW-USDT"]


def test_top_of_another_quote_may_be_fewer_than_asked_for() -> None:
    assert _chosen("top:5:btc") == ["ETH-BTC"]


def test_a_market_selected_twice_is_there_once() -> None:
    assert _chosen("ETH,top:1,all:BTC,ETHBTC") == ["ETH-USDT", "ETH-BTC"]


@pytest.mark.parametrize("word", ["all:", "top:0", "top:x", "top:", "some:USDT", "top:1:BTC:ETH"])
def test_a_rule_that_makes_no_sense_is_refused_with_the_right_ones(word: str) -> None:
    with pytest.raises(SymbolError, match="all:USDT"):
        parse_selection([word])


def test_a_quote_without_markets_is_an_error() -> None:
    with pytest.raises(SymbolError, match="no market in XYZ"):
        _chosen("all:XYZ")


def test_an_unknown_name_is_an_error_with_near_matches() -> None:
    with pytest.raises(SymbolError, match="BTC-USDT"):
        _chosen("BTC-USDX")


def test_only_rules_follow_the_listings() -> None:
    assert not parse_selection(["BTC"]).follows_listings
    assert parse_selection(["BTC", "all:USDT"]).follows_listings
    assert parse_selection(["top:3"]).needs_turnover


def test_what_was_delisted_or_halted_is_gone_unless_it_was_named() -> None:
    selection = parse_selection(["OLD", "all:USDT"])

    assert selection.gone(["BTCUSDT", "OLDUSDT", "GONEUSDT"], MARKETS) == ["GONEUSDT"]
    assert parse_selection(["all:USDT"]).gone(["BTCUSDT", "OLDUSDT"], MARKETS) == ["OLDUSDT"]


def test_a_smaller_turnover_lets_no_market_go() -> None:
    assert parse_selection(["top:1"]).gone(["BTCUSDT"], MARKETS) == []
