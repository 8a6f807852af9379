"""What a name stands for, before and after the bus has listed its books."""

import pytest

from bookbus.consumers.bus.symbol_names import SymbolNames
from bookbus.schemas.instruments import SymbolError


def test_spelling_decides_until_the_bus_says_more() -> None:
    names = SymbolNames("binance")

    assert names.standard("ABCBTC") == "ABC-BTC"

    names.learn(["ABCB-TC", "BTC-USDT"])

    assert names.standard("ABCBTC") == "ABCB-TC"
    assert names.standard("BTC") == "BTC-USDT"


def test_a_native_name_that_two_books_share_is_left_to_its_spelling() -> None:
    names = SymbolNames("binance")

    names.learn(["A-BUSDT", "AB-USDT"])

    assert names.standard("ABUSDT") == "AB-USDT"
    assert names.standard("A-BUSDT") == "A-BUSDT"


def test_what_is_listed_is_never_forgotten() -> None:
    names = SymbolNames("upbit")
    names.learn(["BTC-KRW"])

    names.learn(["ETH-KRW", "", "odd"])

    assert names.listed == {"BTC-KRW", "ETH-KRW", "", "odd"}
    assert [names.standard(name) for name in ("KRW-BTC", "BTC", "BTC-KRW")] == ["BTC-KRW"] * 3


def test_near_names_are_those_of_the_bus() -> None:
    names = SymbolNames("binance")
    names.learn(["BTC-USDT", "BTC-USDC", "DOGE-EUR"])

    assert names.near("btc-usd") == ["BTC-USDT", "BTC-USDC"]
    assert names.near("xyz") == []


def test_unknown_exchanges_and_impossible_names_are_refused() -> None:
    with pytest.raises(SymbolError, match="unknown exchange"):
        SymbolNames("nowhere")
    with pytest.raises(SymbolError, match="is no symbol"):
        SymbolNames("binance").standard("B T C")


@pytest.mark.parametrize(
    ("name", "symbol"), [("BTCPLN", "BTC-PLN"), ("XRPRLUSD", "XRP-RLUSD"), ("BTCUSD1", "BTC-USD1")]
)
def test_a_name_that_may_be_several_is_no_other_book_until_the_bus_lists_it(name: str, symbol: str) -> None:
    names = SymbolNames("binance")

    assert names.standard(name) == f"{name}-USDT"

    names.learn([symbol])

    assert names.standard(name) == symbol


def test_an_asset_whose_name_looks_like_a_pair_is_found_on_the_bus() -> None:
    names = SymbolNames("binance")
    names.learn(["WBTC-USDT", "RLUSD-USDT"])

    assert [names.standard(name) for name in ("WBTC", "RLUSD")] == ["WBTC-USDT", "RLUSD-USDT"]
