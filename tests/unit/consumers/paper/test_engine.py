"""The life of a strategy's orders, and what fills them."""

import math
from collections import defaultdict
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookbus.consumers.paper.account import exact
from bookbus.consumers.strategy import Context, Order, OrderUpdate, Strategy
from bookbus.schemas.instruments import SymbolError
from bookbus.schemas.snapshot import BookStatus, OrderBookSnapshot
from tests.support.strategy_world import BIDS, START_US, Recorded, StrategyWorld, market


def test_order_takes_effect_and_is_answered_after_the_latencies() -> None:
    world = StrategyWorld(latency="entry=50,response=20")

    order = world.buy("market", 0.5)
    world.until(49.9)
    assert (order.status, world.records[-1].event) == ("sent", "sent")
    world.until(50.0)
    assert (order.status, world.records[-1].event, world.ctx.position("BTC-USDT")) == ("sent", "filled", 10.0)
    world.until(70.0)

    assert (order.status, order.filled, order.average_price) == ("filled", 0.5, 101.0)
    assert world.told == ["accepted", "filled"]
    assert (world.ctx.position("BTC-USDT"), world.ctx.cash("BTC-USDT")) == (10.5, 9949.5)


def test_order_meets_the_book_as_it_is_when_it_arrives() -> None:
    world = StrategyWorld(latency="50")

    order = world.sell("market", 1.0)
    world.book(40.0, bids=((99.0, 5.0),))
    world.until(200.0)

    assert order.average_price == 99.0


def test_market_order_walks_the_published_levels_and_no_further() -> None:
    world = StrategyWorld()

    order = world.buy("market", 7.0)

    assert (order.status, order.filled) == ("expired", 6.0)
    assert order.average_price == pytest.approx((101 + 204 + 309) / 6)
    assert world.told == ["accepted", "partly_filled", "expired"]


def test_what_is_taken_is_not_there_again() -> None:
    world = StrategyWorld()

    orders = [world.buy(101.0, 0.75, "IOC"), world.buy(101.0, 0.75, "IOC")]
    world.book(1.0)
    orders.append(world.buy(101.0, 0.75, "IOC"))

    assert [order.filled for order in orders] == [0.75, 0.25, 0.0]


def test_fill_or_kill_fills_whole_or_not_at_all() -> None:
    world = StrategyWorld()

    small, large = world.buy(101.0, 1.0, "FOK"), world.buy(102.0, 2.5, "FOK")

    assert (small.status, small.filled) == ("filled", 1.0)
    assert (large.status, large.filled) == ("expired", 0.0)


def test_rest_of_a_limit_order_waits_at_its_price() -> None:
    world = StrategyWorld()

    order = world.buy(101.0, 1.5)
    assert (order.status, order.filled) == ("open", 1.0)
    world.trade(1.0, 101.0, 0.25, "sell")
    world.trade(2.0, 101.0, 9.0, "sell")

    assert world.told == ["accepted", "partly_filled", "partly_filled", "filled"]
    assert [record.liquidity for record in world.records if record.quantity] == ["taker", "maker", "maker"]


def test_post_only_order_that_would_take_is_rejected() -> None:
    world = StrategyWorld()

    order = world.buy(101.0, 0.5, post_only=True)

    assert (order.status, world.last.reason, world.balance("USDT")) == ("rejected", "would_take", 10_000.0)


def test_waiting_order_is_filled_after_what_is_ahead() -> None:
    world = StrategyWorld()
    order = world.buy(100.0, 0.5, post_only=True)

    world.trade(1.0, 100.0, 0.75, "sell")
    assert order.filled == 0
    world.trade(2.0, 100.0, 0.5, "sell")
    assert order.filled == 0.25
    world.trade(3.0, 100.0, 0.1, "buy")  # takes asks
    assert order.filled == 0.25
    world.trade(4.0, 99.5, 0.5, "sell")

    assert (order.status, order.average_price) == ("filled", 100.0)


def test_trades_since_the_newest_book_are_not_ahead_any_more() -> None:
    world = StrategyWorld()
    world.trade(1.0, 100.0, 0.75, "sell")
    order = world.buy(100.0, 0.5)

    world.trade(2.0, 100.0, 0.5, "sell")

    assert order.filled == 0.25


def test_own_computing_delays_orders_in_a_live_run() -> None:
    world = StrategyWorld(latency="entry=50,response=0")
    world.engine._clock_us = lambda: START_US + 300_000
    order = world.buy("market", 0.5)

    world.until(349.0)
    assert world.told == []
    world.until(350.0)

    assert (world.told, order.status) == (["accepted", "filled"], "filled")


def test_two_orders_share_what_a_trade_leaves() -> None:
    world = StrategyWorld()
    first, second = world.buy(100.0, 0.5), world.buy(100.0, 0.5)

    world.trade(1.0, 100.0, 1.75, "sell")

    assert (first.filled, second.filled) == (0.5, 0.25)


def test_better_price_is_filled_first_from_one_trade() -> None:
    world = StrategyWorld()
    low, high = world.buy(99.5, 1.0), world.buy(100.5, 1.0)

    world.trade(1.0, 99.0, 1.5, "sell")

    assert (high.filled, low.filled) == (1.0, 0.5)


def test_orders_of_one_account_do_not_trade_with_each_other() -> None:
    world = StrategyWorld()
    bid = world.buy(100.5, 0.5)

    ask = world.sell(100.5, 2.0)
    beyond = world.sell("market", 2.0, "IOC")

    assert (ask.status, ask.filled, world.last.reason) == ("expired", 0.0, "self_trade")
    assert (beyond.status, beyond.filled) == ("expired", 0.0)
    assert (bid.status, bid.filled) == ("open", 0.0)


def test_opposite_best_price_that_reaches_an_order_fills_what_it_shows_and_its_trade_nothing_again() -> None:
    world = StrategyWorld()
    order = world.buy(100.0, 1.0)

    world.book(10.0, bids=((98.0, 1.0),), asks=((99.5, 0.25), (100.0, 0.25), (101.0, 1.0)))
    assert (order.filled, order.average_price) == (0.5, 100.0)
    world.trade(11.0, 99.5, 0.5, "sell", sent=9.0)
    world.trade(12.0, 99.5, 0.25, "buy")
    assert order.filled == 0.5  # those who sold it, and those who bought it

    world.book(13.0, bids=((98.0, 1.0),), asks=((101.0, 1.0),))
    world.trade(14.0, 99.5, 0.25, "sell")

    assert order.filled == 0.75


def test_level_that_an_order_took_does_not_fill_its_rest_when_somebody_else_takes_it() -> None:
    world = StrategyWorld()
    order = world.buy(101.5, 1.5)
    assert order.filled == 1.0

    world.trade(1.0, 101.0, 1.0, "buy")
    assert order.filled == 1.0
    world.trade(2.0, 101.0, 1.25, "buy")

    assert order.filled == 1.25


def test_trade_that_an_order_did_not_meet_on_its_way_fills_nothing() -> None:
    world = StrategyWorld(latency="entry=50,response=0")
    order = world.buy(100.0, 0.5)
    world.until(60.0)

    world.trade(70.0, 99.0, 5.0, "sell", sent=40.0)
    assert order.filled == 0.0
    world.trade(80.0, 99.0, 0.25, "sell")

    assert order.filled == 0.25


@pytest.mark.parametrize("how", ["suspect", "stale"])
def test_book_that_is_not_live_fills_nothing(how: str) -> None:
    world = StrategyWorld()
    waiting = world.buy(100.0, 0.5)

    world.book(1.0, state="suspect" if how == "suspect" else "live")
    world.status = BookStatus.STALE if how == "stale" else BookStatus.LIVE
    world.trade(2.0, 99.0, 9.0, "sell")
    taking = world.buy("market", 0.5)
    posted = world.buy(99.0, 0.5, post_only=True)
    resting = world.buy(99.0, 0.5)

    assert waiting.filled == 0
    assert (taking.status, posted.status, resting.status) == ("rejected", "rejected", "open")
    assert world.engine.rejections["book_not_live"] == 2


def test_cancel_may_lose_against_a_fill() -> None:
    world = StrategyWorld(latency="entry=0,cancel=50,response=0")
    order = world.buy(100.0, 0.5)

    world.ctx.cancel(order)
    world.trade(30.0, 99.0, 9.0, "sell")
    world.until(60.0)

    assert world.told == ["accepted", "filled", "cancel_refused"]
    assert (order.status, world.last.reason) == ("filled", "too_late")


def test_cancelled_order_frees_what_it_reserved() -> None:
    world = StrategyWorld()
    first = world.buy(100.0, 60.0)
    assert world.buy(100.0, 60.0).status == "rejected"

    world.ctx.cancel(first)
    world.until(1.0)

    assert first.status == "cancelled"
    assert world.buy(100.0, 60.0).status == "open"


def test_smaller_quantity_keeps_the_place_and_any_other_change_loses_it() -> None:
    world = StrategyWorld()
    kept, moved, larger = world.buy(100.0, 0.5), world.buy(100.0, 0.5), world.buy(100.0, 0.5)

    world.trade(1.0, 100.0, 1.0, "sell")  # all that was ahead
    world.book(1.5)
    world.ctx.amend(kept, quantity=0.25)
    world.ctx.amend(moved, price=99.0)
    world.ctx.amend(larger, quantity=0.75)
    world.until(2.0)
    assert [order.quantity for order in (kept, moved, larger)] == [0.25, 0.5, 0.75]
    world.book(3.0)
    world.trade(4.0, 100.0, 0.5, "sell")

    assert (kept.status, moved.filled, larger.filled) == ("filled", 0.0, 0.0)


def test_amendment_that_cannot_be_leaves_the_order_as_it_was() -> None:
    world = StrategyWorld()
    order = world.buy(100.0, 50.0, post_only=True)
    free = world.balance("USDT")

    world.ctx.amend(order, price=101.0)
    world.ctx.amend(order, quantity=500.0)
    world.until(1.0)

    assert world.told == ["accepted", "cancel_refused", "cancel_refused"]
    assert (order.status, order.price, order.quantity, world.balance("USDT")) == ("open", 100.0, 50.0, free)
    assert world.buy(100.0, 50.0).status == "open"


def test_amending_below_what_is_filled_cancels_the_rest() -> None:
    world = StrategyWorld()
    order = world.buy(101.0, 1.5)

    world.ctx.amend(order, quantity=0.5)
    world.until(1.0)

    assert (order.status, order.filled) == ("cancelled", 1.0)


@pytest.mark.parametrize(
    ("price", "quantity", "reason"),
    [
        (100.0, 0.0004, "below_step"),
        (100.0, -1.0, "invalid"),
        (math.nan, 1.0, "invalid"),
        (100.0, 0.01, "below_minimum_notional"),
        (100.0, 200.0, "no_balance"),
        ("market", 200.0, "no_balance"),
    ],
)
def test_rejected_order_changes_nothing(price: float, quantity: float, reason: str) -> None:
    world = StrategyWorld(market(step=0.001, minimum_notional=5.0))
    world.engine.deposit("binance", "USDT", -9_700.0)
    before = world.engine.balances()

    order = world.buy(price, quantity)

    assert (order.status, world.last.reason) == ("rejected", reason)
    assert world.engine.balances() == before
    assert world.ctx.open_orders == []
    assert world.buy(101.0, 1.0).filled == 1.0  # nothing was taken or reserved


@pytest.mark.parametrize(("in_base", "status"), [(False, "rejected"), (True, "open")])
def test_fee_is_reserved_where_it_is_charged(in_base: bool, status: str) -> None:
    world = StrategyWorld(market(maker_bps=5.0, taker_bps=10.0, fee_in_base=in_base))

    assert world.buy(100.0, 100.0).status == status


def test_nothing_is_sold_that_is_not_held() -> None:
    world = StrategyWorld()

    assert world.sell(101.0, 8.0).status == "open"
    assert world.sell(101.0, 3.0).status == "rejected"


def test_numbers_are_rounded_as_the_exchange_takes_them() -> None:
    world = StrategyWorld(market(step=0.01, tick=0.5))

    bid, ask = world.buy(99.7, 0.5155), world.sell(101.2, 0.5155)

    assert ((bid.price, bid.quantity), (ask.price, ask.quantity)) == ((99.5, 0.51), (101.5, 0.51))


def test_tick_that_is_not_known_is_the_one_that_prices_show() -> None:
    world = StrategyWorld(market(tick=None))

    assert (world.buy(99.7, 0.5).price, world.sell(101.2, 0.5).price) == (99.0, 102.0)


def test_fee_in_base_reduces_what_was_bought_and_leaves_dust() -> None:
    world = StrategyWorld(market(step=0.01, taker_bps=10.0, fee_in_base=True))

    order = world.buy("market", 1.0)
    sold = world.sell("market", world.ctx.position("BTC-USDT") - 10.0)

    assert (order.fee, order.fee_asset) == (0.001, "BTC")
    assert (sold.filled, sold.fee_asset) == (0.99, "USDT")
    assert world.balance("BTC") == pytest.approx(10.009)
    assert float(world.engine.pnl()["USDT"]) == pytest.approx(-101 + 99 - 0.099 + 0.009 * 100.5)


def test_legs_have_latencies_of_their_own_and_one_may_fill_without_the_other() -> None:
    world = StrategyWorld(market(), market("BTC-KRW", "upbit"), latency="binance:entry=10,upbit:entry=100")
    ctx = world.ctx

    near, far = ctx.buy("BTC-USDT", 101.0, 0.5, "IOC"), ctx.sell("BTC-KRW", 100.0, 0.5, "IOC")
    world.book(50.0, bids=((90.0, 1.0),), asks=((91.0, 1.0),), exchange="upbit", symbol="BTC-KRW")
    world.until(500.0)

    assert (near.status, far.status) == ("filled", "expired")
    assert set(world.engine.pnl()) == {"USDT", "KRW"}


def test_crash_ends_the_strategy_with_its_traceback_and_cancels_its_orders() -> None:
    world = StrategyWorld()
    order = world.buy(100.0, 0.5)
    strategy = world.strategy
    assert isinstance(strategy, Recorded)

    def fail(ctx: Context, order: Order, update: OrderUpdate) -> None:
        raise KeyError("mistake")

    strategy.react = fail
    world.buy("market", 0.5)
    told = len(strategy.heard)
    world.book(2.0)
    world.stop(3.0)

    assert world.engine.error == "KeyError: 'mistake'"
    assert 'raise KeyError("mistake")' in world.engine.traceback
    assert [record.event for record in world.records if record.order_id == order.id][-1] == "cancelled"
    assert len(strategy.heard) == told


def test_orders_that_cause_each_other_without_latency_come_to_an_end() -> None:
    world = StrategyWorld()
    strategy = world.strategy
    assert isinstance(strategy, Recorded)
    strategy.react = lambda ctx, *_: ctx.cancel(ctx.buy("BTC-USDT", 100.0, 0.001))

    world.buy(100.0, 0.001)

    assert world.engine.error.startswith("more than 10000 orders")


def test_end_cancels_what_is_open_and_lets_the_strategy_act_once_more() -> None:
    class Leaves(Recorded):
        def on_stop(self, ctx: Context) -> None:
            super().on_stop(ctx)
            ctx.sell("BTC-USDT", "market", 0.5)

    world = StrategyWorld(latency="50", strategy=Leaves())
    open_one = world.buy(100.0, 0.5)
    world.until(200.0)
    on_its_way = world.buy("market", 0.5)
    world.stop(210.0)

    assert (open_one.status, on_its_way.status) == ("cancelled", "cancelled")
    assert isinstance(world.strategy, Recorded)
    assert world.strategy.heard[-3:] == ["stop", "accepted", "filled"]
    assert world.ctx.position("BTC-USDT") == world.balance("BTC") == 9.5


def test_timer_is_called_at_its_interval() -> None:
    class Timed(Recorded):
        timer = 0.25

    world = StrategyWorld(strategy=Timed())

    world.until(1_000.0)

    assert isinstance(world.strategy, Recorded)
    assert world.strategy.heard == ["start", *["timer"] * 4]


def test_unknown_symbol_and_contradicting_options_are_the_strategys_mistake() -> None:
    world = StrategyWorld(market(name="binance:BTC-USDT"), market(exchange="bybit", name="bybit:BTC-USDT"))

    for name in ("ETH-USDT", "BTC-USDT"):
        with pytest.raises(SymbolError, match=f"no symbol '{name}'"):
            world.ctx.buy(name, 1.0, 1.0)
    with pytest.raises(ValueError, match="post-only"):
        world.ctx.buy("binance:BTC-USDT", "market", 1.0, post_only=True)


PRICES = st.sampled_from([98.0, 99.0, 99.5, 100.0, 100.5, 101.0, 102.0])
QUANTITIES = st.sampled_from([0.1, 0.25, 0.7, 1.0, 3.0])
LEVELS = st.lists(QUANTITIES, min_size=0, max_size=3)
STEPS = st.one_of(
    st.tuples(st.just("buy"), st.one_of(PRICES, st.just("market")), QUANTITIES, st.sampled_from(["GTC", "IOC", "FOK"])),
    st.tuples(
        st.just("sell"), st.one_of(PRICES, st.just("market")), QUANTITIES, st.sampled_from(["GTC", "IOC", "FOK"])
    ),
    st.tuples(st.just("cancel"), st.integers(0, 5)),
    st.tuples(st.just("amend"), st.integers(0, 5), PRICES, QUANTITIES),
    st.tuples(st.just("book"), PRICES, LEVELS, LEVELS, st.sampled_from(["live", "live", "live", "suspect"])),
    st.tuples(st.just("trade"), PRICES, QUANTITIES, st.sampled_from(["buy", "sell"])),
)


@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(STEPS, max_size=30),
    latency=st.sampled_from(["0", "50", "entry=80,cancel=10,response=200"]),
    fee=st.sampled_from([0.0, 10.0, -1.0]),
    in_base=st.booleans(),
)
def test_no_fill_exceeds_order_trade_or_book_and_profit_is_what_the_account_shows(
    steps: list[tuple[Any, ...]], latency: str, fee: float, in_base: bool
) -> None:
    rules = market(maker_bps=fee, taker_bps=fee, fee_in_base=in_base)
    world = StrategyWorld(rules, latency=latency)
    live = True
    for number, step in enumerate(steps):
        at, before = 25.0 * (number + 1), len(world.records)
        world.until(at)
        shown = world._books["binance", "BTC-USDT"]
        match step:
            case ("buy" | "sell" as side, price, quantity, tif):
                send = world.ctx.buy if side == "buy" else world.ctx.sell
                send("BTC-USDT", price, quantity, tif)
            case ("cancel", index):
                for order in world.ctx.open_orders[index : index + 1]:
                    world.ctx.cancel(order)
            case ("amend", index, price, quantity):
                for order in world.ctx.open_orders[index : index + 1]:
                    if order.price is not None:
                        world.ctx.amend(order, price=price, quantity=quantity)
            case ("book", price, bids, asks, state):
                bid_levels = tuple((price - 1 - i, quantity) for i, quantity in enumerate(bids))
                ask_levels = tuple((price + i, quantity) for i, quantity in enumerate(asks))
                before = len(world.records)
                world.book(at, bid_levels, ask_levels, state=state)
                live = state == "live"
                shown = world._books["binance", "BTC-USDT"]
            case ("trade", price, quantity, aggressor):
                before = len(world.records)
                world.trade(at, price, quantity, aggressor)
                fills = [record for record in world.records[before:] if record.quantity]
                assert math.fsum(record.quantity for record in fills) <= quantity * (1 + 1e-12)
                assert all(record.liquidity == "maker" for record in fills)
        new = [record for record in world.records[before:] if record.quantity]
        if not live:
            assert new == []
        for side, levels in (("buy", shown.asks), ("sell", shown.bids)):
            if isinstance(step[0], str) and step[0] != "trade":
                taken = math.fsum(record.quantity for record in new if record.side == side)
                assert taken <= math.fsum(quantity for _, quantity in levels) * (1 + 1e-12)
    world.stop(25.0 * (len(steps) + 1) + 1_000)

    flows: defaultdict[str, Fraction] = defaultdict(Fraction)
    for record in world.records:
        assert record.filled <= record.order_quantity * (1 + 1e-12)
        if record.quantity:
            assert record.price is not None
            sign = 1 if record.side == "buy" else -1
            if record.order_price is not None:
                assert sign * record.price <= sign * record.order_price * (1 + sign * 1e-12)
            flows["BTC"] += sign * exact(record.quantity)
            flows["USDT"] -= sign * exact(record.quantity) * exact(record.price)
            flows[record.fee_asset] -= exact(record.fee)
    ledger, mid = world.engine.ledger("BTC-USDT"), world.engine.mark("BTC-USDT")
    assert world.engine.balance("binance", "BTC") - 10 == ledger.position
    assert world.engine.balance("binance", "USDT") - 10_000 == ledger.cash
    assert float(flows["BTC"]) == pytest.approx(float(ledger.position), abs=1e-9)
    assert float(flows["USDT"]) == pytest.approx(float(ledger.cash), abs=1e-7)
    assert mid is not None
    assert world.engine.changes() == {"BTC": ledger.position, "USDT": ledger.cash}
    assert world.engine.pnl()["USDT"] == ledger.cash + ledger.position * exact(mid)
    assert world.balance("BTC") >= 0
    assert world.balance("USDT") >= 0
    assert world.engine._reserved == defaultdict(Fraction, dict.fromkeys(world.engine._reserved, Fraction()))
    assert world.ctx.open_orders == []


def test_strategy_that_overrides_nothing_runs() -> None:
    world = StrategyWorld(strategy=Strategy())

    world.book(1.0, bids=BIDS)
    world.stop(2.0)

    assert (world.engine.error, world.records) == ("", [])


def test_readings_and_names_are_those_of_the_run() -> None:
    world = StrategyWorld(market(), market("ETH-USDT"))

    reading = world.ctx.reading("BTC-USDT")

    assert isinstance(reading.snapshot, OrderBookSnapshot)
    assert world.ctx.symbol_of(reading.snapshot) == "BTC-USDT"
    assert list(world.ctx.symbols) == ["BTC-USDT", "ETH-USDT"]
