"""The paper runner: every price from the book, no trade without one, every result written."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from bookbus.consumers.multi_provider import FxSource, MultiExchangeProvider
from bookbus.consumers.paper.calibration.table import save_table
from bookbus.consumers.paper.market import MultiMarket
from bookbus.consumers.paper.runner import free_name, steady_clock
from bookbus.consumers.paper.settings import EntrySettings, RunSettings, check
from bookbus.schemas.instruments import EXCHANGES, Instrument, InstrumentRegistry
from tests.support.calibrations import table, zone
from tests.support.paper_world import SYMBOL, World
from tests.support.stub_provider import StubProvider

SETTINGS = RunSettings(
    source="redis", duration=10.0, trade_interval=10.0, order_quantity=0.5, sl_bps=500.0, fees={"binance": 10.0}
)


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    made.put(100.0, 101.0)
    return made


def only(values: list[dict[str, Any]], **like: object) -> dict[str, Any]:
    (found,) = [value for value in values if all(value[name] == wanted for name, wanted in like.items())]
    return found


def test_a_trade_buys_at_the_ask_sells_at_the_bid_and_pays_both_fees(world: World) -> None:
    world.at(5.0, lambda: world.put(100.5, 101.5))

    kpi = world.run(replace(SETTINGS, duration=15.0))

    buy, sell = [fill for fill in world.fills() if fill["trade_id"].endswith("-1")]
    assert (buy["side"], buy["effective_price"], buy["filled_quantity"], buy["exit_reason"]) == (
        "buy",
        101.0,
        0.5,
        None,
    )
    assert (sell["side"], sell["effective_price"], sell["exit_reason"]) == ("sell", 100.5, "time")
    assert (buy["fee"], sell["fee"]) == (pytest.approx(0.0505), pytest.approx(0.05025))
    # The second trade buys at 101.5 and is sold at 100.5 when the run ends.
    assert kpi.total_pnl == pytest.approx((100.5 - 101.0 + 100.5 - 101.5) * 0.5 - kpi.fees)
    assert kpi.balances["binance"][SYMBOL] == 0.0
    assert (kpi.end_reason, kpi.closed_trades, kpi.exits) == ("duration", 2, {"end": 1, "time": 1})


def test_both_the_decision_and_its_fill_go_by_one_book(world: World) -> None:
    for tenth in range(1, 100):
        world.at(tenth / 10, lambda: world.put(100.0, 101.0))

    world.run(SETTINGS)

    entered = only(world.decisions(), action="enter")
    buy = only(world.fills(), side="buy")
    assert entered["book_update_id"] == buy["book_update_id"]
    assert entered["trade_id"] == buy["trade_id"]


def test_a_trade_and_the_one_before_it_meet_on_one_book(world: World) -> None:
    for tenth in range(1, 200):
        world.at(tenth / 10, lambda: world.put(100.0, 101.0))

    world.run(replace(SETTINGS, duration=15.0))

    exit_of_first = only(world.fills(), exit_reason="time")
    entry_of_second = world.fills()[2]
    assert exit_of_first["book_update_id"] == entry_of_second["book_update_id"]


def test_a_decision_made_late_does_not_cost_the_next_one(world: World) -> None:
    # The second decision is made at 2.03 s, the third at 4.00 s.
    world.at(0.1, lambda: setattr(world, "boottime", 0.13))
    world.at(2.5, lambda: setattr(world, "boottime", 2.6))

    kpi = world.run(replace(SETTINGS, trade_interval=2.0))

    assert (kpi.entry_trades, kpi.skipped_decisions) == (5, {})


def test_volumes_are_those_of_the_book_and_a_thin_one_fills_in_part(world: World) -> None:
    world.put(100.0, 101.0, quantity=0.1)

    kpi = world.run(SETTINGS)

    buy = only(world.fills(), side="buy")
    # 10 bps beyond the best ask there is one level.
    assert (buy["available_volume"], buy["depth_volume"]) == (0.1, pytest.approx(0.3))
    assert (buy["filled_quantity"], buy["fill_ratio"], buy["fill_reason"]) == (0.1, 0.2, "partial")
    assert kpi.balances["binance"][SYMBOL] == 0.0


@pytest.mark.parametrize(
    ("corrupt", "reason"),
    [
        (lambda world: world.provider.change(SYMBOL, age=5.1), "stale"),
        (lambda world: world.provider.change(SYMBOL, age=5.1, feeder_alive=False), "feeder_down"),
        (lambda world: world.provider.lose(SYMBOL), "suspect"),
        (lambda world: world.provider.change(SYMBOL, snapshot=None), "missing"),
        (lambda world: world.provider.put(SYMBOL, ((100.0, 1.0),), ()), "one_sided"),
    ],
)
def test_a_book_that_may_not_be_believed_is_not_traded_on_and_the_reason_counted(
    world: World, corrupt: Any, reason: str
) -> None:
    corrupt(world)
    world.at(5.0, lambda: world.put(100.0, 101.0))

    kpi = world.run(replace(SETTINGS, trade_interval=2.0))

    assert kpi.skipped_decisions == {reason: 3}
    assert kpi.entry_trades == 2
    assert [decision["reason"] for decision in world.decisions()] == [reason] * 3 + [""] * 2
    assert set(kpi.orders_by_book_status) == {"live"}
    assert kpi.gaps.count == 1
    assert kpi.gaps.longest_seconds == pytest.approx(4.9)


@pytest.mark.parametrize("trading", ["halted", "auction", "delisted", "warning", "caution"])
def test_nothing_is_entered_in_a_market_that_does_not_trade_or_is_warned_of(world: World, trading: str) -> None:
    world.provider.change(SYMBOL, trading=trading)
    world.at(5.0, lambda: world.provider.change(SYMBOL, trading="trading"))

    kpi = world.run(replace(SETTINGS, trade_interval=2.0))

    assert kpi.skipped_decisions == {f"market_{trading}": 3}
    assert kpi.entry_trades == 2
    skipped = [decision for decision in world.decisions() if decision["action"] == "skip"]
    assert {(one["reason"], one["detail"]) for one in skipped} == {
        (f"market_{trading}", f"binance says of the market: {trading}")
    }


@pytest.mark.parametrize("trading", ["unknown", "trading"])
def test_a_market_of_which_nothing_bad_is_known_is_traded(world: World, trading: str) -> None:
    world.provider.change(SYMBOL, trading=trading)

    kpi = world.run(replace(SETTINGS, trade_interval=2.0))

    assert (kpi.entry_trades, kpi.skipped_decisions) == (5, {})


def test_a_book_that_is_not_live_is_skipped_for_that_reason_in_a_halted_market_too(world: World) -> None:
    world.provider.change(SYMBOL, trading="halted", age=5.1)

    assert world.run(SETTINGS).skipped_decisions == {"stale": 1}


@pytest.mark.parametrize(
    ("trading", "blocked", "sold_at"),
    [
        ("halted", {"market_halted": 1}, 90.0),
        ("auction", {"market_auction": 1}, 90.0),
        ("delisted", {"market_delisted": 1}, 90.0),
        ("warning", {}, 100.0),
        ("caution", {}, 100.0),
    ],
)
def test_an_exit_waits_for_the_end_of_a_halt_and_not_of_a_warning(
    world: World, trading: str, blocked: dict[str, int], sold_at: float
) -> None:
    def trade_again() -> None:
        world.put(90.0, 91.0)
        world.provider.change(SYMBOL, trading="trading")

    world.at(3.0, lambda: world.provider.change(SYMBOL, trading=trading))
    world.at(14.0, trade_again)

    kpi = world.run(replace(SETTINGS, duration=15.0))

    sell = only(world.fills(), side="sell")
    assert (kpi.blocked_exits, sell["effective_price"]) == (blocked, sold_at)


@pytest.mark.parametrize(
    ("listed", "now", "entries"),
    [("halted", "trading", 1), ("halted", "unknown", 0), ("trading", "halted", 0), ("unknown", "trading", 1)],
)
def test_what_the_exchange_says_now_counts_more_than_the_list_read_at_the_start(
    world: World, listed: Any, now: str, entries: int
) -> None:
    world.provider.change(SYMBOL, trading=now)
    registry = InstrumentRegistry(
        EXCHANGES["binance"], [Instrument("binance", "BTC", "USDT", "BTCUSDT", status=listed)]
    )

    assert world.run(SETTINGS, listed={"binance": registry}).entry_trades == entries


def test_an_exit_waits_for_a_book_and_says_why(world: World) -> None:
    world.at(3.0, lambda: world.provider.lose(SYMBOL))
    world.at(14.0, lambda: world.put(99.5, 100.5))

    kpi = world.run(replace(SETTINGS, duration=15.0))

    first = only(world.fills(), exit_reason="time")
    assert (first["effective_price"], first["timestamp"][17:21]) == (99.5, "34.0")
    assert kpi.blocked_exits == {"suspect": 1}
    assert only(world.decisions(), action="exit")["reason"] == "suspect"


@pytest.mark.parametrize(
    ("bid", "reason"), [(101.13, "take_profit"), (101.12, "time"), (100.87, "stop_loss"), (100.88, "time")]
)
def test_a_position_is_left_at_its_profit_its_loss_or_its_time(world: World, bid: float, reason: str) -> None:
    world.put(100.99, 101.0)
    world.at(2.0, lambda: world.put(bid, 101.5))

    world.run(replace(SETTINGS, duration=12.0, trade_interval=11.0, sl_bps=12.0))

    first = world.fills()[1]
    assert (first["exit_reason"], first["effective_price"]) == (reason, bid)


def test_a_stop_writes_the_results_and_sells_what_is_held(world: World) -> None:
    world.at(3.0, lambda: world.stop.ask("interrupted"))

    kpi = world.run(SETTINGS)

    assert (kpi.end_reason, kpi.open_trades, kpi.exits) == ("interrupted", 0, {"end": 1})
    written = msgspec.json.decode(next(world.directory.glob("kpi_*.json")).read_bytes())
    assert written["actual_duration_seconds"] == 3.0
    assert next(world.directory.glob("run_*.log")).exists()


def test_run_log_has_the_packages_records_and_the_root_logger_keeps_its_handlers(world: World) -> None:
    before, during = list(logging.getLogger().handlers), []

    def lose_connection() -> None:
        during.extend(logging.getLogger().handlers)
        logging.getLogger("bookbus.consumers.bus.session").warning("connection lost")

    world.at(3.0, lose_connection)

    world.run(SETTINGS)
    logging.getLogger("bookbus").warning("after the run")

    (log,) = world.directory.glob("run_*.log")
    assert during == before
    assert [line[24:] for line in log.read_text().splitlines()] == ["WARNING connection lost"]


def test_what_cannot_be_sold_at_the_end_stays_open_and_is_valued_at_the_last_mid(world: World) -> None:
    world.at(2.0, lambda: world.provider.lose(SYMBOL))

    kpi = world.run(SETTINGS)

    assert (kpi.open_trades, kpi.closed_trades, kpi.balances["binance"][SYMBOL]) == (1, 0, 0.5)
    assert kpi.total_pnl == pytest.approx((100.5 - 101.0) * 0.5 - kpi.fees)


def test_a_bug_is_raised_with_the_figures_so_far_on_record(world: World) -> None:
    def break_down() -> None:
        raise RuntimeError("what nobody thought of")

    world.at(3.0, break_down)

    with pytest.raises(RuntimeError):
        world.run(SETTINGS)

    written = msgspec.json.decode(next(world.directory.glob("kpi_*.json")).read_bytes())
    assert (written["end_reason"], written["fatal_errors"]) == ("error", 1)
    assert written["error"] == "RuntimeError: what nobody thought of"
    assert written["open_trades"] == 1


def test_limits_and_balances_stop_a_trade_with_their_reason(world: World) -> None:
    settings = replace(SETTINGS, trade_interval=2.0, duration=2.0)

    assert world.run(replace(settings, max_notional=50.0)).skipped_decisions == {"risk_notional": 1}
    assert world.run(replace(settings, cash=50.0)).skipped_decisions == {"no_balance": 1}


def test_what_the_exchange_said_of_its_orders_is_kept(world: World) -> None:
    instrument = Instrument("binance", "BTC", "USDT", "BTCUSDT", tick=0.5, step=0.2, minimum_notional=30.0)
    listed = {"binance": InstrumentRegistry(EXCHANGES["binance"], [instrument])}

    kpi = world.run(replace(SETTINGS, duration=15.0), listed=listed)
    refused = World(world.directory / "refused")
    refused.put(100.0, 101.0)

    assert {fill["order_quantity"] for fill in world.fills()} == {0.4}
    assert kpi.balances["binance"][SYMBOL] == 0.0
    small = refused.run(replace(SETTINGS, order_quantity=0.25), listed=listed)
    assert small.skipped_decisions == {"below_minimum_notional": 1}


@pytest.mark.parametrize(
    ("instrument", "sold", "reason"),
    [
        # Of 0.3 one step of 0.2 can be sold.
        (Instrument("binance", "BTC", "USDT", "BTCUSDT", tick=0.5, step=0.2), 0.2, "below_step"),
        # The order is worth 50, what is filled of it 30.
        (Instrument("binance", "BTC", "USDT", "BTCUSDT", minimum_notional=40.0), 0.0, "below_minimum_notional"),
    ],
)
def test_what_is_too_small_to_be_sold_stays_in_the_account_and_holds_nothing_up(
    world: World, instrument: Instrument, sold: float, reason: str
) -> None:
    world.provider.put(SYMBOL, ((100.0, 9.0),), ((101.0, 0.3),))
    for second in range(1, 30):
        world.at(second, lambda: world.provider.put(SYMBOL, ((100.0, 9.0),), ((101.0, 0.3),)))
    listed = {"binance": InstrumentRegistry(EXCHANGES["binance"], [instrument])}

    kpi = world.run(replace(SETTINGS, fill_model="simple", duration=15.0, trade_interval=5.0), listed=listed)

    bought = sum(fill["filled_quantity"] for fill in world.fills() if fill["side"] == "buy")
    assert (kpi.entry_trades, kpi.closed_trades, kpi.skipped_decisions) == (3, 3, {})
    assert kpi.blocked_exits[reason] == 3
    assert kpi.balances["binance"][SYMBOL] == pytest.approx(bought - 3 * sold)
    cash = sum(
        (1 if fill["side"] == "sell" else -1) * fill["filled_quantity"] * (fill["effective_price"] or 0.0)
        for fill in world.fills()
    )
    assert kpi.total_pnl == pytest.approx(cash + (bought - 3 * sold) * 100.5 - kpi.fees)


def test_a_profit_taken_is_one_whatever_whole_steps_leave_over(world: World) -> None:
    path = world.directory / "table.json"
    save_table(table(zone(tp=(0.0, 200.0), buy=0.625, sell=1.0)), path)
    settings = replace(
        SETTINGS,
        fill_model="calibrated",
        calibrated_mode="expected",
        calibration_path=str(path),
        order_quantity=0.8,
        entry=EntrySettings(minimum=0.0, maximum=0.0, tp_bps=100.0),
    )
    instrument = Instrument("binance", "BTC", "USDT", "BTCUSDT", tick=0.5, step=0.2)
    for second in (1.0, 2.0):
        world.at(second, lambda: world.put(100.0, 101.0))

    kpi = world.run(settings, listed={"binance": InstrumentRegistry(EXCHANGES["binance"], [instrument])})

    # Of 0.8 the table fills 0.5, of which 0.4 can be sold.
    assert [(fill["filled_quantity"], fill["effective_price"]) for fill in world.fills()] == [
        (0.5, 100.0),
        (0.4, 101.0),
    ]
    assert (kpi.exits, kpi.blocked_exits) == ({"take_profit": 1}, {"below_step": 1})


def test_a_loss_limit_ends_trading_for_the_day(world: World) -> None:
    kpi = world.run(replace(SETTINGS, trade_interval=1.0, max_daily_loss=1.0))

    # Each round trip costs half a dollar and its fees.
    assert kpi.closed_trades == 2
    assert kpi.skipped_decisions == {"risk_daily_loss": 8}


def test_intervals_that_nobody_was_there_for_are_counted(world: World) -> None:
    world.at(2.0, lambda: setattr(world, "boottime", 7.5))

    kpi = world.run(replace(SETTINGS, trade_interval=1.0))

    assert kpi.skipped_decisions == {"runner_late": 5}
    assert kpi.decisions == 10


def test_mark_outs_tell_how_the_mid_moved_after_a_fill(world: World) -> None:
    world.at(0.5, lambda: world.put(101.0, 102.0))
    world.at(4.0, lambda: world.provider.lose(SYMBOL))

    world.run(SETTINGS)

    buy = only(world.fills(), side="buy")
    found = world.markouts()[buy["order_id"]]
    assert found["markout_1s_bps"] == pytest.approx((101.5 - 101.0) / 101.0 * 1e4)
    assert found["markout_5s_bps"] is None
    assert "markout_30s_bps" not in found
    assert buy["markout_1s_bps"] is None


def test_the_hash_is_that_of_the_events_file(world: World) -> None:
    kpi = world.run(SETTINGS)

    assert kpi.fill_events_sha256 == hashlib.sha256(Path(kpi.fill_events_path).read_bytes()).hexdigest()
    assert kpi.fill_events_count == len(world.fills()) == 2


def test_symbols_of_different_quote_currencies_do_not_run_together(world: World) -> None:
    world.put(0.05, 0.051, symbol="ETH-BTC")

    with pytest.raises(ValueError, match="BTC and USDT"):
        world.run(SETTINGS)


def test_the_clock_goes_on_while_the_machine_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bookbus.consumers.paper.runner.boottime", lambda: now)
    clock = steady_clock()
    began = clock()

    now += 3_600.0

    assert clock() - began == pytest.approx(3_600.0)


def two_exchanges(world: World) -> MultiMarket:
    upbit = StubProvider("upbit")
    upbit.put("BTC-KRW", ((142_000.0, 2.0),), ((142_100.0, 2.0),))
    upbit.put("USDT-KRW", ((1400.0, 1e6),), ((1400.0, 1e6),))
    providers = {"binance": world.provider, "upbit": upbit}
    provider = MultiExchangeProvider(providers, ["BTC"], FxSource(upbit, "USDT-KRW"), {"binance": 10.0, "upbit": 5.0})
    return MultiMarket(provider, ["binance", "upbit"])


def test_legs_go_to_the_exchanges_that_are_best_after_fees_and_rate(world: World) -> None:
    # Upbit buys at 142,000 / 1400 = 101.43, Binance sells at 101.
    kpi = world.run(replace(SETTINGS, source="multi", inventory_notional=1000.0), two_exchanges(world))

    buy, sell = world.fills()
    assert (buy["exchange"], buy["effective_price"]) == ("binance", 101.0)
    assert (sell["exchange"], sell["effective_price"], sell["exit_reason"]) == (
        "upbit",
        pytest.approx(142_000 / 1400),
        "take_profit",
    )
    assert sell["fee"] == pytest.approx(0.5 * 142_000 / 1400 * 5e-4)
    assert kpi.total_pnl == pytest.approx((142_000 / 1400 - 101.0) * 0.5 - kpi.fees)


def test_a_book_that_does_not_change_is_sold_into_once(world: World) -> None:
    settings = replace(SETTINGS, source="multi", fill_model="simple", duration=15.0, trade_interval=5.0, cash=1e6)
    world.provider.put(SYMBOL, ((100.0, 0.1),), ((101.0, 1.0),))
    world.at(8.0, lambda: world.provider.put(SYMBOL, ((100.0, 0.1),), ((101.0, 1.0),)))

    world.run(settings, two_exchanges(world))

    sold = [fill for fill in world.fills() if fill["side"] == "sell"]
    assert [(fill["book_update_id"], fill["filled_quantity"]) for fill in sold] == [(2, 0.1), (3, 0.1)]


def test_an_exchange_cannot_sell_what_only_the_other_one_holds(world: World) -> None:
    world.run(replace(SETTINGS, source="multi"), two_exchanges(world))

    assert [fill["exchange"] for fill in world.fills()] == ["binance", "binance"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trade_interval": 0.0}, "--trade-interval"),
        ({"duration": float("nan")}, "--duration-seconds"),
        ({"order_notional": -1.0}, "--order-notional"),
        ({"fillmodel_mode": "strict"}, "--calibration-path"),
        ({"min_fill_probability": 1.1}, "--min-fill-probability"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(replace(SETTINGS, **change))


def test_amounts_not_given_fit_the_currency() -> None:
    assert SETTINGS.cash_in("USDT") == 10_000
    assert SETTINGS.cash_in("KRW") == 10_000_000
    assert replace(SETTINGS, cash=5.0).cash_in("KRW") == 5.0
    assert SETTINGS.limits_in("KRW").max_daily_loss == 1_000_000


def test_two_runs_of_one_second_have_two_names(tmp_path: Path) -> None:
    assert [free_name(tmp_path, "20250101_000000") for _ in range(3)] == [
        "20250101_000000",
        "20250101_000000-2",
        "20250101_000000-3",
    ]
