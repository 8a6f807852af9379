"""A trade as a stream entry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookbus.schemas.trade import Trade, TradeError, TradeSeq, seq_of, trade_of

FIELDS = {
    "id": "42",
    "price": "65000.01",
    "quantity": "1e-08",
    "aggressor": "sell",
    "exchange_us": "1700000000000000",
    "received_us": "1700000000010000",
}
TRADE = Trade(
    "binance", "BTC-USDT", "BTCUSDT", 42, 65_000.01, 0.00000001, "sell", 1_700_000_000_000_000, 1_700_000_000_010_000
)
positive = st.floats(min_value=1e-12, max_value=1e12)


def test_fields_are_text() -> None:
    assert TRADE.fields() == FIELDS


def test_entry_is_its_trade() -> None:
    assert trade_of("binance", "BTC-USDT", "BTCUSDT", "1700000000020-3", FIELDS) == TRADE


def test_id_of_an_entry_without_a_field_for_it_is_the_trades() -> None:
    earlier = {name: value for name, value in FIELDS.items() if name != "id"}

    assert trade_of("binance", "BTC-USDT", "BTCUSDT", "42-0", earlier) == TRADE


@pytest.mark.parametrize(
    ("text", "seq"),
    [
        ("1700000000000000-1", TradeSeq(1_700_000_000_000_000, 1)),
        ("1-20000", TradeSeq(1, 20_000)),
        *((text, None) for text in ("", "1", "-1", "1-", "1-x", "1-1-1", "１-1", "9" * 20 + "-1", "1.0-1")),
    ],
)
def test_number_on_the_bus_is_epoch_and_count(text: str, seq: TradeSeq | None) -> None:
    assert seq_of({"seq": text}) == seq
    assert seq_of({}) is None


@given(positive, positive, st.sampled_from(["buy", "sell"]), st.integers(0, 2**53))
def test_trade_survives_its_entry(price: float, quantity: float, aggressor: str, trade_id: int) -> None:
    trade = Trade("upbit", "BTC-KRW", "KRW-BTC", trade_id, price, quantity, aggressor, 1, 2)  # type: ignore[arg-type]

    assert trade_of("upbit", "BTC-KRW", "KRW-BTC", "1-0", trade.fields()) == trade


@pytest.mark.parametrize(
    "changes",
    [
        {"price": "nan"},
        {"price": "-1"},
        {"quantity": "0"},
        {"quantity": "inf"},
        {"aggressor": "both"},
        {"exchange_us": ""},
        {"received_us": "-1"},
    ],
    ids=str,
)
def test_entry_with_a_value_outside_its_range_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(TradeError):
        trade_of("binance", "BTC-USDT", "BTCUSDT", "42-0", FIELDS | changes)


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "id"])
def test_entry_without_a_field_is_refused(name: str) -> None:
    rest = {key: value for key, value in FIELDS.items() if key != name}

    with pytest.raises(TradeError):
        trade_of("binance", "BTC-USDT", "BTCUSDT", "42-0", rest)


@pytest.mark.parametrize("fields", [FIELDS | {"id": "x"}, {name: FIELDS[name] for name in FIELDS if name != "id"}])
def test_id_that_is_no_number_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(TradeError):
        trade_of("binance", "BTC-USDT", "BTCUSDT", "x-0", fields)
