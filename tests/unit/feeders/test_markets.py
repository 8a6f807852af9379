"""The exchange's list of markets, looked at again: what is new, what is gone, and what a failure leaves."""

from dataclasses import replace
from pathlib import Path

import pytest

from bookbus.feeders.errors import MetadataError, RestError
from bookbus.feeders.markets import Markets, MetadataSource, Shard, parse_selection
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.schemas.instruments import Instrument, SymbolError, TradingStatus
from tests.support.fake_venue import FakeVenue


def listed(*bases: str, status: TradingStatus = "trading") -> list[Instrument]:
    return [Instrument("binance", base, "USDT", f"{base}USDT", status=status) for base in bases]


async def load(venue: FakeVenue, directory: Path, *selection: str) -> Markets:
    source = MetadataSource(venue, RestClient(venue.rest_url, WeightBudget(6000)), directory)
    return await Markets.load(source, parse_selection(selection))


async def test_at_the_start_the_selection_stands_for_what_is_listed_then(tmp_path: Path) -> None:
    venue = FakeVenue()
    venue.listed = listed("BTC", "ETH")

    markets = await load(venue, tmp_path, "all:USDT")

    assert [instrument.native for instrument in markets.chosen] == ["BTCUSDT", "ETHUSDT"]


async def test_a_new_listing_is_added_and_known_from_then_on(tmp_path: Path) -> None:
    venue = FakeVenue()
    venue.listed = listed("BTC")
    markets = await load(venue, tmp_path, "all:USDT")
    venue.listed = listed("BTC", "NEW")

    added, gone = await markets.refresh(["BTCUSDT"])

    assert ([instrument.native for instrument in added], gone) == (["NEWUSDT"], [])
    assert markets.registry.resolve("NEW").native == "NEWUSDT"


@pytest.mark.parametrize("rest", [[], listed("OLD", status="halted")], ids=["delisted", "halted"])
async def test_what_no_longer_trades_is_gone(tmp_path: Path, rest: list[Instrument]) -> None:
    venue = FakeVenue()
    venue.listed = listed("BTC", "OLD")
    markets = await load(venue, tmp_path, "all:USDT")
    venue.listed = listed("BTC") + rest

    assert await markets.refresh(["BTCUSDT", "OLDUSDT"]) == ([], ["OLDUSDT"])


async def test_among_the_greatest_a_new_one_comes_in_and_none_goes_that_trades(tmp_path: Path) -> None:
    venue = FakeVenue()
    venue.listed, venue.turnover = listed("BTC", "ETH"), {"BTCUSDT": 9.0, "ETHUSDT": 1.0}
    markets = await load(venue, tmp_path, "top:1")
    venue.turnover = {"BTCUSDT": 1.0, "ETHUSDT": 9.0}

    added, gone = await markets.refresh(["BTCUSDT"])

    assert ([instrument.native for instrument in added], gone) == (["ETHUSDT"], [])


async def test_a_named_market_that_is_no_longer_listed_stays_and_new_ones_still_come(tmp_path: Path) -> None:
    venue = FakeVenue()
    venue.listed = listed("BTC", "FOO")
    markets = await load(venue, tmp_path, "all:USDT", "FOO")
    venue.listed = listed("BTC", "NEW")

    added, gone = await markets.refresh(["FOOUSDT", "BTCUSDT"])

    assert ([instrument.native for instrument in added], gone) == (["NEWUSDT"], [])


@pytest.mark.parametrize(
    ("broken", "error"),
    [("metadata", RestError("HTTP 503")), ("listed", MetadataError("no list")), ("turnover", RestError("timeout"))],
)
async def test_a_failure_changes_nothing(tmp_path: Path, broken: str, error: Exception) -> None:
    venue = FakeVenue()
    venue.listed, venue.turnover = listed("BTC"), {"BTCUSDT": 1.0}
    markets = await load(venue, tmp_path, "all:USDT", "top:1")
    venue.listed = listed("BTC", "NEW")
    setattr(venue, broken, error)

    with pytest.raises(type(error)):
        await markets.refresh(["BTCUSDT"])

    with pytest.raises(SymbolError):
        markets.registry.resolve("NEW")


async def test_each_shard_follows_its_own_listings(tmp_path: Path) -> None:
    venue = FakeVenue()
    venue.listed = listed("BTC", "ETH", "SOL")
    source = MetadataSource(venue, RestClient(venue.rest_url, WeightBudget(6000)), tmp_path)
    shards = [
        await Markets.load(source, replace(parse_selection(["all:USDT"]), shard=Shard(number, 2))) for number in (1, 2)
    ]
    venue.listed = listed("BTC", "ETH", "SOL", "NEW", "XRP", "ADA", "DOT")

    added = [[new.native for new in (await shard.refresh([one.native for one in shard.chosen]))[0]] for shard in shards]

    assert sorted(added[0] + added[1]) == ["ADAUSDT", "DOTUSDT", "NEWUSDT", "XRPUSDT"]
    assert all(added)


async def test_a_shard_without_symbols_is_an_error(tmp_path: Path) -> None:
    venue = FakeVenue()
    venue.listed = listed("BTC")
    source = MetadataSource(venue, RestClient(venue.rest_url, WeightBudget(6000)), tmp_path)

    with pytest.raises(SymbolError, match="shard 2/5 has none"):
        await Markets.load(source, replace(parse_selection(["BTC"]), shard=Shard(2, 5)))


async def test_a_name_that_is_not_listed_is_left_out_with_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    venue = FakeVenue()
    venue.listed = listed("BTC")

    markets = await load(venue, tmp_path, "BTC", "GONE")

    assert [instrument.symbol for instrument in markets.chosen] == ["BTC-USDT"]
    assert list(markets.missing) == ["GONE"]
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert errors == ["left out: unknown symbol 'GONE' on binance"]


async def test_a_name_that_was_left_out_is_added_once_it_is_listed(tmp_path: Path) -> None:
    venue = FakeVenue()
    venue.listed = listed("BTC")
    markets = await load(venue, tmp_path, "BTC", "GONE")
    venue.listed = listed("BTC", "GONE")

    added, gone = await markets.refresh(["BTCUSDT"])

    assert ([instrument.native for instrument in added], gone, markets.missing) == (["GONEUSDT"], [], {})


@pytest.mark.parametrize("names", [("GONE",), ("BTC", "!!"), ("BTC", "BTC/USDT:USDT")])
async def test_names_that_are_all_unknown_and_names_that_can_be_no_symbol_are_errors(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    venue = FakeVenue()
    venue.listed = listed("BTC")

    with pytest.raises(SymbolError):
        await load(venue, tmp_path, *names)


async def test_a_name_that_was_given_without_a_list_is_kept_when_the_list_comes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    venue = FakeVenue()
    venue.metadata = RestError("HTTP 503")
    markets = await load(venue, tmp_path, "BTC-PLN", "XRPRLUSD", "ABCT-RY")
    assert [instrument.native for instrument in markets.chosen] == ["BTCPLN", "ABCTRY"]
    assert "symbols are read by their spelling" in caplog.text
    venue.metadata = b"{}"
    pairs = [("BTC", "PLN"), ("XRP", "RLUSD"), ("ABC", "TRY")]
    venue.listed = [Instrument("binance", base, quote, base + quote) for base, quote in pairs]

    added, gone = await markets.refresh(["BTCPLN", "ABCTRY"])

    assert ([instrument.symbol for instrument in added], gone) == (["XRP-RLUSD"], [])
    natives = ("BTCPLN", "XRPRLUSD", "ABCTRY")
    assert [markets.registry.named(native).symbol for native in natives] == ["BTC-PLN", "XRP-RLUSD", "ABCT-RY"]
    assert "a name does not change while a feeder runs: ABCTRY is the name of both ABCT-RY and ABC-TRY" in caplog.text
