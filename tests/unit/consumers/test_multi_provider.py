"""Several providers as one: included and excluded books, their reasons, and ids."""

import asyncio
import logging
import threading
from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from bookbus.consumers.multi.consolidation import VenueLevel
from bookbus.consumers.multi_provider import FxSource, MultiExchangeProvider, base_assets
from bookbus.consumers.reading import Observation
from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from tests.support.stub_provider import StubProvider
from tests.support.waiting import wait_for

WON_RATE = ((1400.0, 5_000.0),), ((1401.0, 8_000.0),)


class World:
    """Binance in USDT, Upbit in KRW, and a true cross: Upbit sells at 99,000 USDT what Binance buys at 99,400."""

    def __init__(self, max_skew: float = 1.0, fx_max_age: float = 5.0) -> None:
        self.binance, self.upbit = StubProvider("binance"), StubProvider("upbit")
        self.binance.put("BTC-USDT", ((99_400.0, 0.3), (99_300.0, 1.0)), ((99_401.0, 1.0), (99_500.0, 1.0)), age=0.2)
        self.upbit.put("BTC-KRW", ((138_459_000.0, 1.0),), ((138_600_000.0, 0.5),), age=0.7)
        self.upbit.put("USDT-KRW", *WON_RATE, age=1.5)
        self.provider = MultiExchangeProvider(
            {"binance": self.binance, "upbit": self.upbit},
            ["BTC", "ETH"],
            fx=FxSource(self.upbit, "USDT-KRW", fx_max_age),
            max_skew=max_skew,
        )

    def out(self) -> Mapping[str, str]:
        return self.provider.consolidated("BTC").out


def live(provider: MultiExchangeProvider) -> OrderBookSnapshot:
    return provider.read("BTC").require_live()


def test_the_net_figure_of_a_known_cross_is_the_one_computed_by_hand() -> None:
    (found,) = World().provider.opportunities("BTC")

    # 138,600,000 KRW / 1,400 = 99,000 USDT, x 1.0005 = 99,049.50; 99,400 x 0.999 = 99,300.60; 251.10 are left.
    assert (found.symbol, found.buy, found.sell, found.actionable) == ("BTC-USDT", "upbit", "binance", True)
    assert (found.buy_price, found.sell_price) == (99_000.0, 99_400.0)
    assert found.gross_bps == pytest.approx(400 / 99_000 * 1e4)
    assert found.net_bps == pytest.approx(251.1 / 99_000 * 1e4)
    assert found.size == 0.5
    assert found.profit == pytest.approx(0.3 * 251.1 + 0.2 * (99_300 * 0.999 - 99_049.5))
    assert (found.buy_age, found.sell_age, found.fx_age, found.fx_size) == (0.7, 0.2, 1.5, 5_000.0)


def test_consolidated_book_is_in_the_common_quote_and_names_the_exchange_of_each_level() -> None:
    book = World().provider.consolidated("BTC")

    assert book.symbol == "BTC-USDT"
    assert book.best_bid() == VenueLevel(99_400.0, 0.3, "binance")
    assert book.best_ask() == VenueLevel(99_000.0, 0.5, "upbit")
    assert [level.price for level in book.bids] == [99_400.0, 99_300.0, 138_459_000.0 / 1401.0]
    assert book.out == {}


def test_snapshot_is_the_merged_book_under_its_own_name() -> None:
    snapshot = live(World().provider)

    assert (snapshot.exchange, snapshot.symbol, snapshot.native) == ("multi", "BTC-USDT", "BTCUSDT")
    assert snapshot.bids == ((99_400.0, 0.3), (99_300.0, 1.0), (138_459_000.0 / 1401.0, 1.0))
    assert snapshot.asks == ((99_000.0, 0.5), (99_401.0, 1.0), (99_500.0, 1.0))
    assert (snapshot.seq, snapshot.published_us, snapshot.feeder, snapshot.exchange_us) == (0, 0, "", None)


def test_age_is_that_of_the_oldest_book_that_takes_part() -> None:
    world = World()

    assert world.provider.read("BTC").age == 0.7

    world.upbit.lose("BTC-KRW")

    assert world.provider.read("BTC").age == 0.2


def test_an_old_exchange_rate_makes_nothing_actionable_and_the_reason_says_fx() -> None:
    world = World()
    world.upbit.change("USDT-KRW", age=5.5)

    (found,) = world.provider.opportunities("BTC")

    assert not found.actionable
    assert found.reason == "FX USDT-KRW is stale: not confirmed for 5.5 s (limit 5 s)"
    assert found.net_bps is None
    assert world.out() == {"upbit": found.reason}
    assert live(world.provider).best_ask() == 99_401.0


def test_the_exchange_rate_has_its_own_limit_of_age() -> None:
    world = World(fx_max_age=1.0)

    assert world.out() == {"upbit": "FX USDT-KRW is stale: not confirmed for 1.5 s (limit 1 s)"}


def test_a_one_sided_exchange_rate_is_not_used() -> None:
    world = World()
    world.upbit.put("USDT-KRW", (), WON_RATE[1])

    assert world.out() == {"upbit": "FX USDT-KRW has no bids"}


def test_a_one_sided_book_is_excluded() -> None:
    world = World()
    world.upbit.put("BTC-KRW", ((138_459_000.0, 1.0),), ())

    assert world.out() == {"upbit": "upbit BTC-KRW has no asks"}


@pytest.mark.parametrize("trading", ["halted", "auction", "delisted"])
def test_a_market_in_which_nothing_is_matched_is_excluded(trading: str) -> None:
    world = World()
    world.binance.change("BTC-USDT", trading="trading")
    world.upbit.change("BTC-KRW", trading=trading)

    (found,) = world.provider.opportunities("BTC")

    assert world.out() == {"upbit": f"upbit BTC-KRW is {trading}"}
    assert (found.actionable, found.reason) == (False, f"upbit BTC-KRW is {trading}")
    assert world.provider.read("BTC").trading == "trading"


def test_the_status_of_several_exchanges_is_that_of_the_one_that_trades_best() -> None:
    world = World()
    assert world.provider.read("BTC").trading == "unknown"

    world.binance.change("BTC-USDT", trading="halted")
    assert world.provider.read("BTC").trading == "halted"
    world.upbit.change("BTC-KRW", trading="caution")
    assert world.provider.read("BTC").trading == "caution"


def test_an_exchange_rate_of_a_halted_market_is_not_used() -> None:
    world = World()
    world.upbit.change("USDT-KRW", trading="halted")

    assert world.out() == {"upbit": "FX USDT-KRW is halted"}


def test_two_exchanges_in_the_common_quote_need_no_exchange_rate() -> None:
    world, bybit = World(), StubProvider("bybit")
    bybit.put("BTC-USDT", ((99_800.0, 0.2),), ((99_900.0, 0.2),))
    provider = MultiExchangeProvider(
        {"binance": world.binance, "upbit": world.upbit, "bybit": bybit}, ["BTC"], fx=FxSource(world.upbit)
    )
    world.upbit.change("USDT-KRW", age=60.0)

    found = {(pair.buy, pair.sell): pair for pair in provider.opportunities("BTC")}

    assert found["binance", "bybit"].actionable
    assert found["binance", "bybit"].fx_age is None
    assert [pair.reason for pair in found.values() if "upbit" in (pair.buy, pair.sell)] == [
        "FX USDT-KRW is stale: not confirmed for 60.0 s (limit 5 s)"
    ] * 2


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"age": 5.5}, "upbit BTC-KRW is stale: not confirmed for 5.5 s (limit 5 s)"),
        (
            {"age": 5.5, "feeder_alive": False},
            "upbit BTC-KRW is feeder_down: not confirmed for 5.5 s (limit 5 s), and no feeder that serves it is alive",
        ),
        ({"age": 1.3}, "binance and upbit were confirmed 1.1 s apart (limit 1 s)"),
    ],
)
def test_a_book_that_is_not_of_this_moment_leaves_at_once_and_says_so(changes: dict[str, object], reason: str) -> None:
    world = World()
    world.upbit.change("BTC-KRW", **changes)

    assert world.out() == {"upbit": reason}
    assert live(world.provider).asks == ((99_401.0, 1.0), (99_500.0, 1.0))
    assert [pair.actionable for pair in world.provider.opportunities("BTC")] == [False]


def test_a_suspect_book_leaves_at_once_and_is_back_when_it_is_live() -> None:
    world = World()
    before = live(world.provider)
    world.upbit.lose("BTC-KRW")

    assert world.out()["upbit"].startswith("upbit BTC-KRW is suspect")
    alone = live(world.provider)
    assert alone.best_ask() == 99_401.0

    world.upbit.put("BTC-KRW", ((138_459_000.0, 1.0),), ((138_600_000.0, 0.5),))

    assert world.out() == {}
    assert live(world.provider).best_ask() == 99_000.0
    assert before.update_id < alone.update_id < live(world.provider).update_id


def test_another_asset_under_the_same_name_is_not_merged() -> None:
    world = World()
    world.upbit.put("BTC-KRW", ((1_000.0, 1.0),), ((1_001.0, 0.5),))

    (found,) = world.provider.opportunities("BTC")

    assert "different asset?" in found.reason
    assert world.out().keys() == {"binance", "upbit"}
    assert world.provider.read("BTC").status is BookStatus.MISSING


def test_each_symbol_has_its_own_books() -> None:
    world = World()
    world.binance.put("ETH-USDT", ((3_000.0, 1.0),), ((3_001.0, 1.0),))
    world.upbit.put("ETH-KRW", ((4_200_000.0, 1.0),), ((4_201_000.0, 1.0),))

    assert world.provider.consolidated("ETH").best_bid() == VenueLevel(3_000.0, 1.0, "binance")
    assert world.provider.consolidated("BTC").best_bid() == VenueLevel(99_400.0, 0.3, "binance")


def test_never_seen_is_none_and_says_of_each_exchange_why() -> None:
    world = World()

    reading = world.provider.read("ETH")

    assert world.provider.get_latest_snapshot("ETH") is None
    assert reading.status is BookStatus.MISSING
    assert reading.reason == (
        "ETH: binance ETH-USDT is missing: no book was received yet; upbit ETH-KRW is missing: no book was received yet"
    )


def test_a_symbol_that_is_not_followed_is_missing() -> None:
    world = World()

    assert world.provider.read("XRP").reason == "XRP: XRP-USDT is not among the symbols this provider follows"
    assert world.provider.status("XRP").received == 0
    with pytest.raises(SymbolError, match="not among the symbols"):
        world.provider.consolidated("XRP")


@pytest.mark.parametrize("name", ["BTC", "btc", "BTC-USDT", "BTCUSDT"])
def test_a_symbol_has_three_names(name: str) -> None:
    world = World()

    assert world.provider.get_latest_snapshot(name) is live(world.provider)
    assert world.provider.standard_symbol(name) == "BTC-USDT"


def test_the_same_books_are_the_same_snapshot() -> None:
    world = World()
    first = live(world.provider)
    world.upbit.change("BTC-KRW", age=0.9)
    world.provider.consolidated("BTC")

    assert live(world.provider) is first


def test_a_new_rate_is_a_new_book_only_where_it_converts() -> None:
    world = World()
    first = live(world.provider)

    world.upbit.put("USDT-KRW", ((1_390.0, 1.0),), ((1_391.0, 1.0),))

    second = live(world.provider)
    assert second.update_id == first.update_id + 1
    assert second.best_ask() == 99_401.0
    world.upbit.lose("BTC-KRW")
    third = live(world.provider)
    world.upbit.put("USDT-KRW", *WON_RATE)
    assert live(world.provider) is third


@pytest.mark.parametrize(
    ("binance", "upbit", "status"),
    [
        ({"age": 6.0}, {"age": 7.0}, BookStatus.STALE),
        ({"age": 6.0, "feeder_alive": False}, {"age": 7.0, "feeder_alive": False}, BookStatus.FEEDER_DOWN),
        ({"age": 6.0, "feeder_alive": True}, {"age": 7.0, "feeder_alive": False}, BookStatus.SUSPECT),
        ({"age": 6.0}, {"state": "suspect"}, BookStatus.SUSPECT),
        ({"state": "suspect"}, {"state": "suspect"}, BookStatus.SUSPECT),
        (
            {"state": "suspect", "feeder_alive": False},
            {"state": "suspect", "feeder_alive": False},
            BookStatus.FEEDER_DOWN,
        ),
        ({"state": "closed"}, {"state": "closed"}, BookStatus.CLOSED),
        ({"state": "closed"}, {"state": "suspect"}, BookStatus.SUSPECT),
    ],
)
def test_without_any_exchange_the_last_book_is_no_longer_live(
    binance: dict[str, object], upbit: dict[str, object], status: BookStatus
) -> None:
    world = World()
    last = live(world.provider)
    for provider, symbol, changes in ((world.binance, "BTC-USDT", binance), (world.upbit, "BTC-KRW", upbit)):
        snapshot = provider.observations[symbol].snapshot
        assert snapshot is not None
        if "state" in changes:
            changes = {**changes, "snapshot": replace(snapshot, state=changes["state"])}
        provider.change(symbol, **{name: value for name, value in changes.items() if name != "state"})

    reading = world.provider.read("BTC")

    assert reading.status is status
    assert reading.snapshot is not None
    assert (reading.snapshot.bids, reading.snapshot.asks) == (last.bids, last.asks)
    assert "binance BTC-USDT is" in reading.reason or status in (BookStatus.CLOSED, BookStatus.FEEDER_DOWN)


def test_the_last_book_is_live_no_longer_when_only_the_rate_is_old() -> None:
    world = World()
    world.binance.change("BTC-USDT", age=9.0)
    world.upbit.change("BTC-KRW", age=0.1)
    alone = live(world.provider)
    assert alone.best_ask() == 99_000.0

    world.upbit.change("USDT-KRW", age=9.0)

    reading = world.provider.read("BTC")
    assert reading.status is BookStatus.SUSPECT
    assert "FX USDT-KRW is stale" in reading.reason
    assert reading.snapshot is not None

    world.upbit.change("USDT-KRW", age=0.1)

    again = live(world.provider)
    assert alone.update_id < reading.snapshot.update_id < again.update_id
    assert (again.bids, again.asks) == (alone.bids, alone.asks)


def test_an_excluded_exchange_is_logged_once_and_so_is_its_return(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World()
    live(world.provider)
    world.upbit.change("BTC-KRW", age=6.0)
    for _ in range(3):
        live(world.provider)
    world.upbit.change("BTC-KRW", age=0.1)
    for _ in range(3):
        live(world.provider)

    assert [(record.levelname, record.message) for record in caplog.records] == [
        (
            "WARNING",
            "upbit is excluded from BTC-USDT: upbit BTC-KRW is stale: not confirmed for 6.0 s (limit 5 s)",
        ),
        ("INFO", "upbit is included in BTC-USDT again"),
    ]


def test_counts_and_connection_are_those_of_all_providers() -> None:
    world = World()
    world.provider.start()
    world.upbit.error = "connection lost"

    status = world.provider.get_connection_status()

    assert (status.is_running, status.connected, status.thread_alive) == (True, False, True)
    assert (status.error, status.reconnect_count) == ("connection lost", 2)
    assert status.symbols.keys() == {"BTC-USDT", "ETH-USDT"}
    assert (status.symbols["BTC-USDT"].received, status.symbols["BTC-USDT"].conflated) == (4, 2)
    world.provider.stop()
    assert not world.provider.get_connection_status().is_running


def test_each_provider_is_started_and_stopped_once_even_if_it_serves_the_rate_too() -> None:
    world = World()

    with world.provider:
        assert (world.binance.calls, world.upbit.calls) == (["start"], ["start"])

    assert (world.binance.calls, world.upbit.calls) == (["start", "stop"], ["start", "stop"])


def test_a_provider_that_cannot_start_leaves_none_running() -> None:
    world = World()

    def fail() -> None:
        raise ConnectionError("no Redis answers")

    world.upbit.start = fail  # type: ignore[method-assign]

    with pytest.raises(ConnectionError, match="no Redis answers"):
        world.provider.start()

    assert not world.binance.running
    assert not world.provider.get_connection_status().is_running


@pytest.mark.parametrize("slow", ["binance", "upbit"])
def test_stopping_while_it_starts_leaves_none_running(slow: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world, reached, stopped = World(), threading.Event(), threading.Event()
    source: StubProvider = getattr(world, slow)
    start = source.start

    def start_late() -> None:
        reached.set()
        assert stopped.wait(5)
        start()

    monkeypatch.setattr(source, "start", start_late)
    starting = threading.Thread(target=world.provider.start)
    starting.start()
    assert reached.wait(5)
    world.provider.stop()
    stopped.set()
    starting.join(5)

    assert not starting.is_alive()
    assert (world.binance.running, world.upbit.running) == (False, False)
    assert not world.provider.get_connection_status().is_running


async def test_a_change_counts_once_however_many_listen() -> None:
    world = World()
    world.provider.on_snapshot(lambda _: None)
    world.provider.updates("BTC")
    async with world.provider, asyncio.timeout(10):
        updates = world.provider.updates("BTC")
        conflated = [(await anext(updates)).conflated]
        for price in (99_410.0, 99_420.0, 99_430.0):
            world.binance.put("BTC-USDT", ((price, 0.3),), ((price + 1, 1.0),))
            conflated.append((await anext(updates)).conflated)

    assert conflated == [0, 0, 0, 0]


async def test_updates_come_for_a_change_on_any_exchange_and_of_the_rate() -> None:
    world = World()
    async with world.provider, asyncio.timeout(10):
        updates = world.provider.updates("BTC")
        first = (await anext(updates)).snapshot
        world.binance.put("BTC-USDT", ((99_410.0, 0.3),), ((99_411.0, 1.0),))
        second = (await anext(updates)).snapshot
        world.upbit.put("USDT-KRW", ((1_390.0, 1.0),), ((1_391.0, 1.0),))
        third = (await anext(updates)).snapshot
        world.upbit.lose("BTC-KRW")
        fourth = (await anext(updates)).snapshot

    assert [book.best_bid() for book in (first, second, third, fourth)] == [
        99_400.0,
        99_410.0,
        138_459_000.0 / 1_391.0,
        99_410.0,
    ]
    assert first.update_id < second.update_id < third.update_id < fourth.update_id


def test_a_callback_gets_each_new_book() -> None:
    world, seen = World(), list[OrderBookSnapshot]()
    world.provider.on_snapshot(seen.append)
    with world.provider:
        world.binance.put("BTC-USDT", ((99_410.0, 0.3),), ((99_411.0, 1.0),))
        wait_for(lambda: seen)

    assert seen[-1].best_bid() == 99_410.0


def test_a_slow_read_never_numbers_older_books_after_newer_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    world, reading, go_on = World(), threading.Event(), threading.Event()
    observe = world.upbit._observe

    def slow(symbol: str) -> Observation:
        if threading.current_thread().name == "slow" and symbol == "BTC-KRW":  # which is read after Binance's book
            reading.set()
            assert go_on.wait(5)
        return observe(symbol)

    monkeypatch.setattr(world.upbit, "_observe", slow)
    books: dict[str, OrderBookSnapshot] = {}

    def read() -> None:
        books[threading.current_thread().name] = live(world.provider)

    threads = [threading.Thread(target=read, name=name) for name in ("slow", "quick")]
    threads[0].start()
    assert reading.wait(5)
    world.binance.put("BTC-USDT", ((99_450.0, 1.0),), ((99_451.0, 1.0),))
    threads[1].start()
    threads[1].join(0.2)  # it may have to wait for the slow one, or not
    go_on.set()
    for thread in threads:
        thread.join(5)

    oldest_first = sorted(books.values(), key=lambda book: book.update_id)
    assert [book.best_bid() for book in oldest_first] == sorted(book.best_bid() or 0.0 for book in oldest_first)
    assert live(world.provider).best_bid() == 99_450.0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"symbols": []}, "no symbols asked for"),
        ({"symbols": ["BTC-KRW"]}, "the common quote currency is USDT"),
        ({"providers": {}}, "no exchange given"),
        ({"fx": None}, "upbit quotes in KRW: name the exchange rate to USDT"),
        ({"quote": "EUR"}, "binance quotes in USDT: USDT-KRW is no rate from that to EUR"),
        ({"fees": {"kraken": 5.0}}, "a fee is given for kraken, which is not among binance, upbit"),
        ({"fees": {"upbit": float("nan")}}, "not a fee in bps: upbit=nan"),
        ({"max_skew": 0.0}, "max_skew must be above zero"),
        ({"max_age": 0.0}, "max_age must be above zero"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, object], complaint: str) -> None:
    world = World()
    usual = {
        "providers": {"binance": world.binance, "upbit": world.upbit},
        "symbols": ["BTC"],
        "fx": FxSource(world.upbit),
    }

    with pytest.raises(ValueError, match=complaint):
        MultiExchangeProvider(**{**usual, **arguments})  # type: ignore[arg-type]


def test_the_common_quote_may_be_the_foreign_one() -> None:
    world = World()
    provider = MultiExchangeProvider(
        {"binance": world.binance, "upbit": world.upbit}, ["BTC"], fx=FxSource(world.upbit, "KRW-USDT"), quote="KRW"
    )

    book = provider.consolidated("BTC")

    assert book.symbol == "BTC-KRW"
    assert book.best_bid() == VenueLevel(99_400.0 * 1400.0, 0.3, "binance")
    assert book.best_ask() == VenueLevel(138_600_000.0, 0.5, "upbit")


def test_assets_are_named_alone_or_as_a_pair_in_the_common_quote() -> None:
    assert base_assets(["btc", "ETH-USDT", "SOLUSDT", "WBTC", "BTC"], "USDT") == ["BTC", "ETH", "SOL", "WBTC"]


@pytest.mark.parametrize("name", ["BTC-KRW", "USDT", "", "B C"])
def test_what_is_no_asset_is_refused(name: str) -> None:
    with pytest.raises(SymbolError):
        base_assets([name], "USDT")


def test_given_fees_replace_the_usual_ones() -> None:
    world = World()
    provider = MultiExchangeProvider(
        {"binance": world.binance, "upbit": world.upbit}, ["BTC"], fx=FxSource(world.upbit), fees={"binance": 0.0}
    )

    (found,) = provider.opportunities("BTC")

    assert found.fees_bps == 5.0


def test_reading_blocks_where_a_provider_asks_the_network_each_time() -> None:
    world = World()
    asked = StubProvider("bybit", blocking_reads=True)

    assert MultiExchangeProvider({"binance": world.binance, "bybit": asked}, ["BTC"]).blocking_reads
    assert not world.provider.blocking_reads
