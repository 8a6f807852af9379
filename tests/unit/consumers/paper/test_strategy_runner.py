"""Runs of strategies through recordings, and from providers."""

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bookbus.consumers.paper.engine import OrderRecord
from bookbus.consumers.paper.fills.model import TapeEvent
from bookbus.consumers.paper.runner import Stop
from bookbus.consumers.paper.strategy_loader import specs_of
from bookbus.consumers.paper.strategy_runner import (
    LiveSource,
    StrategyFigures,
    StrategySettings,
    run_strategies_live,
    run_strategies_recorded,
    summary,
)
from bookbus.schemas.capture import CaptureError
from bookbus.schemas.snapshot import Level, Side
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
