"""The shipped strategies."""

import inspect

import pytest

from bookbus.consumers.paper.examples.two_leg_arbitrage import TwoLegArbitrage
from bookbus.consumers.paper.examples.two_sided_quoter import TwoSidedQuoter
from bookbus.consumers.strategy import Strategy
from bookbus.schemas.snapshot import Levels
from tests.support.documents import block
from tests.support.strategy_world import StrategyWorld, market

FULL: Levels = ((100.0, 5.0), (99.0, 5.0))
DEAR: Levels = ((110.0, 5.0), (109.0, 5.0))


def two_exchanges(latency: str) -> StrategyWorld:
    names = ("binance:BTC-USDT", "bybit:BTC-USDT")
    markets = [market(exchange=name.partition(":")[0], name=name) for name in names]
    return StrategyWorld(*markets, latency=latency, strategy=TwoLegArbitrage())


@pytest.mark.parametrize("kind", [TwoSidedQuoter, TwoLegArbitrage])
def test_strategy_is_short(kind: type[Strategy]) -> None:
    assert len([line for line in inspect.getsource(kind).splitlines() if line.strip()]) <= 45


def test_documented_strategy_is_short() -> None:
    lines = block("docs/how-to/write-a-strategy.md", "python").splitlines()

    assert len([line for line in lines if line.strip()]) <= 30


def test_arbitrage_buys_where_it_is_cheap_and_sells_where_it_is_dear() -> None:
    world = two_exchanges("0")

    world.book(1.0, DEAR, ((111.0, 5.0),), exchange="bybit")
    world.until(2.0)

    fills = [(record.symbol, record.side, record.price) for record in world.records if record.quantity]
    assert fills == [("binance:BTC-USDT", "buy", 101.0), ("bybit:BTC-USDT", "sell", 110.0)]
    # 100 dollars' worth was bought at 101 and sold at 110.
    assert float(world.engine.pnl()["USDT"]) == pytest.approx(100 / 101 * 9)
    assert world.engine.changes()["BTC"] == 0


def test_leg_that_is_left_alone_is_closed() -> None:
    world = two_exchanges("binance:entry=1,bybit:entry=100,cancel=0,response=0")

    world.book(1.0, DEAR, ((111.0, 5.0),), exchange="bybit")
    world.book(50.0, FULL, ((101.0, 5.0),), exchange="bybit")
    world.until(500.0)

    fills = [(record.symbol, record.side, record.price) for record in world.records if record.quantity]
    assert fills == [("binance:BTC-USDT", "buy", 101.0), ("binance:BTC-USDT", "sell", 100.0)]
    assert world.balance("BTC") == 10.0


def test_quoter_quotes_both_sides_and_leans_against_what_it_holds() -> None:
    world = StrategyWorld(market(tick=0.01), latency="0", strategy=TwoSidedQuoter())
    world.until(600.0)
    bids = [(record.side, record.order_price) for record in world.records if record.event == "accepted"]
    assert bids == [("buy", 100.0), ("sell", 101.0)]

    world.trade(700.0, 99.0, 5.0, "sell")
    world.book(800.0, ((100.49, 1.0),), ((100.51, 1.0),))
    world.until(2_600.0)

    quotes = {order.side: order.price for order in world.engine.open_orders()}
    # The mid is 100.5, the half spread five bps; both quotes are two bps lower for the order that was bought.
    assert quotes == {"buy": 100.42, "sell": 100.54}


def test_quoter_withdraws_while_the_book_is_not_live() -> None:
    world = StrategyWorld(latency="0", strategy=TwoSidedQuoter())
    world.until(600.0)
    assert len(world.engine.open_orders()) == 2

    world.book(700.0, state="suspect")
    world.until(1_600.0)

    assert world.engine.open_orders() == []
