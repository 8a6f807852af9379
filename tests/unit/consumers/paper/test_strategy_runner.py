"""Runs of strategies through recordings, and from providers."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bookbus.consumers.paper.engine import Engine, MarketRules, OrderRecord
from bookbus.consumers.paper.fills.model import BookOrder, TapeEvent
from bookbus.consumers.paper.fills.queue import QueuedOrder, QueueFill
from bookbus.consumers.paper.latency import parse_latency
from bookbus.consumers.paper.runner import Stop
from bookbus.consumers.paper.strategy_loader import StrategySpec, specs_of
from bookbus.consumers.paper.strategy_runner import (
    LiveSource,
    RecordedSource,
    StrategyFigures,
    StrategySettings,
    run_strategies_live,
    run_strategies_recorded,
    summary,
)
from bookbus.consumers.strategy import Context, Order, OrderUpdate, Strategy
from bookbus.schemas.capture import CaptureError
from bookbus.schemas.snapshot import Level, OrderBookSnapshot, Side
from bookbus.schemas.trade import Trade
from tests.support.binance_capture import write_capture
from tests.support.builders import book
from tests.support.captures import capture_path
from tests.support.documents import block
from tests.support.stub_provider import StubProvider

START_US = 1_700_000_000_000_000
SETTINGS = StrategySettings(source="capture:tape", symbols=("BTC",), inventory_notional=2_000.0)
CRASHING = """
from bookbus import Strategy

class Crashing(Strategy):
    books = 0

    def on_book(self, ctx, book):
        self.books += 1
        ctx.buy("BTC-USDT", book.bids[0][0], 0.01)
        if self.books == 20:
            raise RuntimeError("mistake")
"""


def walk(seconds: int = 120, seed: int = 1) -> Iterator[TapeEvent]:
    """A random walk of the mid price, with four books and some trades a second.

    The books are updates: a price that is not on a side has the quantity 0 there.
    """
    rng, mid = random.Random(seed), 10_000
    for number in range(seconds * 4):
        at_us = START_US + number * 250_000
        mid += rng.choice((-2, -1, 0, 1, 2))
        sides: tuple[list[Level], list[Level]] = ([], [])
        for price in range(mid - 20, mid + 21):
            quantity = round(rng.uniform(0.1, 1.5), 3)
            for side, is_there in zip(sides, (price < mid, price > mid), strict=True):
                side.append((float(price), quantity if is_there else 0.0))
        yield book(bids=tuple(reversed(sides[0])), asks=tuple(sides[1]), received_us=at_us, exchange_us=at_us)
        for _ in range(rng.randrange(3)):
            aggressor: Side = rng.choice(("buy", "sell"))
            price = mid + (1 if aggressor == "buy" else -1) * rng.choice((1, 1, 2))
            quantity, trade_us = round(rng.uniform(0.1, 2), 3), at_us + 100_000
            yield Trade("binance", "BTC-USDT", "BTCUSDT", number, float(price), quantity, aggressor, trade_us, trade_us)


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    path = tmp_path / "tape.jsonl.gz"
    write_capture(path, walk())
    return path


@pytest.fixture
def documented(tmp_path: Path) -> str:
    """The strategy of the documentation."""
    path = tmp_path / "my_bot.py"
    path.write_text(block("docs/how-to/write-a-strategy.md", "python"))
    return f"{path}:Imbalance"


def run(
    tape: Path, directory: Path, names: list[str], parameters: list[str], grid: str = "", **changes: Any
) -> list[StrategyFigures]:
    settings = msgspec.structs.replace(SETTINGS, **changes)
    specs = specs_of(names, parameters, grid)
    return run_strategies_recorded(specs, settings, [tape], directory, Stop(), lambda _: None)


def records(figures: StrategyFigures) -> list[OrderRecord]:
    lines = Path(figures.orders_path).read_bytes().splitlines()
    return [msgspec.json.decode(line, type=OrderRecord) for line in lines]


def test_recorded_run_twice_gives_the_same_bytes(tmp_path: Path, tape: Path, documented: str) -> None:
    names = ["two_sided_quoter", documented]

    first, second = (
        run(tape, tmp_path / directory, names, ["Imbalance.quantity=0.01"], "hold=1,5", inventory_notional=0.0)
        for directory in "ab"
    )

    assert len(first) == 3
    assert [one.orders_sha256 for one in first] == [one.orders_sha256 for one in second]
    assert len({one.orders_sha256 for one in first}) == 3
    assert all(one.orders.get("filled") for one in first)
    for name in ("orders_*", "equity_*"):
        files = [sorted((tmp_path / directory).glob(name)) for directory in "ab"]
        assert [path.name for path in files[0]] == [path.name for path in files[1]]
        assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


def test_profit_of_the_figures_is_that_of_the_order_file(tmp_path: Path, tape: Path) -> None:
    (figures,) = run(tape, tmp_path, ["two_sided_quoter"], ["half_spread_bps=1", "notional=500"], fees={"binance": 1.0})

    cash = position = fees = 0.0
    fills = [record for record in records(figures) if record.quantity]
    for record in fills:
        assert record.price is not None
        sign = 1 if record.side == "buy" else -1
        in_base = record.fee_asset == "BTC"
        cash -= sign * record.quantity * record.price + (0.0 if in_base else record.fee)
        position += sign * record.quantity - (record.fee if in_base else 0.0)
        fees += record.fee * (record.price if in_base else 1)
    (currency,), (symbol,) = figures.currencies, figures.symbols
    last = records(figures)[-1].mid
    assert len(fills) > 10
    assert {record.fee_asset for record in fills} == {"BTC", "USDT"}
    assert symbol.position == pytest.approx(position)
    assert currency.fees == pytest.approx(fees)
    assert symbol.fills == len(fills)
    assert last is not None
    assert currency.pnl == pytest.approx(cash + position * last, abs=abs(position) * 20)
    assert figures.balances["binance"]["USDT"] == pytest.approx(10_000 + cash)


def test_crash_of_one_strategy_does_not_change_the_others(tmp_path: Path, tape: Path) -> None:
    path = tmp_path / "crashing.py"
    path.write_text(CRASHING)
    (alone,) = run(tape, tmp_path / "a", ["two_sided_quoter"], [])

    crashed, other = run(tape, tmp_path / "b", [f"{path}:Crashing", "two_sided_quoter"], [])

    assert (crashed.end_reason, crashed.error) == ("crashed", "RuntimeError: mistake")
    assert "line 11, in on_book" in crashed.traceback
    assert crashed.orders["accepted"] > 0
    assert {record.reason for record in records(crashed) if record.event == "cancelled"} == {"crashed"}
    assert crashed.actual_duration_seconds < 10
    assert (other.end_reason, other.orders_sha256) == ("end_of_recording", alone.orders_sha256)
    assert "RuntimeError: mistake" in summary(crashed)


def test_strategies_that_share_an_account_have_one_balance_and_fail_alone(tmp_path: Path, tape: Path) -> None:
    path = tmp_path / "crashing.py"
    path.write_text(CRASHING)
    members = specs_of(["two_sided_quoter", f"{path}:Crashing"], [], "half_spread_bps=1,2")
    spec = StrategySpec("shared", members=tuple(members))

    first, second = (
        run_strategies_recorded([spec], SETTINGS, [tape], tmp_path / name, Stop(), lambda _: None)[0] for name in "ab"
    )

    assert first.orders_sha256 == second.orders_sha256
    assert (first.end_reason, first.error) == ("end_of_recording", "Crashing: RuntimeError: mistake")
    of_crashing = [record for record in records(first) if record.strategy == "Crashing"]
    assert {record.strategy for record in records(first)} == {"two_sided_quoter", "two_sided_quoter.2", "Crashing"}
    assert of_crashing[-1].time_us < START_US + 10_000_000
    done = {record.order_id for record in of_crashing if record.event in ("filled", "cancelled")}
    assert done == {record.order_id for record in of_crashing}
    assert records(first)[-1].time_us > START_US + 100_000_000


def test_run_ends_when_every_strategy_has_crashed(tmp_path: Path, tape: Path) -> None:
    path = tmp_path / "crashing.py"
    path.write_text(CRASHING)

    (figures,) = run(tape, tmp_path, [f"{path}:Crashing"], [])

    assert figures.end_reason == "crashed"


def test_duration_ends_a_recorded_run_at_its_moment(tmp_path: Path, tape: Path) -> None:
    (figures,) = run(tape, tmp_path, ["two_sided_quoter"], [], duration=30.1, sample_seconds=1.0)

    assert (figures.end_reason, figures.actual_duration_seconds) == ("duration", 30.1)
    assert figures.currencies[0].samples == 32  # at the start, each second, and at the end


def test_longer_latency_changes_what_a_taker_pays(tmp_path: Path, tape: Path, documented: str) -> None:
    quick, slow = (
        run(tape, tmp_path / text, [documented], ["quantity=0.01"], latency=text, inventory_notional=0.0)[0]
        for text in ("0", "900")
    )

    prices = [[record.price for record in records(one) if record.quantity] for one in (quick, slow)]
    assert all(prices)
    assert prices[0] != prices[1]
    assert records(slow)[0].event == "sent"
    assert records(slow)[1].time_us - records(slow)[0].time_us == 900_000


def test_two_recordings_of_one_exchange_are_refused(tmp_path: Path, tape: Path) -> None:
    with pytest.raises(CaptureError, match="one recording of each exchange"):
        run_strategies_recorded(
            specs_of(["two_sided_quoter"], [], ""), SETTINGS, [tape, tape], tmp_path, Stop(), lambda _: None
        )


def test_recording_without_a_symbol_says_so(tmp_path: Path, tape: Path) -> None:
    with pytest.raises(CaptureError, match="never has a live book of binance:ETH-USDT"):
        run(tape, tmp_path, ["two_sided_quoter"], [], symbols=("BTC", "ETH"))


def test_real_recording_gives_the_same_bytes_twice(tmp_path: Path, documented: str) -> None:
    tape = capture_path("binance_20210405_10sym")

    first, second = (
        run(tape, tmp_path / name, ["two_sided_quoter", documented], [], symbols=("MANA", "DENT")) for name in "ab"
    )

    assert [one.orders_sha256 for one in first] == [one.orders_sha256 for one in second]
    assert first[0].orders["accepted"] > 0


class Clock:
    """Advances by a millisecond at each look, and runs what is planned at its time."""

    def __init__(self) -> None:
        self.now = START_US / 1e6
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        self.now += 0.001
        return self.now


def test_live_run_trades_on_a_provider_until_its_end(tmp_path: Path) -> None:
    provider = StubProvider("binance")
    provider.put("BTC-USDT", ((100.0, 1.0), (99.0, 1.0)), ((101.0, 1.0), (102.0, 1.0)))
    provider.start()
    path = tmp_path / "buyer.py"
    path.write_text(
        "from bookbus import Strategy\n"
        "class Buyer(Strategy):\n"
        "    timer: float = 0.1\n"
        "    def on_timer(self, ctx):\n"
        "        ctx.buy('BTC-USDT', 'market', 0.25)\n"
    )
    settings = msgspec.structs.replace(SETTINGS, source="binance", duration=0.5, latency="20")
    source = LiveSource({"binance": provider}, clock=Clock())

    (figures,) = run_strategies_live(
        specs_of([f"{path}:Buyer"], [], ""), settings, source, tmp_path, Stop(), lambda _: None
    )
    again = run_strategies_live(
        specs_of([f"{path}:Buyer"], [], ""), settings, source, tmp_path, Stop(), lambda _: None
    )[0]
    provider.stop()

    assert figures.end_reason == "duration"
    assert figures.actual_duration_seconds == pytest.approx(0.5)
    filled = math.fsum(record.quantity for record in records(figures))
    assert filled == 1.0  # at 0.1, 0.2, 0.3 and 0.4 s, all that the best level holds
    assert {record.price for record in records(figures) if record.quantity} == {101.0}
    assert again.session_id != figures.session_id


def test_strategy_that_is_slower_than_the_books_is_told_the_newest(tmp_path: Path) -> None:
    provider = StubProvider("binance")
    provider.put("BTC-USDT", ((100.0, 1.0),), ((101.0, 1.0),))
    provider.start()
    source = LiveSource({"binance": provider})
    books = [book(bids=((100.0 + number, 1.0),), asks=((105.0, 1.0),)) for number in range(4)]
    batches: list[list[tuple[int, TapeEvent]]] = [[(source.now_us(), one) for one in books], []]
    stop = Stop()
    path = tmp_path / "slow.py"
    path.write_text(
        "from bookbus import Strategy\n"
        "class Slow(Strategy):\n"
        "    def on_start(self, ctx):\n"
        "        ctx.buy('BTC-USDT', 102.0, 0.1, post_only=True)\n"
        "    def on_book(self, ctx, book):\n"
        "        if book.bids[0][0] != 103.0:\n"
        "            raise RuntimeError(f'an older book: {book.bids}')\n"
    )

    def wait(seconds: float) -> list[tuple[int, TapeEvent]]:
        if len(batches) == 1:
            stop.ask("interrupted")
        return batches.pop(0)

    source.wait = wait  # type: ignore[method-assign]
    settings = msgspec.structs.replace(SETTINGS, source="binance", latency="0")
    (figures,) = run_strategies_live(
        specs_of([f"{path}:Slow"], [], ""), settings, source, tmp_path, stop, lambda _: None
    )
    provider.stop()

    assert (figures.error, figures.end_reason) == ("", "interrupted")


def test_live_run_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    provider = StubProvider("binance")
    provider.put("BTC-USDT", ((100.0, 1.0),), ((101.0, 1.0),))
    provider.start()
    stop = Stop()
    stop.ask("interrupted")

    (figures,) = run_strategies_live(
        specs_of(["two_sided_quoter"], [], ""),
        msgspec.structs.replace(SETTINGS, source="binance"),
        LiveSource({"binance": provider}),
        tmp_path,
        stop,
        lambda _: None,
    )
    provider.stop()

    assert figures.end_reason == "interrupted"


class OneBid(Strategy):
    """A post-only bid of `quantity` at the best price every ten seconds, cancelled after nine."""

    timer: float = 1.0
    quantity: float = 0.001

    def on_start(self, ctx: Context) -> None:
        self.ticks = 0
        self.orders: list[Order] = []
        self.filled: dict[str, list[tuple[int, float]]] = {}

    def on_timer(self, ctx: Context) -> None:
        self.ticks += 1
        book = ctx.reading("BTC-USDT").snapshot
        if self.ticks % 10 == 1 and book is not None:
            self.orders.append(ctx.buy("BTC-USDT", book.bids[0][0], self.quantity, post_only=True))
        elif self.ticks % 10 == 0:
            ctx.cancel(self.orders[-1])

    def on_order(self, ctx: Context, order: Order, update: OrderUpdate) -> None:
        if update.quantity:
            self.filled.setdefault(order.id, []).append((update.time_us, update.quantity))


@pytest.mark.parametrize("quantity", [0.001, 0.5])
def test_waiting_orders_are_filled_as_by_the_queue_model(tmp_path: Path, quantity: float) -> None:
    """But for those that an opposite best price reached, which the model does not know."""
    source = RecordedSource([capture_path("binance_20240808_btc_eth_long")], ["BTC"], 20, 5.0)
    strategy = OneBid()
    strategy.quantity = quantity
    (instrument,) = source.markets
    rules = MarketRules("BTC-USDT", instrument, 0.0, 0.0)
    records: list[OrderRecord] = []
    latency = parse_latency("entry=50,cancel=50,response=0", 1, lambda _: 0)
    engine = Engine("it", strategy, [rules], source.reading, latency, records.append)
    engine.deposit("binance", "USDT", 1e9)
    model, placed, started = QueueFill(), 0, False
    queued: list[QueuedOrder] = []
    expected: dict[str, list[tuple[int, float]]] = {}
    crossed: set[str] = set()
    newest: OrderBookSnapshot | None = None
    for frame in source.frames:
        at_us = max(round(frame.time * 1e6), source.now_us)
        engine.advance(at_us)
        for order in strategy.orders[placed:] if started else []:
            assert newest is not None
            wanted = BookOrder(
                exchange="binance",
                symbol="BTC-USDT",
                side="buy",
                quantity=order.quantity,
                placed_us=order.sent_us,
                price=order.price,
            )
            queued.append(model.place(wanted, newest))
            placed += 1
        if queued and engine.now_us >= queued[-1].order.placed_us + 9_000_000:
            queued[-1].cancel(queued[-1].order.placed_us + 9_000_000)
        for event in source.apply(frame):
            for order, one in zip(strategy.orders, queued, strict=True) if started else []:
                reached = isinstance(event, OrderBookSnapshot) and (event.best_ask() or math.inf) <= (
                    order.price or 0.0
                )
                if reached and not one.done:
                    crossed.add(order.id)
                if (fill := one.receive(event)) is not None:
                    expected.setdefault(order.id, []).append((event.received_us, fill.quantity))
            newest = event if isinstance(event, OrderBookSnapshot) else newest
            if started:
                engine.receive(at_us, event)
        if not started and not source.without_book:
            started = True
            assert newest is not None
            engine.start(source.now_us, [newest])

    compared = [order.id for order in strategy.orders if order.id not in crossed]
    assert len(compared) > 20
    assert sum(bool(expected.get(order_id)) for order_id in compared) > 10
    for order_id in compared:
        found, wanted_fills = strategy.filled.get(order_id, []), expected.get(order_id, [])
        assert [at_us for at_us, _ in found] == [at_us for at_us, _ in wanted_fills]
        # The engine's sums are exact, those of the model are floats.
        assert [amount for _, amount in found] == pytest.approx([amount for _, amount in wanted_fills])
