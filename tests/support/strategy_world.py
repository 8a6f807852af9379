"""A strategy's engine in simulated time, over books and trades that a test sends."""

from collections.abc import Callable
from typing import Literal

from bookbus.consumers.paper.engine import Engine, MarketRules, OrderRecord
from bookbus.consumers.paper.latency import Latency, parse_latency
from bookbus.consumers.reading import Reading
from bookbus.consumers.strategy import Context, Order, OrderUpdate, Strategy, TimeInForce
from bookbus.schemas.instruments import Instrument
from bookbus.schemas.snapshot import BookStatus, Levels, OrderBookSnapshot, Side, StoredState
from bookbus.schemas.trade import Trade
from tests.support.builders import book

START_US = 1_700_000_000_000_000
BIDS: Levels = ((100.0, 1.0), (99.0, 2.0), (98.0, 3.0))
ASKS: Levels = ((101.0, 1.0), (102.0, 2.0), (103.0, 3.0))


class Recorded(Strategy):
    """Keeps all it is told; `react` is called with each answer."""

    def __init__(self) -> None:
        self.context: Context | None = None
        self.heard: list[str] = []
        self.updates: list[OrderUpdate] = []
        self.react: Callable[[Context, Order, OrderUpdate], None] = lambda *_: None

    def on_start(self, ctx: Context) -> None:
        self.context = ctx
        self.heard.append("start")

    def on_book(self, ctx: Context, book: OrderBookSnapshot) -> None:
        self.heard.append("book")

    def on_trade(self, ctx: Context, trade: Trade) -> None:
        self.heard.append("trade")

    def on_timer(self, ctx: Context) -> None:
        self.heard.append("timer")

    def on_order(self, ctx: Context, order: Order, update: OrderUpdate) -> None:
        self.heard.append(update.event)
        self.updates.append(update)
        self.react(ctx, order, update)

    def on_stop(self, ctx: Context) -> None:
        self.heard.append("stop")


def market(
    symbol: str = "BTC-USDT",
    exchange: str = "binance",
    *,
    name: str = "",
    tick: float | None = 0.5,
    step: float | None = None,
    minimum_notional: float | None = None,
    maker_bps: float = 0.0,
    taker_bps: float = 0.0,
    fee_in_base: bool = False,
) -> MarketRules:
    base, quote = symbol.split("-")
    instrument = Instrument(exchange, base, quote, base + quote, tick, step, minimum_notional)
    return MarketRules(name or symbol, instrument, maker_bps, taker_bps, fee_in_base)


class StrategyWorld:
    """One engine with 10,000 of each quote asset and 10 of each base asset; milliseconds since the start."""

    def __init__(
        self,
        *markets: MarketRules,
        latency: str | Latency = "0",
        strategy: Strategy | None = None,
        sample_seconds: float = 10.0,
    ) -> None:
        self.records: list[OrderRecord] = []
        self.strategy = strategy or Recorded()
        self.status = BookStatus.LIVE
        self._books: dict[tuple[str, str], OrderBookSnapshot] = {}
        self._update_id = 0
        rules = markets or (market(),)
        self.engine = Engine(
            "it",
            self.strategy,
            rules,
            self._read,
            parse_latency(latency, 1, lambda _: 0) if isinstance(latency, str) else latency,
            self.records.append,
            sample_seconds=sample_seconds,
        )
        deposits = {
            (rule.instrument.exchange, asset): amount
            for rule in rules
            for asset, amount in ((rule.instrument.base, 10.0), (rule.instrument.quote, 10_000.0))
        }
        for (exchange, asset), amount in deposits.items():
            self.engine.deposit(exchange, asset, amount)
        first = [self.snapshot(0, exchange=rule.instrument.exchange, symbol=rule.instrument.symbol) for rule in rules]
        self.engine.start(START_US, first)

    @property
    def ctx(self) -> Context:
        assert isinstance(self.strategy, Recorded)
        assert self.strategy.context is not None
        return self.strategy.context

    @property
    def told(self) -> list[str]:
        """Events of orders, as the strategy was told them."""
        assert isinstance(self.strategy, Recorded)
        return [update.event for update in self.strategy.updates]

    @property
    def last(self) -> OrderUpdate:
        assert isinstance(self.strategy, Recorded)
        return self.strategy.updates[-1]

    def snapshot(
        self,
        at: float,
        bids: Levels = BIDS,
        asks: Levels = ASKS,
        *,
        exchange: str = "binance",
        symbol: str = "BTC-USDT",
        state: StoredState = "live",
        depth: int = 20,
    ) -> OrderBookSnapshot:
        self._update_id += 1
        at_us = START_US + round(at * 1e3)
        made = book(
            symbol,
            exchange=exchange,
            bids=bids,
            asks=asks,
            state=state,
            update_id=self._update_id,
            received_us=at_us,
            exchange_us=at_us,
            depth=depth,
        )
        self._books[exchange, symbol] = made
        return made

    def book(
        self,
        at: float,
        bids: Levels = BIDS,
        asks: Levels = ASKS,
        *,
        exchange: str = "binance",
        symbol: str = "BTC-USDT",
        state: StoredState = "live",
        depth: int = 20,
    ) -> None:
        made = self.snapshot(at, bids, asks, exchange=exchange, symbol=symbol, state=state, depth=depth)
        self.engine.receive(START_US + round(at * 1e3), made)

    def trade(self, at: float, price: float, quantity: float, aggressor: Side, *, sent: float | None = None) -> None:
        """A trade that is received at `at`; it happened, and the feeder received it, at `sent`."""
        at_us = START_US + round((at if sent is None else sent) * 1e3)
        one = Trade("binance", "BTC-USDT", "BTCUSDT", at_us, price, quantity, aggressor, at_us, at_us)
        self.engine.receive(START_US + round(at * 1e3), one)

    def until(self, at: float) -> None:
        self.engine.advance(START_US + round(at * 1e3))

    def stop(self, at: float) -> None:
        self.engine.stop(START_US + round(at * 1e3))

    def buy(
        self,
        price: float | Literal["market"],
        quantity: float,
        time_in_force: TimeInForce = "GTC",
        post_only: bool = False,
    ) -> Order:
        order = self.ctx.buy("BTC-USDT", price, quantity, time_in_force, post_only)
        self.engine.advance(self.engine.now_us)
        return order

    def sell(
        self,
        price: float | Literal["market"],
        quantity: float,
        time_in_force: TimeInForce = "GTC",
        post_only: bool = False,
    ) -> Order:
        order = self.ctx.sell("BTC-USDT", price, quantity, time_in_force, post_only)
        self.engine.advance(self.engine.now_us)
        return order

    def balance(self, asset: str, exchange: str = "binance") -> float:
        return self.engine.balances()[exchange][asset]

    def _read(self, exchange: str, symbol: str, now_us: int) -> Reading:
        made = self._books[exchange, symbol]
        status = BookStatus(made.state) if made.state != "live" else self.status
        return Reading(made, status, 0.0, "" if status is BookStatus.LIVE else "a test says so")
