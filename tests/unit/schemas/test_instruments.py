"""Names of instruments: native, standard and alias, with and without the exchange's own list."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.schemas.instruments import (
    EXACT_DIGITS,
    EXCHANGES,
    OFFLINE_QUOTES,
    Exchange,
    Instrument,
    InstrumentRegistry,
    SymbolError,
    UncertainSymbolError,
    UnknownSymbolError,
    exchange_of,
    guess_instrument,
    significant_digits,
    split_native,
)

BINANCE = exchange_of("binance")
UPBIT = exchange_of("upbit")


def binance(base: str, quote: str) -> Instrument:
    return Instrument("binance", base, quote, base + quote)


def upbit(base: str, quote: str) -> Instrument:
    return Instrument("upbit", base, quote, f"{quote}-{base}")


LISTED = InstrumentRegistry(
    BINANCE,
    [
        binance("BTC", "USDT"),
        binance("ETH", "USDT"),
        binance("币安人生", "USDT"),
        binance("ETH", "BTC"),
        binance("WBTC", "BTC"),
    ],
)
LISTED_ON_UPBIT = InstrumentRegistry(UPBIT, [upbit("BTC", "KRW"), upbit("BTC", "USDT"), upbit("ETH", "BTC")])
OFFLINE = InstrumentRegistry(BINANCE, offline=True)

assets = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=1, max_size=10) | st.sampled_from(
    [*OFFLINE_QUOTES, "WBTC", "RENBTC", "1000SATS", "币安人生"]
)
pairs = st.tuples(assets, st.sampled_from(OFFLINE_QUOTES)).filter(lambda pair: pair[0] != pair[1])
# As in exchangeInfo: a native name is listed once.
exchange_lists = st.lists(pairs, max_size=60, unique_by=lambda pair: pair[0] + pair[1]).map(
    lambda listed: [binance(base, quote) for base, quote in listed]
)


@given(exchange_lists)
def test_native_and_standard_symbol_map_one_to_one(listed: list[Instrument]) -> None:
    registry = InstrumentRegistry(BINANCE, listed)

    assert len(registry) == len(listed)
    assert {instrument.symbol for instrument in registry.all()} == {instrument.symbol for instrument in listed}
    for instrument in listed:
        assert registry.by_native(instrument.native) is instrument
        assert registry.resolve(instrument.symbol) is instrument
        assert (instrument.base, instrument.quote) == tuple(instrument.symbol.split("-"))


@given(exchange_lists)
def test_native_name_is_its_instrument_or_refused_as_ambiguous(listed: list[Instrument]) -> None:
    registry = InstrumentRegistry(BINANCE, listed)

    for instrument in listed:
        try:
            assert registry.resolve(instrument.native) is instrument
        except SymbolError as error:
            assert "ambiguous" in str(error)  # noqa: PT017 - either outcome is right
            assert (instrument.native, "USDT") in {(other.base, other.quote) for other in listed}


@pytest.mark.parametrize("name", ["BTC-USDT", "BTCUSDT", "BTC", "btc", " btc-usdt "])
def test_standard_native_and_bare_name_are_one_instrument(name: str) -> None:
    assert LISTED.resolve(name).symbol == "BTC-USDT"


@pytest.mark.parametrize("name", ["BTC-KRW", "KRW-BTC", "BTC"])
def test_upbit_writes_the_quote_first_and_is_at_home_in_won(name: str) -> None:
    assert LISTED_ON_UPBIT.resolve(name).native == "KRW-BTC"


def test_two_upbit_markets_of_one_base_stay_apart() -> None:
    assert LISTED_ON_UPBIT.resolve("USDT-BTC").symbol == "BTC-USDT"
    assert LISTED_ON_UPBIT.resolve("KRW-BTC").symbol == "BTC-KRW"


def test_base_that_ends_like_a_quote_asset_is_not_split_where_the_list_is_known() -> None:
    assert LISTED.resolve("WBTCBTC").symbol == "WBTC-BTC"


def test_name_outside_ascii_is_resolved() -> None:
    assert LISTED.resolve("币安人生USDT").symbol == "币安人生-USDT"


def test_native_name_in_small_letters_is_found() -> None:
    registry = InstrumentRegistry(BINANCE, [Instrument("binance", "aBTC", "USDT", "aBTCUSDT")])

    assert registry.by_native("aBTCUSDT") == registry.all()[0]


def test_unknown_native_name_is_none() -> None:
    assert LISTED.by_native("XYZUSDT") is None


def test_unknown_name_lists_near_matches() -> None:
    with pytest.raises(SymbolError, match=r"unknown symbol 'BTCUSD' on binance; did you mean BTCUSDT, BTC-USDT"):
        LISTED.resolve("BTCUSD")


def test_unknown_name_with_nothing_near_is_refused_plainly() -> None:
    with pytest.raises(SymbolError, match=r"^unknown symbol 'QQQQQQQQQ' on binance$"):
        LISTED.resolve("QQQQQQQQQ")


def test_bare_base_without_a_market_in_the_home_quote_is_refused() -> None:
    with pytest.raises(SymbolError, match="unknown symbol 'WBTC'"):
        LISTED.resolve("WBTC")


def test_name_that_is_a_market_and_a_bare_base_is_ambiguous() -> None:
    registry = InstrumentRegistry(BINANCE, [binance("ETH", "BTC"), binance("ETHBTC", "USDT")])

    with pytest.raises(SymbolError, match="'ETHBTC' is ambiguous on binance: ETH-BTC or ETHBTC-USDT"):
        registry.resolve("ETHBTC")


def test_two_instruments_of_one_native_name_are_refused() -> None:
    with pytest.raises(SymbolError, match="ABC is the name of both"):
        InstrumentRegistry(BINANCE, [binance("A", "BC"), binance("AB", "C")])


def test_the_same_instrument_may_be_listed_twice() -> None:
    assert len(InstrumentRegistry(BINANCE, [binance("A", "BC"), binance("A", "BC")])) == 1


def test_unknown_exchange_lists_the_known_ones() -> None:
    with pytest.raises(SymbolError, match="unknown exchange 'binance-us'; known: binance, upbit, bybit"):
        exchange_of("binance-us")


@pytest.mark.parametrize(
    ("native", "symbol"),
    [
        ("BTCUSDT", "BTC-USDT"),
        ("BTCAUD", "BTC-AUD"),
        ("AXSBNB", "AXS-BNB"),
        ("RENBTCETH", "RENBTC-ETH"),
        ("FDUSDUSDT", "FDUSD-USDT"),
        ("USDCUSDT", "USDC-USDT"),
        ("BTCFDUSD", "BTC-FDUSD"),
        ("BTCBUSD", "BTC-BUSD"),
        ("BTCTUSD", "BTC-TUSD"),
        ("BTCUSD", "BTC-USD"),
        ("ETHDAI", "ETH-DAI"),
        ("1000SATSTRY", "1000SATS-TRY"),
        ("币安人生USDT", "币安人生-USDT"),
    ],
)
def test_concatenated_name_is_split_at_the_longest_known_quote(native: str, symbol: str) -> None:
    guessed = guess_instrument(BINANCE, native)

    assert (guessed.symbol, guessed.native) == (symbol, native)


@pytest.mark.parametrize("name", ["BTC", "BTC-USDT", "btcusdt", "ETH-BTC", "SOL"])
def test_offline_name_leads_to_a_native_name_that_leads_back(name: str) -> None:
    instrument = OFFLINE.resolve(name)

    assert OFFLINE.resolve(instrument.native) == instrument
    assert OFFLINE.resolve(instrument.symbol) == instrument


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("KRW-BTC", "BTC-KRW"),
        ("BTC-KRW", "BTC-KRW"),
        ("USDT-BTC", "BTC-USDT"),
        ("BTC-USDT", "BTC-USDT"),
        ("BTC-ETH", "ETH-BTC"),
        ("ETH-BTC", "ETH-BTC"),
        ("KRW-USDT", "USDT-KRW"),
        ("BTC", "BTC-KRW"),
        ("USDT", "USDT-KRW"),
    ],
)
def test_upbit_name_is_read_in_either_order(name: str, symbol: str) -> None:
    assert guess_instrument(UPBIT, name).symbol == symbol


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "-", "BTC-", "-USDT", "USDT-USDT", "BTC-USDT-PERP", "BTC:USDT", "B TC", "!!", "BTC?", "B*C"),
        *("BTC/", "/USDT", "/", "BTC//USDT", "BTC/USDT/X", "BTC/USDT:USDT", "USDT/USDT", "BTC-/USDT", "../BTC"),
        *("BTC_USDT", ".", "BTC-.", "A" * 40),
    ],
)
@pytest.mark.parametrize("exchange", EXCHANGES.values(), ids=list(EXCHANGES))
def test_what_cannot_be_a_symbol_is_refused_with_an_example(exchange: Exchange, name: str) -> None:
    example = f"write it like BTC, BTC-{exchange.home_quote}"

    with pytest.raises(SymbolError, match=f"is no symbol of {exchange.id}; {example}"):
        guess_instrument(exchange, name)


def test_home_quote_alone_is_no_symbol() -> None:
    with pytest.raises(SymbolError):
        guess_instrument(BINANCE, "USDT")


@given(pairs)
def test_standard_symbol_is_read_as_written(pair: tuple[str, str]) -> None:
    base, quote = pair

    assert guess_instrument(BINANCE, f"{base}-{quote}").symbol == f"{base}-{quote}"


def test_listed_instruments_win_over_guessing() -> None:
    registry = InstrumentRegistry(BINANCE, [binance("WBTC", "BTC"), binance("WBTC", "USDT")], offline=True)

    assert registry.resolve("WBTC").symbol == "WBTC-USDT"
    assert registry.resolve("SOLUSDC").symbol == "SOL-USDC"


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("0", 0),
        ("0.000", 0),
        ("1", 1),
        ("100000.00", 1),
        ("0.00077720", 4),
        ("65000.01000000", 7),
        ("1.16539E8", 6),
        ("7.9276e-4", 5),
        ("-12.5", 3),
        ("123456789.123456", 15),
        ("1234567890.123456", 16),
        ("0.1234567890123456789", 19),
    ],
)
def test_significant_digits_are_those_between_the_zeros(text: str, digits: int) -> None:
    assert significant_digits(text) == digits


@given(st.decimals(min_value="0.00000001", max_value="999999999999999", allow_nan=False, places=8))
def test_decimal_of_few_enough_digits_is_exact_in_float64(number: Decimal) -> None:
    text = f"{number:f}"

    if significant_digits(text) <= EXACT_DIGITS:
        assert Decimal(repr(float(text))) == number


@pytest.mark.parametrize(
    ("exchange", "name", "symbol", "native"),
    [
        ("binance", "BTC/USDT", "BTC-USDT", "BTCUSDT"),
        ("binance", " eth/btc ", "ETH-BTC", "ETHBTC"),
        ("binance", "币安人生/USDT", "币安人生-USDT", "币安人生USDT"),
        ("bybit", "SOL/USDC", "SOL-USDC", "SOLUSDC"),
        ("upbit", "BTC/KRW", "BTC-KRW", "KRW-BTC"),
        ("upbit", "BTC/USDT", "BTC-USDT", "USDT-BTC"),
        ("upbit", "KRW/BTC", "KRW-BTC", "BTC-KRW"),
    ],
)
def test_a_pair_with_a_slash_is_base_and_quote(exchange: str, name: str, symbol: str, native: str) -> None:
    found = InstrumentRegistry(exchange_of(exchange), offline=True).resolve(name)

    assert (found.symbol, found.native) == (symbol, native)


def test_a_pair_with_a_slash_is_found_in_the_list() -> None:
    assert LISTED.resolve("BTC/USDT") == binance("BTC", "USDT")
    assert LISTED_ON_UPBIT.resolve("BTC/KRW") == upbit("BTC", "KRW")
    with pytest.raises(SymbolError, match="unknown symbol 'KRW/BTC' on upbit"):
        LISTED_ON_UPBIT.resolve("KRW/BTC")
    with pytest.raises(SymbolError, match="unknown symbol 'BTC/USDC' on binance; did you mean BTC-USDT"):
        LISTED.resolve("BTC/USDC")


@pytest.mark.parametrize("name", ["BTC_USDT", "BTC-USDT!", "BTC/USDT:USDT"])
def test_what_cannot_be_a_symbol_names_near_ones_of_the_list(name: str) -> None:
    registry = InstrumentRegistry(BINANCE, LISTED.all(), offline=True)

    with pytest.raises(SymbolError, match=r"is no symbol of binance; .*; did you mean BTC-?USDT"):
        registry.resolve(name)


@pytest.mark.parametrize(
    ("native", "symbol"),
    [
        ("BTCUSDT", "BTC-USDT"),
        ("ETHBTC", "ETH-BTC"),
        ("RENBTCETH", "RENBTC-ETH"),
        ("USD1USDT", "USD1-USDT"),
        ("RLUSDUSDT", "RLUSD-USDT"),
        ("XRPFDUSD", "XRP-FDUSD"),
        ("SOLBUSD", "SOL-BUSD"),
        ("ADAEUR", "ADA-EUR"),
    ],
)
def test_a_symbol_of_the_exchange_is_split_where_one_quote_asset_fits(native: str, symbol: str) -> None:
    assert split_native(BINANCE, native) == replace(binance(*symbol.split("-")), native=native)


@pytest.mark.parametrize(
    "native",
    [
        *("BTCPLN", "USDTPLN", "BTCUSD1", "XRPRLUSD", "BTCAEUR", "BTCEURI", "BTCU", "ABUSD", "CAKETUSD", "BNBUSD"),
        *("USDTUSD", "BTC", "币安人生"),
    ],
)
def test_a_symbol_of_the_exchange_that_may_be_several_is_refused(native: str) -> None:
    with pytest.raises(UncertainSymbolError, match="which part of it is the quote asset; write it like BTC-USDT"):
        split_native(BINANCE, native)
    with pytest.raises(UncertainSymbolError):
        InstrumentRegistry(BINANCE, offline=True).named(native)


@pytest.mark.parametrize("name", ["BTCPLN", "BTCUSD1", "XRPRLUSD", "BTCPLNUSD", "ABUSD", "WBTC", "WBETH", "RLUSD"])
def test_a_name_that_may_be_a_pair_or_an_asset_is_refused(name: str) -> None:
    with pytest.raises(UncertainSymbolError, match="write it like BTC-USDT"):
        guess_instrument(BINANCE, name)


@pytest.mark.parametrize("name", ["BTC-PLN", "btc/usd1", "XRP-RLUSD", "USD1-USDT", "BTC-U", "WBTC-BTC"])
def test_a_standard_name_is_kept_and_known_by_the_exchanges_symbol_too(name: str) -> None:
    registry = InstrumentRegistry(BINANCE, offline=True)
    standard = name.upper().replace("/", "-")

    instrument = registry.resolve(name)

    assert (instrument.symbol, instrument.native) == (standard, standard.replace("-", ""))
    assert registry.learn([instrument]) == {}
    assert registry.named(instrument.native) == registry.resolve(instrument.native) == instrument


def test_a_name_does_not_change_when_a_list_comes_later() -> None:
    registry = InstrumentRegistry(BINANCE, [binance("BTC", "PLN")], offline=True)

    rejected = registry.learn([binance("BTCP", "LN"), replace(binance("BTC", "PLN"), tick=0.1)])

    assert rejected == {"BTCPLN": "BTCPLN is the name of both BTC-PLN and BTCP-LN"}
    assert registry.named("BTCPLN") == replace(binance("BTC", "PLN"), tick=0.1)


def test_without_a_list_a_registry_with_one_refuses_other_names() -> None:
    with pytest.raises(UnknownSymbolError, match="unknown symbol 'BTCPLN' on binance"):
        LISTED.named("BTCPLN")
