"""Which markets trade: what exchanges answer, and what a watch makes of it."""

import json
import logging
from collections.abc import Mapping
from typing import Any

import pytest

from bookbus.feeders.errors import MetadataError, RestError, RestRefusedError
from bookbus.feeders.rest_client import RestClient, WeightBudget
from bookbus.feeders.trading import TradingWatch
from bookbus.feeders.venue import DELISTED, MarketStatus, Venue, venue_of
from tests.support.fake_venue import FakeVenue

TRADING = MarketStatus("trading")


class Rest(RestClient):
    """Gives prepared answers in turn, the last one for ever; records what was asked."""

    def __init__(self, *answers: Any) -> None:
        super().__init__("http://venue", WeightBudget(6000))
        self._answers = list(answers)
        self.asked: list[tuple[str, Mapping[str, str | int], int, bool]] = []

    async def get(
        self,
        path: str,
        parameters: Mapping[str, str | int],
        weight: int,
        *,
        urgent: bool = True,
        patience: float | None = None,
    ) -> bytes:
        self.asked.append((path, parameters, weight, urgent))
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


def binance_list(**statuses: object) -> dict[str, object]:
    return {"timezone": "UTC", "symbols": [{"symbol": name, "status": status} for name, status in statuses.items()]}


async def of_binance(word: object) -> MarketStatus:
    found = await venue_of("binance").fetch_trading(Rest(binance_list(BTCUSDT=word)), ["BTCUSDT"])
    return found["BTCUSDT"]


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("TRADING", MarketStatus("trading")),
        ("BREAK", MarketStatus("halted", "BREAK")),
        ("HALT", MarketStatus("halted", "HALT")),
        ("AUCTION_MATCH", MarketStatus("auction", "AUCTION_MATCH")),
        ("PRE_TRADING", MarketStatus("halted", "PRE_TRADING")),
        ("POST_TRADING", MarketStatus("halted", "POST_TRADING")),
        ("END_OF_DAY", MarketStatus("halted", "END_OF_DAY")),
        ("CANCEL_ONLY", MarketStatus("halted", "CANCEL_ONLY")),
        ("LUNCH", MarketStatus("unknown", "LUNCH")),
        ("trading", MarketStatus("unknown", "trading")),
        ("", MarketStatus("unknown", "")),
        (None, MarketStatus("unknown", "None")),
        (["BREAK"], MarketStatus("unknown", "['BREAK']")),
    ],
)
async def test_every_status_of_binance(word: object, status: MarketStatus) -> None:
    assert await of_binance(word) == status


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("Trading", MarketStatus("trading")),
        ("PreLaunch", MarketStatus("halted", "PreLaunch")),
        ("Settling", MarketStatus("halted", "Settling")),
        ("Delivering", MarketStatus("halted", "Delivering")),
        ("Closed", MarketStatus("delisted", "Closed")),
        ("Sleeping", MarketStatus("unknown", "Sleeping")),
        (3, MarketStatus("unknown", "3")),
    ],
)
async def test_every_status_of_bybit(word: object, status: MarketStatus) -> None:
    rest = Rest({"retCode": 0, "result": {"category": "spot", "list": [{"symbol": "BTCUSDT", "status": word}]}})

    assert await venue_of("bybit").fetch_trading(rest, ["BTCUSDT"]) == {"BTCUSDT": status}


_CALM = dict.fromkeys(("PRICE_FLUCTUATIONS", "TRADING_VOLUME_SOARING"), False)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"market_event": {"warning": False, "caution": _CALM}}, TRADING),
        ({"market_event": {"warning": True, "caution": _CALM}}, MarketStatus("warning", "market_event.warning")),
        (
            {"market_event": {"warning": False, "caution": _CALM | {"PRICE_FLUCTUATIONS": True}}},
            MarketStatus("caution", "PRICE_FLUCTUATIONS"),
        ),
        (
            {"market_event": {"warning": False, "caution": _CALM | {"A_NEW_ONE": True, "TRADING_VOLUME_SOARING": 1}}},
            MarketStatus("caution", "TRADING_VOLUME_SOARING A_NEW_ONE"),
        ),
        ({"market_event": {"warning": False}}, TRADING),
        ({"market_event": {"warning": "maybe"}}, MarketStatus("unknown", "market_event {'warning': 'maybe'}")),
        ({"market_event": None}, TRADING),
        ({}, TRADING),
        ({"market_warning": "NONE"}, TRADING),
        ({"market_warning": "CAUTION"}, MarketStatus("warning", "CAUTION")),
        ({"market_warning": "ALARM"}, MarketStatus("unknown", "ALARM")),
        ({"market_state": "ACTIVE"}, TRADING),
        ({"market_state": "ACTIVE", "market_warning": "CAUTION"}, MarketStatus("warning", "CAUTION")),
        ({"market_state": "PREVIEW"}, MarketStatus("halted", "PREVIEW")),
        ({"market_state": "DELISTED", "market_warning": "CAUTION"}, MarketStatus("delisted", "DELISTED")),
        ({"market_state": "PAUSED"}, MarketStatus("unknown", "PAUSED")),
    ],
)
async def test_what_upbit_says_of_a_market(said: dict[str, object], status: MarketStatus) -> None:
    rest = Rest([{"market": "KRW-BTC"} | said])

    assert await venue_of("upbit").fetch_trading(rest, ["KRW-BTC"]) == {"KRW-BTC": status}
    assert rest.asked == [("/v1/market/all", {"is_details": "true"}, 1, False)]


@pytest.mark.parametrize(
    ("exchange", "answer", "gone"),
    [
        ("binance", binance_list(BTCUSDT="TRADING"), "LUNAUSDT"),
        ("bybit", {"result": {"list": [{"symbol": "BTCUSDT", "status": "Trading"}]}}, "LUNAUSDT"),
        ("upbit", [{"market": "KRW-BTC"}], "KRW-LUNA"),
    ],
)
async def test_a_market_that_is_not_in_the_list_is_delisted(exchange: str, answer: object, gone: str) -> None:
    natives = ["KRW-BTC" if exchange == "upbit" else "BTCUSDT", gone]

    assert await venue_of(exchange).fetch_trading(Rest(answer), natives) == {natives[0]: TRADING, gone: DELISTED}


@pytest.mark.parametrize("exchange", ["binance", "bybit", "upbit"])
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"symbols":[]}', b'{"result":{"list":[null,1]}}', b"\xff"])
async def test_an_answer_without_markets_is_not_believed(exchange: str, body: bytes) -> None:
    with pytest.raises(MetadataError, match="list"):
        await venue_of(exchange).fetch_trading(Rest(body), ["BTCUSDT"])


async def test_odd_entries_are_skipped() -> None:
    answer = binance_list(BTCUSDT="BREAK")
    answer["symbols"] = [None, 7, {"status": "TRADING"}, {"symbol": None}, *answer["symbols"]]  # type: ignore[misc]

    assert await venue_of("binance").fetch_trading(Rest(answer), ["BTCUSDT"]) == {
        "BTCUSDT": MarketStatus("halted", "BREAK")
    }


async def test_binance_is_asked_for_the_followed_symbols_by_a_hundred() -> None:
    natives = [f"A{number}USDT" for number in range(101)]
    rest = Rest(binance_list(**dict.fromkeys(natives[:100], "TRADING")), binance_list(A100USDT="HALT"))

    found = await venue_of("binance").fetch_trading(rest, natives)

    assert [name for name, market in found.items() if market != TRADING] == ["A100USDT"]
    assert [json.loads(str(parameters["symbols"])) for _, parameters, _, _ in rest.asked] == [
        natives[:100],
        ["A100USDT"],
    ]
    assert {(path, weight, urgent) for path, _, weight, urgent in rest.asked} == {("/api/v3/exchangeInfo", 20, False)}


async def test_binance_is_asked_for_the_whole_list_where_that_costs_less() -> None:
    natives = [f"A{number}USDT" for number in range(501)]
    rest = Rest(binance_list(**dict.fromkeys(natives, "TRADING")))

    assert set((await venue_of("binance").fetch_trading(rest, natives)).values()) == {TRADING}
    assert [parameters for _, parameters, _, _ in rest.asked] == [{}]


async def test_a_name_that_binance_no_longer_knows_asks_for_the_whole_list() -> None:
    rest = Rest(RestRefusedError("invalid symbol"), binance_list(BTCUSDT="TRADING", ETHUSDT="BREAK"))

    assert await venue_of("binance").fetch_trading(rest, ["BTCUSDT", "GONEUSDT", "ETHUSDT"]) == {
        "BTCUSDT": TRADING,
        "GONEUSDT": DELISTED,
        "ETHUSDT": MarketStatus("halted", "BREAK"),
    }
    assert len(rest.asked) == 2


class PreparedVenue(FakeVenue):
    """Answers with what the test prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.answer_with: dict[str, MarketStatus] | Exception = {}

    async def fetch_trading(self, rest: RestClient, natives: Any) -> Mapping[str, MarketStatus]:
        if isinstance(self.answer_with, Exception):
            raise self.answer_with
        return self.answer_with


class Watched:
    """A watch with a clock of the test's own, over a feed that follows two symbols."""

    def __init__(self) -> None:
        self.prepared = PreparedVenue()
        self.venue: Venue = self.prepared
        self.rest: RestClient = Rest({})
        self.natives = ["BTCUSDT", "ETHUSDT"]
        self.now = 0.0
        self.changes: list[tuple[str, str]] = []
        self.watch = TradingWatch(self, 30.0, lambda *change: self.changes.append(change), lambda: self.now)

    async def ask(self, found: dict[str, MarketStatus] | Exception) -> None:
        self.prepared.answer_with = found
        await self.watch.ask()


async def test_each_change_is_reported_once() -> None:
    watched = Watched()
    halted = MarketStatus("halted", "BREAK")

    for found in (TRADING, TRADING, halted, halted, TRADING):
        await watched.ask({"BTCUSDT": found})

    assert watched.changes == [("BTCUSDT", "trading"), ("BTCUSDT", "halted"), ("BTCUSDT", "trading")]
    assert watched.watch.statuses == {"BTCUSDT": "trading"}


async def test_markets_that_halt_together_are_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    halted = MarketStatus("halted", "BREAK")
    await watched.ask({"BTCUSDT": TRADING, "ETHUSDT": TRADING})
    assert caplog.messages == []

    await watched.ask({"BTCUSDT": halted, "ETHUSDT": halted})
    await watched.ask({"BTCUSDT": halted, "ETHUSDT": TRADING})

    assert caplog.messages == [
        "binance: now halted (BREAK): BTCUSDT ETHUSDT",
        "binance: now trading: ETHUSDT",
    ]


async def test_an_unknown_status_is_unknown_counted_and_named_once(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    odd = MarketStatus("unknown", "LUNCH")
    await watched.ask({"BTCUSDT": TRADING})

    for _ in range(3):
        await watched.ask({"BTCUSDT": odd, "ETHUSDT": odd})

    assert watched.watch.statuses == {"BTCUSDT": "unknown", "ETHUSDT": "unknown"}
    assert watched.watch.unrecognised == 6
    assert caplog.messages == ["binance: the status 'LUNCH' of BTCUSDT is not known here, nor whether it trades"]


@pytest.mark.parametrize("error", [RestError("503"), MetadataError("not a list of markets")])
async def test_without_answers_trading_is_forgotten_and_a_halt_is_not(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched()
    await watched.ask({"BTCUSDT": TRADING, "ETHUSDT": MarketStatus("halted", "BREAK")})
    caplog.clear()

    watched.now = 299.0
    await watched.ask(error)
    assert watched.watch.statuses == {"BTCUSDT": "trading", "ETHUSDT": "halted"}
    watched.now = 301.0
    await watched.ask(error)

    assert watched.watch.statuses == {"BTCUSDT": "unknown", "ETHUSDT": "halted"}
    assert watched.changes[2:] == [("BTCUSDT", "unknown")]
    assert caplog.messages == [f"binance does not say which markets trade, asking again: {error}"]
    with caplog.at_level(logging.INFO):
        await watched.ask({"BTCUSDT": TRADING})
    assert watched.watch.statuses["BTCUSDT"] == "trading"
    assert caplog.messages[1:] == [
        "binance says again which markets trade",
        "binance: now trading: BTCUSDT",
    ]


async def test_symbols_that_are_no_longer_followed_are_left_out() -> None:
    watched = Watched()
    await watched.ask({"BTCUSDT": TRADING, "ETHUSDT": TRADING})

    watched.natives = ["ETHUSDT"]
    await watched.ask({"BTCUSDT": TRADING, "ETHUSDT": TRADING})

    assert watched.watch.statuses == {"ETHUSDT": "trading"}


async def test_it_asks_at_once_and_then_at_each_interval() -> None:
    watched = Watched()
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise RuntimeError("enough")

    watch = TradingWatch(watched, 30.0, sleep=sleep)
    watched.prepared.answer_with = {"BTCUSDT": TRADING}

    with pytest.raises(RuntimeError, match="enough"):
        await watch.run()
    assert slept == [30.0, 30.0, 30.0]
    assert watch.statuses == {"BTCUSDT": "trading"}
