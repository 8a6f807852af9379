"""The books that are requested from each exchange."""

import pytest

from bookbus.consumers.multi_provider import MultiExchangeProvider, assemble
from tests.support.stub_provider import StubProvider


class Made:
    """Providers by exchange, and what each was asked for."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def make(self, exchange: str, names: list[str]) -> StubProvider:
        assert exchange not in self.names
        self.names[exchange] = names
        return StubProvider(exchange)

    def assemble(self, exchanges: list[str], fx: str = "upbit:USDT-KRW", quote: str = "USDT") -> MultiExchangeProvider:
        return assemble(self.make, exchanges, ["BTC", "WBTC"], fx=fx, quote=quote)


def test_each_exchange_is_asked_for_its_home_quote_and_one_for_the_rate_too() -> None:
    made = Made()

    provider = made.assemble(["binance", "upbit"])

    assert made.names == {"binance": ["BTC-USDT", "WBTC-USDT"], "upbit": ["BTC-KRW", "WBTC-KRW", "USDT-KRW"]}
    assert provider.symbols == ["BTC-USDT", "WBTC-USDT"]


def test_the_rate_may_come_from_an_exchange_that_takes_no_part() -> None:
    made = Made()

    provider = made.assemble(["binance", "bybit"], quote="KRW")

    assert made.names["upbit"] == ["USDT-KRW"]
    assert [venue.exchange for venue in provider.consolidated("BTC").venues] == ["binance", "bybit"]


def test_without_anything_to_convert_no_rate_is_asked_for() -> None:
    made = Made()

    made.assemble(["binance", "bybit"], fx="")

    assert made.names.keys() == {"binance", "bybit"}


@pytest.mark.parametrize("fx", ["", "USDT-KRW", ":USDT-KRW", "upbit:"])
def test_a_rate_without_exchange_or_symbol_is_refused(fx: str) -> None:
    with pytest.raises(ValueError, match="write exchange:symbol, like upbit:USDT-KRW"):
        Made().assemble(["binance", "upbit"], fx=fx)
