"""What Upbit says of its markets, and what the command line lets be asked of it."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
import typer

from bookbus.feeders.commands.run import feed_options
from bookbus.feeders.errors import MetadataError, RestError, RestRefusedError
from bookbus.feeders.exchanges.upbit_ws_adapter import VENUE
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.venue import FeedOptions, venue_of
from bookbus.schemas.instruments import Instrument, InstrumentRegistry

TICKS = "/v1/orderbook/instruments"


class FakeRest(RestClient):
    """Answers by path, or with an error; takes note of the markets that ticks were asked for."""

    def __init__(self, markets: list[str], *answers: bytes | Exception | None) -> None:
        """An answer that is None is the right one; after the last all are."""
        super().__init__("http://nowhere", WeightBudget(600))
        self._markets = markets
        self._answers = iter(answers)
        self.asked: list[list[str]] = []

    async def get(
        self,
        path: str,
        parameters: Mapping[str, str | int],
        weight: int,
        *,
        urgent: bool = True,
        patience: float | None = None,
    ) -> bytes:
        if path != TICKS:
            answer: Any = [{"market": market, "korean_name": "…", "english_name": "…"} for market in self._markets]
            return json.dumps(answer).encode()
        names = str(parameters["markets"]).split(",")
        self.asked.append(names)
        prepared = next(self._answers, None)
        if isinstance(prepared, Exception):
            raise prepared
        ticks = [{"market": name, "tick_size": "1000", "supported_levels": ["0"]} for name in names]
        return prepared or json.dumps(ticks).encode()


async def instruments(rest: FakeRest) -> dict[str, Instrument]:
    found = VENUE.instruments(await VENUE.fetch_metadata(rest))
    return {instrument.native: instrument for instrument in found}


def test_the_venue_is_found_by_its_id_and_is_the_korean_host() -> None:
    assert venue_of("upbit") is VENUE
    assert VENUE.stream_url(VENUE.ws_url) == "wss://api.upbit.com/websocket/v1"
    assert VENUE.rest_url == "https://api.upbit.com"


def test_the_whole_market_is_one_connection() -> None:
    natives = [f"KRW-A{number}" for number in range(855)]

    assert VENUE.connections(natives, FeedOptions()) == [natives]
    assert VENUE.connections([], FeedOptions()) == []


async def test_markets_are_quote_first_and_have_the_exchanges_tick() -> None:
    found = await instruments(FakeRest(["KRW-BTC", "BTC-ETH", "USDT-BTC"]))

    assert found["KRW-BTC"] == Instrument("upbit", "BTC", "KRW", "KRW-BTC", tick=1000.0)
    assert [instrument.symbol for instrument in found.values()] == ["BTC-KRW", "ETH-BTC", "BTC-USDT"]
    assert {instrument.status for instrument in found.values()} == {"unknown"}
    registry = InstrumentRegistry(VENUE.exchange, found.values())
    assert {registry.resolve(name).native for name in ("BTC", "btc-krw", "KRW-BTC")} == {"KRW-BTC"}
    assert registry.resolve("USDT-BTC").symbol == "BTC-USDT"


async def test_ticks_are_asked_for_in_portions() -> None:
    rest = FakeRest([f"KRW-A{number}" for number in range(250)])

    found = await instruments(rest)

    assert [len(names) for names in rest.asked] == [100, 100, 50]
    assert {instrument.tick for instrument in found.values()} == {1000.0}


async def test_a_refused_portion_costs_only_its_own_ticks() -> None:
    rest = FakeRest([f"KRW-A{number}" for number in range(250)], None, RestRefusedError("Code not found"))

    found = await instruments(rest)

    assert len(rest.asked) == 3
    assert [sum(instrument.tick is None for instrument in found.values()), len(found)] == [100, 250]


@pytest.mark.parametrize("trouble", [RestError("limit exceeded"), b"<html>", b"[{}]"])
async def test_trouble_ends_the_questions_and_leaves_the_markets(trouble: Exception | bytes) -> None:
    rest = FakeRest([f"KRW-A{number}" for number in range(250)], None, trouble)

    found = await instruments(rest)

    assert len(rest.asked) == 2
    assert [sum(instrument.tick is None for instrument in found.values()), len(found)] == [150, 250]


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b'{"markets":[{"market":"BTCKRW"}],"ticks":[]}'])
def test_what_is_no_list_of_markets_is_refused(body: bytes) -> None:
    with pytest.raises(MetadataError, match="not a"):
        VENUE.instruments(body)


async def test_a_list_of_markets_that_is_none_may_be_had_later() -> None:
    class Broken(FakeRest):
        async def get(self, *_: Any, **__: Any) -> bytes:
            return b"<html>"

    with pytest.raises(RestError, match="not a list of markets"):
        await VENUE.fetch_metadata(Broken([]))


def test_there_is_no_snapshot_to_ask_for() -> None:
    assert VENUE.snapshots is None


async def test_requests_keep_within_the_limit_of_each_second() -> None:
    rest = VENUE.rest("http://nowhere", 1.0)
    now, waits = 0.0, list[float]()

    async def sleep(seconds: float) -> None:
        nonlocal now
        waits.append(seconds)
        now += seconds + 1e-6

    budget = rest.budget
    budget._clock, budget._sleep, budget._filled_at = lambda: now, sleep, now
    for _ in range(30):
        await budget.spend(1)

    # About five a second, of the ten that are allowed, and five at once at most.
    assert now >= 5.0
    assert len(waits) >= 25


@pytest.mark.parametrize(
    ("mode", "topics", "message"),
    [
        ("diff", "book", "--mode diff: use partial"),
        (None, "book,quote", "--topics book,quote: use any of book, trades"),
        (None, "", "--topics : use any of book, trades"),
    ],
)
def test_what_the_exchange_does_not_offer_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], mode: str | None, topics: str, message: str
) -> None:
    with pytest.raises(typer.Exit):
        feed_options(VENUE, mode, 20, topics)

    assert capsys.readouterr().err == f"error: {message}\n"


def test_without_a_word_the_exchange_gives_what_it_has() -> None:
    assert feed_options(VENUE, None, 20, None) == FeedOptions("partial", 20, frozenset({"book", "trades"}))
