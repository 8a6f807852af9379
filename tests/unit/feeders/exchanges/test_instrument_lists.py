"""Lists of instruments of every exchange: one odd entry is left out, the others are read."""

import json
from typing import Any

import pytest

from bookbus.feeders.errors import MetadataError
from bookbus.feeders.markets import skipped_of
from bookbus.feeders.venue import venue_of

GOOD: dict[str, Any] = {
    "binance": {"symbol": "BTCUSDT", "baseAsset": "BTC", "quoteAsset": "USDT", "status": "TRADING", "filters": []},
    "bybit": {"symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "status": "Trading"},
    "upbit": {"market": "KRW-BTC"},
}
BASE = {"binance": "baseAsset", "bybit": "baseCoin", "upbit": "market"}
NAME = {"binance": "symbol", "bybit": "symbol", "upbit": "market"}


def metadata(exchange: str, *entries: object) -> bytes:
    content: dict[str, Any] = {
        "binance": {"symbols": entries},
        "bybit": {"result": {"list": entries}},
        "upbit": {"markets": entries, "ticks": []},
    }
    return json.dumps(content[exchange]).encode()


@pytest.mark.parametrize("exchange", GOOD)
@pytest.mark.parametrize(
    "odd", ["null base", "empty base", "no base", "no object", "null", "the same pair", "odd name"]
)
def test_an_odd_entry_is_left_out_and_named(exchange: str, odd: str) -> None:
    good, base, name = GOOD[exchange], BASE[exchange], NAME[exchange]
    entry = {
        "null base": good | {name: "ODD", base: None},
        "empty base": good | {name: "ODD", base: ""},
        "no base": {"status": "TRADING"},
        "no object": [1, "two"],
        "null": None,
        "the same pair": good | ({name: "BTCUSDT2"} if exchange != "upbit" else {}),
        "odd name": good | {name: "KRW-", base: "B T C" if exchange != "upbit" else "KRW-"},
    }[odd]

    for entries in ([entry, good], [good, entry]):
        listed = venue_of(exchange).instruments(metadata(exchange, *entries))

        assert [instrument.native for instrument in listed] == [good[name]]
        assert len(skipped_of(listed)) == 1


@pytest.mark.parametrize("exchange", ["binance", "bybit"])
@pytest.mark.parametrize("status", [None, 7, "SOMETHING_NEW", {"a": 1}, ""])
def test_an_unknown_status_is_unknown(exchange: str, status: object) -> None:
    (instrument,) = venue_of(exchange).instruments(metadata(exchange, GOOD[exchange] | {"status": status}))

    assert instrument.status == "unknown"


@pytest.mark.parametrize("rules", [None, [], {}, [None], [{"filterType": "PRICE_FILTER", "tickSize": None}], "text", 7])
def test_filters_that_cannot_be_read_leave_the_market_without_them(rules: object) -> None:
    (instrument,) = venue_of("binance").instruments(metadata("binance", GOOD["binance"] | {"filters": rules}))
    odd = {"lotSizeFilter": rules, "priceFilter": rules}
    (other,) = venue_of("bybit").instruments(metadata("bybit", GOOD["bybit"] | odd))

    assert (instrument.tick, instrument.step, other.tick, other.step) == (None, None, None, None)


@pytest.mark.parametrize("exchange", GOOD)
def test_a_list_without_a_market_is_no_list(exchange: str) -> None:
    for entries in ([], [None], [{"status": "TRADING"}]):
        with pytest.raises(MetadataError):
            venue_of(exchange).instruments(metadata(exchange, *entries))
