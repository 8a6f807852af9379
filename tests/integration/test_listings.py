"""`--symbols all:USDT`: a new listing gets its book and a delisted one is closed, without a restart."""

from collections.abc import Iterable

import pytest

from bookbus.feeders.simulator.binance.exchange import BinanceSimulator
from bookbus.feeders.simulator.binance.rest import exchange_info
from bookbus.feeders.simulator.binance.settings import BinanceRules
from bookbus.feeders.simulator.core.market import SimulatedInstrument
from tests.support.book_checker import book_checker
from tests.support.feeder_process import feeder_process
from tests.support.waiting import await_for

NATIVES = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
SYMBOLS = ("BTC-USDT", "ETH-USDT", "SOL-USDT")


async def test_listings_and_delistings_are_followed(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = {"BTCUSDT", "ETHUSDT"}

    def only_listed(
        instruments: Iterable[SimulatedInstrument], rules: BinanceRules, time: int, *, with_delisted: bool
    ) -> dict[str, object]:
        shown = [instrument for instrument in instruments if instrument.native in listed]
        return exchange_info(shown, rules, time, with_delisted=with_delisted)

    monkeypatch.setattr("bookbus.feeders.simulator.binance.rest.exchange_info", only_listed)
    monkeypatch.setenv("BOOKBUS_LISTINGS_INTERVAL", "0.5")
    async with (
        BinanceSimulator(symbols=NATIVES, seed=41, rate=10.0) as exchange,
        book_checker(redis_url, "binance", SYMBOLS, exchange.truth) as seen,
    ):
        with feeder_process(redis_url, exchange.ws_url, exchange.rest_url, ["all:USDT"]) as feeder:
            await await_for(lambda: set(seen.newest) == {"BTC-USDT", "ETH-USDT"}, 20, "the two listed books")

            listed.add("SOLUSDT")
            await await_for(lambda: "SOL-USDT" in seen.newest, 10, "the new listing's book")
            listed.remove("ETHUSDT")
            await await_for(lambda: seen.newest["ETH-USDT"].state == "closed", 10, "the delisted book to be closed")
            count = seen.seen["BTC-USDT"], seen.seen["ETH-USDT"]
            await await_for(lambda: seen.seen["BTC-USDT"] > count[0] + 30, 10, "more of the books that stay")

            assert seen.seen["ETH-USDT"] == count[1], feeder.log
            assert seen.wrong == []
            assert seen.never_left_live(["BTC-USDT", "SOL-USDT"]), feeder.log
